/** A key means the same on every keyboard. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { keyOf } from "../../static/js/keys.js";

test("letters and digits are themselves, capital or not, and named keys keep their names", () => {
  for (const [key, meant] of [["c", "c"], ["C", "c"], ["7", "7"], ["=", "="], ["ArrowUp", "arrowup"], [">", ">"]]) {
    assert.equal(keyOf({ key, code: "" }), meant);
  }
});

test("under another script the key of the same place counts", () => {
  assert.equal(keyOf({ key: "ф", code: "KeyA" }), "a");
  assert.equal(keyOf({ key: "٣", code: "Digit3" }), "3");
});

test("full-width signs are the signs", () => {
  const wide = { "＝": "=", "？": "?", "》": ">", "《": "<", "。": ".", "，": "," };
  for (const [key, meant] of Object.entries(wide)) assert.equal(keyOf({ key, code: "Slash" }), meant);
});
