// Plays the demo page in two windows: sign in, open a room, join, chat, dice to the end, with one window's connection
// cut again and again in the middle. Ends with exit code 0 if neither window lost or doubled anything, and leaves
// pictures. Needs playwright-core (by NODE_PATH) and a Chromium.
//
//   NODE_PATH=/somewhere/node_modules node tests/page/demo.mjs http://127.0.0.1:9998/ pictures
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(import.meta.url)("playwright-core");

const [url, pictures = "pictures"] = process.argv.slice(2);
const run = Date.now().toString(36);
const ROOM = `Table ${run}`;
const PASSWORD = "open sesame";
const CUT_EVERY = 5; // rolls, so that it is each one's turn at some cut; no game of two is over in less than 17
const ROLLS_MAX = 400;
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const DESKTOP = { viewport: { width: 1440, height: 900 }, colorScheme: "light" };
const PHONE = {
  viewport: { width: 390, height: 844 },
  colorScheme: "dark",
  isMobile: true,
  hasTouch: true,
  deviceScaleFactor: 2,
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
const complaints = [];

/** A window of its own. */
async function open(name, options, at = url) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.on("console", (message) => message.type() === "error" && complaints.push(`${name}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(`${name}: ${error.message}`));
  // The longest delays of the backoff, so that something happens while a window is away.
  await page.addInitScript(() => (Math.random = () => 0.999));
  await page.goto(at);
  return page;
}

const status = (page, text) => page.locator("#status", { hasText: text }).waitFor();

/** As a guest; from now on the window keeps what the rooms' streams tell it. */
async function signIn(page, name) {
  await page.getByLabel("Your name").fill(name);
  await page.keyboard.press("Enter");
  await status(page, /^Connected$/);
  await page.evaluate(() => {
    globalThis.told = [];
    globalThis.ringgate.on("*", (frame, { stream }) => {
      if (stream?.includes("/room:") && frame.type !== "system.advance")
        globalThis.told.push([stream, frame.at[1], frame.type, frame.roll ?? frame.content ?? ""]);
    });
  });
}

async function shot(page, name, fullPage = false) {
  if (fullPage) await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: join(pictures, `${name}.png`), fullPage, animations: "disabled" });
}
const rollButton = (page) => page.locator("#roll");
const mayRoll = async (page) => (await rollButton(page).getAttribute("aria-disabled")) === "false";
const ended = (page) => page.locator("#turn[data-kind=won]").isVisible();
const scores = (page) => page.locator("#players .score").allTextContents();
const saidIn = (page) => page.locator("#lines .said").allTextContents();

async function say(page, text) {
  await page.getByLabel("Message").fill(text);
  await page.keyboard.press("Enter");
}

/** One of the two whose turn it is. */
async function whoseTurn(pages) {
  for (let tries = 0; tries < 600; tries += 1) {
    for (const page of pages) {
      if (await ended(page)) return null;
      if (await mayRoll(page)) return page;
    }
    await pages[0].waitForTimeout(25);
  }
  throw new Error("nobody may roll");
}

/** In a page: whether, behind the first `told`, somebody rolled and it is another one's turn, or nobody's. */
function rolledBehind(told) {
  const types = globalThis.told.slice(told).map(([, , type]) => type);
  const rolled = types.indexOf("games.event.bigger_dice.rolled");
  return rolled >= 0 && types.slice(rolled).some((type) => /\.(turn_changed|game_ended)$/.test(type));
}

async function play(ann, bob) {
  const said = [];
  let [rolls, cuts] = [0, 0];
  for (; rolls < ROLLS_MAX; rolls += 1) {
    const page = await whoseTurn([ann, bob]);
    if (page === null) break;
    if (rolls % CUT_EVERY === 0 && rolls > 0) {
      await bob.getByRole("button", { name: "Cut my connection" }).click();
      cuts += 1;
      for (const [who, name] of [
        [ann, "Ann"],
        [bob, "Bob"],
      ]) {
        said.push(`${name} during cut ${cuts}`);
        await say(who, said.at(-1)); // Bob's waits for his connection
      }
      if (cuts === 1) await shot(bob, "phone-cut");
    }
    const before = await page.evaluate(() => globalThis.told.length);
    await rollButton(page).click();
    await page.waitForFunction(rolledBehind, before);
    if (rolls === 14) await Promise.all([shot(ann, "desktop-game"), shot(bob, "phone-game", true)]);
  }
  assert.ok(cuts >= 2, `only ${cuts} cuts`);
  return { said, rolls, cuts };
}

/** Both windows were told the same, each once and in order, from the moment that both were there. */
async function compare(ann, bob) {
  for (const page of [ann, bob]) await page.locator("#turn[data-kind=won]").waitFor();
  const [of_ann, of_bob] = await Promise.all([ann, bob].map((page) => page.evaluate(() => globalThis.told)));
  for (const stream of new Set(of_bob.map(([name]) => name))) {
    const [a, b] = [of_ann, of_bob].map((told) => told.filter(([name]) => name === stream));
    const places = b.map(([, place]) => place);
    assert.deepEqual(
      places,
      [...new Set(places)].sort((x, y) => x - y),
      `${stream}: doubled or out of order`,
    );
    assert.deepEqual(
      a.filter(([, place]) => place >= places[0]),
      b,
      `${stream}: the windows differ`,
    );
  }
  return of_bob.length;
}

/** A link with a token, as the server prints it; a token that is none; a second window that takes the session over. */
async function waysIn() {
  const { token } = await (await fetch(new URL("/dev/token?name=Cy", url))).json();
  const cy = await open("cy", DESKTOP, new URL(`#token=${encodeURIComponent(token)}`, url).href);
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

try {
  mkdirSync(pictures, { recursive: true });
  const [ann, bob] = [await open("ann", DESKTOP), await open("bob", PHONE)];
  for (const page of [ann, bob]) await page.locator("#show .replayed").nth(4).waitFor();
  await Promise.all([shot(ann, "desktop-signin"), shot(bob, "phone-signin")]);
  await signIn(ann, `Ann ${run}`);
  await ann.getByLabel("Room name").fill(ROOM);
  await ann.getByLabel("Password (optional)").fill(PASSWORD);
  await ann.getByRole("button", { name: "Open room" }).click();
  await ann.getByRole("heading", { name: ROOM }).waitFor();
  await say(ann, "First!");
  await ann.locator("#lines .said").first().waitFor();

  await signIn(bob, `Bob ${run}`);
  await bob.getByRole("button", { name: `Join ${ROOM}` }).waitFor();
  await shot(bob, "phone-lobby", true);
  for (const password of ["wrong", PASSWORD]) {
    await bob.getByRole("button", { name: `Join ${ROOM}` }).click();
    await bob.getByLabel(`“${ROOM}” asks for one`).fill(password);
    await bob.keyboard.press("Enter");
    if (password === "wrong") await bob.locator("#create-error:not(:empty)").waitFor();
  }
  await bob.getByRole("heading", { name: ROOM }).waitFor();
  await bob.getByText("First!").waitFor(); // from the room's history
  await shot(bob, "phone-table");
  await ann.getByText(`Bob ${run}`).first().waitFor();

  const { said, rolls, cuts } = await play(ann, bob);
  for (const page of [ann, bob]) {
    for (const text of said) await page.locator("#lines .said", { hasText: new RegExp(`^${text}$`) }).waitFor();
    assert.deepEqual([...(await saidIn(page))].sort(), ["First!", ...said].sort(), "the chat");
  }
  const compared = await compare(ann, bob);
  assert.deepEqual(await scores(ann), await scores(bob), "the scores");
  const { resumed, gaps, lost, duplicates } = await bob.evaluate(() => globalThis.ringgate.stats);
  assert.deepEqual([resumed, gaps, lost], [cuts, 0, 0]);
  await ann.getByRole("button", { name: "Play again" }).waitFor(); // Ann is the host
  await Promise.all([shot(ann, "desktop-end"), shot(bob, "phone-end", true)]);

  // A reload goes on in the room, with everything that was on the page.
  const before = await Promise.all([saidIn(bob), scores(bob)]);
  await bob.reload();
  await bob.locator("#turn[data-kind=won]").waitFor();
  assert.deepEqual(await Promise.all([saidIn(bob), scores(bob)]), before, "the reload");

  await ann.getByRole("button", { name: "Leave room" }).click();
  await ann.getByRole("heading", { name: "Rooms" }).waitFor();
  await shot(ann, "desktop-lobby");
  await waysIn();
  assert.deepEqual(complaints, []);
  console.log(JSON.stringify({ rolls, cuts, resumed, compared, duplicates }));
} finally {
  await browser.close();
}
