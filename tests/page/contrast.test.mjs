// The page's colours keep the contrasts of WCAG 2.2 AA in both palettes: 4.5:1 for text, 3:1 for what must be seen.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const sheet = readFileSync(new URL("../../src/page/style.css", import.meta.url), "utf8");

function palette(text) {
  return Object.fromEntries([...text.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map(([, name, value]) => [name, value]));
}

const [light, dark] = [...sheet.matchAll(/:root \{([^}]*)\}/g)].map(([, block]) => palette(block));

const TEXT = [
  ...["bg", "surface", "sunken", "accent-soft"].map((ground) => ["text", ground]),
  ...["bg", "surface", "sunken"].map((ground) => ["muted", ground]),
  ...["bg", "surface", "accent-soft"].map((ground) => ["accent", ground]),
  ["accent-text", "accent"],
  ["late", "surface"],
  ["bad", "surface"],
  ["bad", "bad-soft"],
  ["bad", "bg"],
  ["warn", "warn-soft"],
  ["warn", "surface"],
  ["felt-text", "felt"],
  ["felt-muted", "felt"],
  ["pip", "die"],
];
// Borders of controls, the focus ring, the marks of the ring.
const SEEN = ["edge", "late", "accent", "bad"].flatMap((name) => ["bg", "surface"].map((ground) => [name, ground]));

function luminance(hex) {
  const channels = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
  const [r, g, b] = channels.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

test("the measure is WCAG's", () => {
  assert.equal(contrast("#000000", "#ffffff"), 21);
  assert.ok(Math.abs(contrast("#777777", "#ffffff") - 4.48) < 0.01);
});

for (const [name, colours] of [
  ["light", light],
  ["dark", { ...light, ...dark }],
]) {
  test(`${name}: text can be read and controls can be seen`, () => {
    for (const [pairs, least] of [
      [TEXT, 4.5],
      [SEEN, 3],
    ]) {
      for (const [front, ground] of pairs) {
        const found = contrast(colours[front], colours[ground]);
        assert.ok(found >= least, `${front} on ${ground}: ${found.toFixed(2)}`);
      }
    }
  });
}

test("avatars' initials can be read", () => {
  const avatars = [...sheet.matchAll(/\.avatar[^{]*\{[^}]*?background: (#\w{6});\s*color: (#\w{6});/g)];
  assert.equal(avatars.length, 6);
  for (const [, ground, front] of avatars) assert.ok(contrast(front, ground) >= 4.5, `${front} on ${ground}`);
});
