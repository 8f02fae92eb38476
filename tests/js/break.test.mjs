import assert from "node:assert/strict";
import { test } from "node:test";

import { isLong, stretch } from "../../static/js/break.js";

const MINUTE = 60_000;
const PAUSE = 5 * MINUTE;

test("a first sign of life begins a stretch of work", () => {
  assert.deepEqual(stretch(null, 100, PAUSE), { since: 100, last: 100, quiet: 0 });
});

test("a stretch goes on over short pauses and keeps its beginning", () => {
  const work = stretch({ since: 0, last: 50 * MINUTE, quiet: 7 }, 54 * MINUTE, PAUSE);
  assert.deepEqual(work, { since: 0, last: 54 * MINUTE, quiet: 7 });
});

test("five minutes without a sign of life are a break", () => {
  const work = stretch({ since: 0, last: 50 * MINUTE, quiet: 7 }, 55 * MINUTE, PAUSE);
  assert.deepEqual(work, { since: 55 * MINUTE, last: 55 * MINUTE, quiet: 0 });
});

test("a clock that was set back begins anew instead of waiting for hours", () => {
  assert.equal(stretch({ since: 90 * MINUTE, last: 95 * MINUTE, quiet: 0 }, MINUTE, PAUSE).since, MINUTE);
});

test("it speaks from the wished-for length on, and not while it was waved away", () => {
  const work = { since: 0, last: 0, quiet: 0 };
  assert.equal(isLong(work, 50 * MINUTE - 1, 50 * MINUTE), false);
  assert.equal(isLong(work, 50 * MINUTE, 50 * MINUTE), true);
  const waved = { ...work, quiet: 80 * MINUTE };
  assert.equal(isLong(waved, 60 * MINUTE, 50 * MINUTE), false);
  assert.equal(isLong(waved, 80 * MINUTE, 50 * MINUTE), true);
});
