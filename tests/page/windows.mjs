// Windows of a real browser on the demo page, and what a player does in one. Needs playwright-core (by NODE_PATH) and a
// Chromium (CHROMIUM, else Debian's).
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(import.meta.url)("playwright-core");

export const DESKTOP = { viewport: { width: 1440, height: 900 }, colorScheme: "light" };
export const PHONE = {
  viewport: { width: 390, height: 844 },
  colorScheme: "dark",
  isMobile: true,
  hasTouch: true,
  deviceScaleFactor: 2,
};
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A browser whose pictures go to a folder. */
export class Windows {
  /** What pages complained of, on the console or by an exception. */
  complaints = [];

  static async launch(pictures) {
    mkdirSync(pictures, { recursive: true });
    const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
    return Object.assign(new Windows(), { browser, pictures });
  }

  /** A window of its own. */
  async open(name, options, at) {
    const context = await this.browser.newContext(options);
    const page = await context.newPage();
    page.setDefaultTimeout(15_000);
    page.on("console", (message) => message.type() === "error" && this.complaints.push(`${name}: ${message.text()}`));
    page.on("pageerror", (error) => this.complaints.push(`${name}: ${error.message}`));
    // The longest delays of the backoff, so that something happens while a window is away.
    await page.addInitScript(() => (Math.random = () => 0.999));
    await page.goto(at);
    return page;
  }

  async shot(page, name, fullPage = false) {
    if (fullPage) await page.evaluate(() => scrollTo(0, 0));
    await page.screenshot({ path: join(this.pictures, `${name}.png`), fullPage, animations: "disabled" });
  }

  /** Every window as it is now, for who looks into a failure. */
  async shotAll(name) {
    const pages = this.browser.contexts().flatMap((context) => context.pages());
    for (const [at, page] of pages.entries()) await this.shot(page, `${name}-${at}`, true);
  }

  close() {
    return this.browser.close();
  }
}

export const status = (page, text, options) => page.locator("#status", { hasText: text }).waitFor(options);

/** From now on the window keeps what the rooms' streams tell it. */
export const keep = (page) =>
  page.evaluate(() => {
    globalThis.told = [];
    globalThis.ringgate.on("*", (frame, { stream }) => {
      if (stream?.includes("/room:") && frame.type !== "system.advance")
        globalThis.told.push([stream, frame.at[1], frame.type, frame.roll ?? frame.content ?? ""]);
    });
  });

export async function say(page, text) {
  await page.getByLabel("Message").fill(text);
  await page.keyboard.press("Enter");
}

export const saidIn = (page) => page.locator("#lines .said").allTextContents();
export const scores = (page) => page.locator("#players .score").allTextContents();
export const mayRoll = async (page) => (await page.locator("#roll").getAttribute("aria-disabled")) === "false";
const ended = (page) => page.locator("#turn[data-kind=won]").isVisible();

/** One of the two whose turn it is; null behind the end of the game. */
export async function whoseTurn(pages) {
  for (let tries = 0; tries < 600; tries += 1) {
    for (const page of pages) {
      if (await ended(page)) return null;
      if (await mayRoll(page)) return page;
    }
    await pages[0].waitForTimeout(25);
  }
  throw new Error("nobody may roll");
}

/** Rolls, and waits until it is another one's turn, or nobody's. */
export async function roll(page, options) {
  const before = await page.evaluate(() => globalThis.told.length);
  await page.locator("#roll").click();
  await page.waitForFunction(rolledBehind, before, options);
}

/** In a page: whether, behind the first `told`, somebody rolled and it is another one's turn, or nobody's. */
function rolledBehind(told) {
  const types = globalThis.told.slice(told).map(([, , type]) => type);
  const rolled = types.indexOf("games.event.bigger_dice.rolled");
  return rolled >= 0 && types.slice(rolled).some((type) => /\.(turn_changed|game_ended)$/.test(type));
}

/** Both windows were told the same, each once and in order, from the moment that both were there; how much. */
export async function compare(first, second) {
  for (const page of [first, second]) await page.locator("#turn[data-kind=won]").waitFor();
  const [of_first, of_second] = await Promise.all([first, second].map((page) => page.evaluate(() => globalThis.told)));
  for (const stream of new Set(of_second.map(([name]) => name))) {
    const [a, b] = [of_first, of_second].map((told) => told.filter(([name]) => name === stream));
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
  return of_second.length;
}
