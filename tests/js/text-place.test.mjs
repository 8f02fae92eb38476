/** Places in a text: code points for the server, UTF-16 units for the page. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { toPoints, toUnits, trimmed } from "../../static/js/text-place.js";

const text = "a𝒳b👩‍👧 中"; // 1 + 2 + 1 + (2 + 1 + 2) + 1 + 1 units

test("code points and units are told apart", () => {
  assert.equal(toPoints(text, text.length), [...text].length);
  assert.equal(toPoints("a𝒳b", 3), 2);
  assert.equal(toUnits("a𝒳b", 2), 3);
});

test("every code point comes back", () => {
  for (let n = 0; n <= [...text].length; n++) assert.equal(toPoints(text, toUnits(text, n)), n);
});

test("white space at the ends is left out, and nothing is no place", () => {
  assert.deepEqual(trimmed("  two words \n", 0, 13), [2, 11]);
  assert.equal(trimmed("a   b", 1, 4), null);
});

test("half a character becomes a whole one", () => {
  assert.deepEqual(trimmed("a𝒳b", 2, 4), [1, 4]);
  assert.deepEqual(trimmed("a𝒳b", 0, 2), [0, 3]);
});
