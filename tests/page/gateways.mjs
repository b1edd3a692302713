// The README's page "Two gateways on Kafka and Redis" in two windows, each on its own gateway: sign in by the token of the
// link, open a room, join it by the other gateway, chat, dice to the end. In the middle it asks, by lines on stdout like
// `kill gateway b`, that something be killed or started, and reads a line when that is done. Ends with exit code 0 if
// neither window lost or doubled anything, and leaves pictures.
//
//   NODE_PATH=/somewhere/node_modules node tests/page/gateways.mjs 'http://…/#token=ANN' 'http://…/#token=BOB' pictures
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { DESKTOP, PHONE, Windows, compare, keep, roll, saidIn, say, scores, status, whoseTurn } from "./windows.mjs";

const [urlAnn, urlBob, pictures = "pictures"] = process.argv.slice(2);
const ROOM = "Table of two gateways";
const ROLLS_MAX = 400;
/** Redis has to forget the dead gateway, the new one to read its histories, the window to try again. */
const BACK = { timeout: 60_000 };
/** One worker has to find out that the other is gone. */
const TAKEOVER = { timeout: 60_000 };

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const windows = await Windows.launch(pictures);
const said = ["Hello!", "Hello, you!"];

/** Asks whoever started this for something. */
async function ask(what) {
  console.log(what);
  assert.equal((await answers.next()).done, false, `nobody did: ${what}`);
}

/** By the link's token: the form is filled in and its button has the focus. */
async function signIn(page) {
  await page.keyboard.press("Enter");
  await status(page, /^Connected$/);
  await keep(page);
}

/** Both windows show a line of chat. */
async function heard(pages, text, options) {
  for (const page of pages) await page.locator("#lines").getByText(text, { exact: true }).waitFor(options);
}

/** Kills the gateway of one window, and starts it again; the other plays on meanwhile. */
async function killGateway(id, away, here) {
  await ask(`kill gateway ${id}`);
  await status(away, /^Reconnecting$/);
  const texts = ["is gone", "was gone"].map((what) => `gateway ${id} ${what}, ${said.length}`);
  said.push(...texts);
  await say(here, texts[0]);
  await heard([here], texts[0]);
  if ((await whoseTurn([here, away])) === here) await roll(here);
  await say(away, texts[1]); // waits for its connection
  await windows.shot(away, `gateway-${id}-killed`);
  await ask(`start gateway ${id}`);
  await status(away, /^Connected$/, BACK);
  for (const text of texts) await heard([here, away], text);
  await windows.shot(away, `gateway-${id}-back`);
}

/** Kills the active worker; what is asked for meanwhile is done by the other one. */
async function killWorker(ann, bob) {
  await ask("kill worker");
  const text = "Who counts the dice now?";
  said.push(text);
  await say(ann, text);
  const page = await whoseTurn([ann, bob]);
  await roll(page, TAKEOVER);
  await heard([ann, bob], text);
}

/** To the end of the game, which no two reach in less than 17 rolls. */
async function play(ann, bob) {
  const accidents = new Map([
    [3, () => killGateway("b", bob, ann)],
    [6, () => killWorker(ann, bob)],
    [9, () => killGateway("a", ann, bob)],
    [12, () => killGateway("b", bob, ann)],
  ]);
  let rolls = 0;
  for (; rolls < ROLLS_MAX; rolls += 1) {
    await accidents.get(rolls)?.();
    const page = await whoseTurn([ann, bob]);
    if (page === null) break;
    await roll(page);
  }
}

let failed = true;
try {
  const [ann, bob] = [await windows.open("ann", DESKTOP, urlAnn), await windows.open("bob", PHONE, urlBob)];
  await signIn(ann);
  await ann.getByLabel("Room name").fill(ROOM);
  await ann.getByRole("button", { name: "Open room" }).click();
  await ann.getByRole("heading", { name: ROOM }).waitFor();

  await signIn(bob);
  await bob.getByRole("button", { name: "Refresh" }).click();
  await bob.getByRole("button", { name: `Join ${ROOM}` }).click();
  await bob.getByRole("heading", { name: ROOM }).waitFor();
  await ann.locator("#players").getByText("bob").waitFor();
  for (const [at, page] of [ann, bob].entries()) await say(page, said[at]);
  for (const text of said) await heard([ann, bob], text);

  await play(ann, bob);
  const compared = await compare(ann, bob);
  for (const page of [ann, bob])
    assert.deepEqual([...(await saidIn(page))].sort(), [...said].sort(), "the chat");
  assert.deepEqual(await scores(ann), await scores(bob), "the scores");
  const stats = await Promise.all([ann, bob].map((page) => page.evaluate(() => globalThis.ringgate.stats)));
  const kept = stats.map(({ resumed, gaps, lost }) => ({ resumed, gaps, lost }));
  assert.deepEqual(kept, [
    { resumed: 1, gaps: 0, lost: 0 },
    { resumed: 2, gaps: 0, lost: 0 },
  ]);
  await Promise.all([windows.shot(ann, "gateway-a-end"), windows.shot(bob, "gateway-b-end", true)]);
  // While its gateway is gone a window cannot reach it, and the browser says so.
  const other = windows.complaints.filter((text) => !/WebSocket connection to .* failed/.test(text));
  assert.deepEqual(other, []);
  console.log(JSON.stringify({ compared }));
  failed = false;
} finally {
  if (failed) await windows.shotAll("gateways-failed");
  await windows.close();
  process.stdin.destroy();
}
