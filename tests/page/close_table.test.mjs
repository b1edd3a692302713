// The client's close table is the server's.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { CLOSE_TABLE } from "../../src/page/ringgate.js";

const read = (path) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");

test("every row is a row of src/close.rs, in its order", () => {
  const row = /^\s*row\(R::\w+, (\d+), "([^"]*)", (\w+), "([^"]*)"\),$/gm;
  const rows = [...read("src/close.rs").matchAll(row)].map(([, code, text, reconnect, label]) => ({
    code: Number(code),
    text,
    reconnect: reconnect.toLowerCase(),
    label,
  }));
  assert.ok(rows.length > 20, "the pattern still finds the server's rows");
  assert.deepEqual(CLOSE_TABLE, rows);
});

test("the literal is JSON", () => {
  const [, literal] = /export const CLOSE_TABLE = (\[[^]*?\n\]);/.exec(read("src/page/ringgate.js"));
  assert.deepEqual(JSON.parse(literal), CLOSE_TABLE);
});
