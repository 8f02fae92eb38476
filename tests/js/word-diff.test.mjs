/** Two texts compared by words, in languages with and without spaces between them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { diffArrays } from "../../node_modules/diff/libesm/diff/array.js";
import { differences, wordsOf } from "../../static/js/word-diff.js";

const cut = (text, places) => places.map(([start, end]) => text.slice(start, end));

test("only the words that differ are marked, on both sides", () => {
  const [one, other] = ["The cat sat on the mat.", "The dog sat on a mat."];
  const found = differences(one, other, diffArrays);
  assert.deepEqual(cut(one, found.one), ["cat", "the"]);
  assert.deepEqual(cut(other, found.other), ["dog", "a"]);
  // 6 words each, 2 of each stand alone: 8 of 12 are shared
  assert.equal(found.shared, 1 - 4 / 12);
});

test("neighbours are one piece, and a space alone is none", () => {
  const [one, other] = ["a big red fox", "a fox"];
  const found = differences(one, other, diffArrays);
  assert.deepEqual(cut(one, found.one), ["big red"]);
  assert.deepEqual(found.other, []);
});

test("a piece ends with its line", () => {
  const one = "x\n    red one\n    red two\ny";
  assert.deepEqual(cut(one, differences(one, "x\ny", diffArrays).one), ["red one", "red two"]);
});

test("a line break and a space are the same gap", () => {
  const found = differences("one two\nthree", "one  two three", diffArrays);
  assert.deepEqual([found.one, found.other, found.shared], [[], [], 1]);
});

test("Chinese is compared by its words", () => {
  const [one, other] = ["今天下雨，我们去公园。", "今天下雨，我们去学校。"];
  const found = differences(one, other, diffArrays, "zh");
  assert.deepEqual(cut(one, found.one), ["公园"]);
  assert.deepEqual(cut(other, found.other), ["学校"]);
});

test("a language that does not exist is no obstacle", () => {
  assert.equal(differences("a b", "a b", diffArrays, "no_such-language!").shared, 1);
});

test("texts without anything in common are all difference, and the search for more is given up", () => {
  const one = Array.from({ length: 8000 }, (_, n) => `a${n}`).join(" ");
  const other = Array.from({ length: 8000 }, (_, n) => `b${n}`).join(" ");
  const answers = [];
  // Without a limit it would go on for 16,000 edits, each of which costs as many steps as there were before it.
  const watched = (...asked) => {
    assert.ok(asked[2].maxEditLength <= 2000);
    answers.push(diffArrays(...asked));
    return answers.at(-1);
  };
  const found = differences(one, other, watched);
  assert.deepEqual(answers, [undefined]);
  assert.equal(found.shared, 0);
  assert.deepEqual(found.one, [[0, one.length]]);
});

test("empty texts share all that they have", () => {
  assert.deepEqual(differences("", "", diffArrays), { one: [], other: [], shared: 1 });
});

test("places count UTF-16 units, as the page does", () => {
  assert.deepEqual(wordsOf("𝒳 b", "en").map(({ start, end }) => [start, end]), [[0, 2], [2, 3], [3, 4]]);
});

test("without Intl.Segmenter each Chinese character is a word", () => {
  const kept = Intl.Segmenter;
  try {
    Intl.Segmenter = undefined;
    assert.deepEqual(wordsOf("GPT说你好, ok", "zh").map(({ word }) => word), ["GPT", "说", "你", "好", ",", " ", "ok"]);
  } finally {
    Intl.Segmenter = kept;
  }
});
