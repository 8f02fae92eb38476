/** Moves on a weak order: every one by name, and that they reach all of them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as weak from "../../static/js/weak-order.js";

const IDS = ["a", "b", "c", "d"];
const empty = { tiers: [], pool: IDS };
const say = (order) => weak.phrase(order, (id) => id);
const of = (text, pool = []) => ({ tiers: text.split(" > ").map((tier) => tier.split("=")), pool });

test("letters from best to worst, and = after a card as good as the one before it", () => {
  let order = empty;
  for (const id of ["c", "a", "d"]) order = weak.place(order, id);
  order = weak.tie(order, "d");
  order = weak.place(order, "b");
  assert.equal(say(order), "c › a = d › b");
  assert.deepEqual(weak.toRanks(order), { c: 1, a: 2, d: 2, b: 3 });
  assert.ok(weak.isComplete(order));
});

test("a card moves past the whole tier before it", () => {
  assert.equal(say(weak.better(of("a=b > c"), "c")), "c › a = b");
  assert.equal(say(weak.worse(of("c > a=b"), "c")), "a = b › c");
});

test("a tied card first leaves its tie, to the side it moves to", () => {
  assert.equal(say(weak.better(of("a > b=c"), "c")), "a › c › b");
  assert.equal(say(weak.worse(of("b=c > a"), "b")), "c › b › a");
});

test("the best cannot get better, nor the worst worse", () => {
  assert.equal(say(weak.better(of("a > b"), "a")), "a › b");
  assert.equal(say(weak.worse(of("a > b"), "b")), "a › b");
});

test("= ties with the better neighbour, and parts again", () => {
  const tied = weak.tie(of("a > b > c"), "b");
  assert.equal(say(tied), "a = b › c");
  assert.equal(say(weak.tie(tied, "b")), "a › b › c");
});

test("the best one ties with the next, a lone one with nobody", () => {
  assert.equal(say(weak.tie(of("a > b"), "a")), "a = b");
  assert.equal(say(weak.tie(of("a", ["b"]), "a")), "a");
});

test("a card of the pool ties with the last placed one", () => {
  const order = weak.tie(of("a > b", ["c"]), "c");
  assert.equal(say(order), "a › b = c");
  assert.deepEqual(order.pool, []);
});

test("an arrow on a card of the pool places it", () => {
  assert.equal(say(weak.better(of("a", ["b"]), "b")), "a › b");
  assert.equal(say(weak.worse(of("a", ["b"]), "b")), "a › b");
});

test("taken off its place a card is in the pool, and its tier is gone if it was alone", () => {
  const order = weak.putBack(of("a > b > c"), "b");
  assert.deepEqual(order, { tiers: [["a"], ["c"]], pool: ["b"] });
  assert.equal(weak.isComplete(order), false);
});

test("the order shown may be the answer", () => {
  assert.equal(say(weak.placeRest(of("c", ["a", "b", "d"]))), "c › a › b › d");
});

test("ranks with holes are the same order; a card without one waits", () => {
  assert.deepEqual(weak.fromRanks(IDS, { a: 4, b: 2, c: 4, d: 0 }), {
    tiers: [["b"], ["a", "c"]],
    pool: ["d"],
  });
});

test("no move changes the order it is given", () => {
  const order = Object.freeze({
    tiers: Object.freeze([Object.freeze(["a", "b"]), Object.freeze(["c"])]),
    pool: Object.freeze(["d"]),
  });
  for (const move of [weak.better, weak.worse, weak.tie, weak.putBack, weak.place]) {
    for (const id of IDS) move(order, id);
  }
  weak.placeRest(order);
});

test("arrows and = alone reach all 75 weak orders of four", () => {
  const key = (order) => JSON.stringify(IDS.map((id) => weak.toRanks(order)[id]));
  const waiting = [weak.placeRest(empty)];
  const seen = new Set(waiting.map(key));
  while (waiting.length) {
    const order = waiting.pop();
    for (const move of [weak.better, weak.worse, weak.tie]) {
      for (const id of IDS) {
        const next = move(order, id);
        if (!seen.has(key(next))) {
          seen.add(key(next));
          waiting.push(next);
        }
      }
    }
  }
  assert.equal(seen.size, 75);
});

test("undo and redo walk back and forth; a new move forgets what was undone", () => {
  const trail = new weak.History(empty);
  trail.push(weak.place(trail.now, "a"));
  trail.push(weak.place(trail.now, "b"));
  assert.ok(trail.undo());
  assert.equal(say(trail.now), "a");
  assert.ok(trail.redo());
  assert.equal(say(trail.now), "a › b");
  trail.undo();
  trail.push(weak.place(trail.now, "c"));
  assert.equal(trail.redo(), false);
  assert.equal(say(trail.now), "a › c");
});

test("what means the same is no move", () => {
  const trail = new weak.History(of("a=b > c"));
  assert.equal(trail.push(of("b=a > c")), false);
  assert.equal(trail.undo(), false);
});
