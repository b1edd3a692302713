// Plays the demo page in two windows: sign in, open a room, join, chat, dice to the end. One window cuts its connection
// itself; the other's TCP connections are cut again and again on their way, between frames and in the middle of one. Ends
// with exit code 0 if neither window lost or doubled anything, and leaves pictures. Needs a fresh gateway,
// playwright-core (by NODE_PATH) and a Chromium.
//
//   NODE_PATH=/somewhere/node_modules node tests/page/demo.mjs http://127.0.0.1:9998/ pictures
import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import { DESKTOP, PHONE, Windows, compare, keep, roll, saidIn, say, scores, status, whoseTurn } from "./windows.mjs";

const [url, pictures = "pictures"] = process.argv.slice(2);
const ROOM = "Friday dice";
const PASSWORD = "open sesame";
const CUT_EVERY = 5; // rolls, so that it is each one's turn at some cut; no game of two is over in less than 17
const ANN_CUTS_AT = 8;
const ROLLS_MAX = 400;

/** The way of one window to the gateway, which can be cut. */
class Wire {
  #pairs = new Set();
  #tears = false;

  constructor() {
    const { hostname, port } = new URL(url);
    this.server = createServer((browser) => {
      const gateway = connect(Number(port), hostname);
      const pair = { browser, gateway };
      this.#pairs.add(pair);
      browser.on("data", (bytes) => gateway.write(bytes));
      gateway.on("data", (bytes) => this.#pass(browser, bytes));
      for (const socket of [browser, gateway]) {
        socket.on("error", () => {}); // a reset is a close here
        socket.on("close", () => this.#end(pair));
      }
    });
  }

  async open() {
    await new Promise((listening) => this.server.listen(0, "127.0.0.1", listening));
    return `http://127.0.0.1:${this.server.address().port}/`;
  }

  close() {
    this.server.close();
    this.cut();
  }

  /** Resets every connection, now. */
  cut() {
    for (const pair of this.#pairs) this.#end(pair);
  }

  /** Does so in the middle of what the gateway sends next. */
  tear() {
    this.#tears = true;
  }

  #pass(browser, bytes) {
    if (!this.#tears) return void browser.write(bytes);
    this.#tears = false;
    browser.write(bytes.subarray(0, bytes.length >> 1), () => this.cut());
  }

  #end(pair) {
    this.#pairs.delete(pair);
    for (const socket of [pair.browser, pair.gateway]) if (!socket.destroyed) socket.resetAndDestroy();
  }
}

const windows = await Windows.launch(pictures);

/** As a guest; from now on the window keeps what the rooms' streams tell it. */
async function signIn(page, name) {
  await page.getByLabel("Your name").fill(name);
  await page.keyboard.press("Enter");
  await status(page, /^Connected$/);
  await keep(page);
}

/** Cuts Bob's connection, each time in another way, while both are talking. */
async function cutBob(ann, bob, wire, cuts) {
  const texts = ["Ann", "Bob"].map((name) => `${name} during cut ${cuts}`);
  if (cuts % 2 === 1) wire.cut();
  else wire.tear(); // by what Ann says
  await say(ann, texts[0]);
  await status(bob, /^Reconnecting$/);
  await say(bob, texts[1]); // waits for his connection
  if (cuts === 1) await windows.shot(bob, "phone-cut");
  return texts;
}

async function cutAnn(ann, bob) {
  await ann.getByRole("button", { name: "Cut my connection" }).click();
  await status(ann, /^Reconnecting$/);
  await say(bob, "Still there?");
  await say(ann, "Sure.");
  await windows.shot(ann, "desktop-cut");
  return ["Still there?", "Sure."];
}

async function play(ann, bob, wire) {
  const said = [];
  let [rolls, cuts] = [0, 0];
  for (; rolls < ROLLS_MAX; rolls += 1) {
    const page = await whoseTurn([ann, bob]);
    if (page === null) break;
    if (rolls % CUT_EVERY === 0 && rolls > 0) said.push(...(await cutBob(ann, bob, wire, (cuts += 1))));
    if (rolls === ANN_CUTS_AT) said.push(...(await cutAnn(ann, bob)));
    await roll(page);
    if (rolls === 13) {
      await Promise.all([ann, bob].map((window) => status(window, /^Connected$/)));
      await Promise.all([windows.shot(ann, "desktop-game"), windows.shot(bob, "phone-game", true)]);
    }
  }
  assert.ok(cuts >= 2, `only ${cuts} cuts`);
  return { said, rolls, cuts };
}

/** A link with a token, as the server prints it; a token that is none; a second window that takes the session over. */
async function waysIn() {
  const { token } = await (await fetch(new URL("/dev/token?name=Cy", url))).json();
  const cy = await windows.open("cy", DESKTOP, new URL(`#token=${encodeURIComponent(token)}`, url).href);
  await cy.keyboard.press("Enter"); // the form is filled in and its button has the focus
  await status(cy, /^Connected$/);
  assert.equal(new URL(cy.url()).hash, "", "the token is still in the address bar");

  const [other] = await Promise.all([cy.context().waitForEvent("page"), cy.evaluate(() => void window.open("/"))]);
  await status(other, /^Connected$/);
  await status(cy, /^Disconnected$/);
  await cy.getByRole("button", { name: "Connect again" }).click();
  await status(cy, /^Connected$/);
  await status(other, /^Disconnected$/);

  await cy.getByRole("button", { name: "Sign out" }).click();
  await cy.getByText("Sign in with a token").click();
  await cy.getByLabel("JSON Web Token").fill("no token");
  await cy.getByRole("button", { name: "Sign in", exact: true }).click();
  await cy.getByText("The server did not accept the token.").waitFor();
}

const wire = new Wire();
try {
  const [ann, bob] = [await windows.open("ann", DESKTOP, url), await windows.open("bob", PHONE, await wire.open())];
  for (const page of [ann, bob]) await page.locator("#show .replayed").nth(4).waitFor();
  await Promise.all([windows.shot(ann, "desktop-signin"), windows.shot(bob, "phone-signin")]);
  await signIn(ann, "Ann");
  await ann.getByLabel("Room name").fill(ROOM);
  await ann.getByLabel("Password (optional)").fill(PASSWORD);
  await ann.getByRole("button", { name: "Open room" }).click();
  await ann.getByRole("heading", { name: ROOM }).waitFor();
  await say(ann, "First!");
  await ann.locator("#lines .said").first().waitFor();

  await signIn(bob, "Bob");
  await bob.getByRole("button", { name: `Join ${ROOM}` }).waitFor();
  await windows.shot(bob, "phone-lobby", true);
  for (const password of ["wrong", PASSWORD]) {
    await bob.getByRole("button", { name: `Join ${ROOM}` }).click();
    await bob.getByLabel(`“${ROOM}” asks for one`).fill(password);
    await bob.keyboard.press("Enter");
    if (password === "wrong") await bob.locator("#create-error:not(:empty)").waitFor();
  }
  await bob.getByRole("heading", { name: ROOM }).waitFor();
  await bob.getByText("First!").waitFor(); // from the room's history
  await windows.shot(bob, "phone-table");
  await ann.locator("#players").getByText("Bob").waitFor();

  const { said, rolls, cuts } = await play(ann, bob, wire);
  for (const page of [ann, bob]) {
    for (const text of said) await page.locator("#lines").getByText(text, { exact: true }).waitFor();
    assert.deepEqual([...(await saidIn(page))].sort(), ["First!", ...said].sort(), "the chat");
  }
  const compared = await compare(ann, bob);
  assert.deepEqual(await scores(ann), await scores(bob), "the scores");
  const [of_ann, of_bob] = await Promise.all([ann, bob].map((page) => page.evaluate(() => globalThis.ringgate.stats)));
  const { resumed, duplicates } = of_bob;
  assert.deepEqual([resumed, of_bob.gaps, of_bob.lost], [cuts, 0, 0]);
  assert.deepEqual([of_ann.resumed, of_ann.gaps, of_ann.lost], [1, 0, 0]);
  await ann.getByRole("button", { name: "Play again" }).waitFor(); // Ann is the host
  await Promise.all([windows.shot(ann, "desktop-end"), windows.shot(bob, "phone-end", true)]);

  // A reload goes on in the room, with everything that was on the page.
  const before = await Promise.all([saidIn(bob), scores(bob)]);
  await bob.reload();
  await bob.locator("#turn[data-kind=won]").waitFor();
  assert.deepEqual(await Promise.all([saidIn(bob), scores(bob)]), before, "the reload");

  await ann.getByRole("button", { name: "Leave room" }).click();
  await ann.getByRole("heading", { name: "Rooms" }).waitFor();
  await ann.getByText("1 of 6 players").waitFor();
  await windows.shot(ann, "desktop-lobby");
  await waysIn();
  assert.deepEqual(windows.complaints, []);
  console.log(JSON.stringify({ rolls, cuts, resumed, compared, duplicates }));
} finally {
  await windows.close();
  wire.close();
}
