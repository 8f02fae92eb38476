// How often a page asks again, and when it leaves its part alone.
import assert from "node:assert/strict";
import { test } from "node:test";

import { EVERY, IDLE_AFTER, WHEN_HIDDEN, WHEN_IDLE, isBusy, pause } from "../../static/js/live.js";

const watched = { hidden: false, idleFor: 0, failures: 0 };

test("a page that is watched asks often", () => {
  assert.equal(pause(watched), EVERY);
});

test("a page that nobody moves on asks seldom, a hidden one once a minute", () => {
  assert.equal(pause({ ...watched, idleFor: IDLE_AFTER + 1 }), WHEN_IDLE);
  assert.equal(pause({ ...watched, hidden: true }), WHEN_HIDDEN);
  assert.ok(EVERY < WHEN_IDLE && WHEN_IDLE < WHEN_HIDDEN);
});

test("each failure doubles the pause, up to a minute", () => {
  const pauses = [0, 1, 2, 3, 9].map((failures) => pause({ ...watched, failures }));
  assert.deepEqual(pauses, [3000, 6000, 12000, 24000, 60000]);
});

/** A part of a page with only what `isBusy` looks at. */
function part({ popover = false, holds = () => false } = {}) {
  return { querySelector: (selector) => (selector === ":popover-open" && popover ? {} : null), contains: holds };
}

const nothing = { activeElement: null, getSelection: () => null };

test("an open question is not taken away", () => {
  assert.equal(isBusy(part({ popover: true }), nothing), true);
  assert.equal(isBusy(part(), nothing), false);
});

test("a field is left alone while somebody types in it, a button is not", () => {
  const focused = (tag) => ({ ...nothing, activeElement: { matches: (list) => list.split(", ").includes(tag) } });
  assert.equal(isBusy(part({ holds: () => true }), focused("input")), true);
  assert.equal(isBusy(part({ holds: () => true }), focused("button")), false);
  assert.equal(isBusy(part({ holds: () => false }), focused("input")), false, "the field stands elsewhere");
});

test("selected text stays selected", () => {
  const selected = { ...nothing, getSelection: () => ({ isCollapsed: false, anchorNode: {} }) };
  assert.equal(isBusy(part({ holds: () => true }), selected), true);
  assert.equal(isBusy(part({ holds: () => false }), selected), false);
});
