/** Active time is what lies between signs of life, without the pauses. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ActiveTime } from "../../static/js/lease.js";

test("time between signs of life counts", () => {
  const time = new ActiveTime(0, 0);
  time.touch(30_000);
  assert.equal(time.touch(90_000), 90_000);
});

test("two minutes of looking count, a longer pause does not at all", () => {
  const time = new ActiveTime(0, 0);
  assert.equal(time.touch(120_000), 120_000);
  assert.equal(time.touch(240_001), 120_000);
  assert.equal(time.touch(250_001), 130_000);
});

test("what a draft brought along is kept, and a clock that jumps back takes nothing", () => {
  const time = new ActiveTime(5_000, 100_000);
  assert.equal(time.touch(90_000), 5_000);
  assert.equal(time.touch(91_000), 6_000);
});
