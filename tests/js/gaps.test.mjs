/** How much better a tier is than the next: kept by the cards on both sides, and one choice for two cards. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as gaps from "../../static/js/gaps.js";
import * as weak from "../../static/js/weak-order.js";

const of = (text, pool = []) => ({ tiers: text.split(" > ").map((tier) => tier.split("=")), pool });
const moved = (order, how, id) => ({ ...how(order, id), gaps: order.gaps });

test("before anything is said every step is 0, and a tie of all has none", () => {
  assert.deepEqual(gaps.sizes(of("a > b > c")), [0, 0]);
  assert.deepEqual(gaps.sizes(of("a=b=c")), []);
});

test("a size belongs to the step it was given to, from 0 to 3", () => {
  const order = gaps.withSize(gaps.withSize(of("a > b > c"), 0, 2), 1, 9);
  assert.deepEqual(gaps.sizes(order), [2, 3]);
  assert.deepEqual(gaps.sizes(gaps.withSize(order, 0, -1)), [0, 3]);
});

test("it stays while both of its tiers stay neighbours", () => {
  const order = gaps.withSize(of("a > b > c > d"), 0, 3);
  assert.deepEqual(gaps.sizes(moved(order, weak.better, "d")), [3, 0, 0]);
});

test("it is gone when another card comes between or joins, and is back when that is undone", () => {
  const order = gaps.withSize(of("a > b > c"), 0, 3);
  const between = moved(order, weak.better, "c");
  assert.deepEqual(gaps.sizes(between), [0, 0], "a > c > b");
  assert.deepEqual(gaps.sizes(moved(between, weak.worse, "c")), [3, 0]);
  const joined = moved(order, weak.tie, "c");
  assert.deepEqual(gaps.sizes(joined), [0], "a > b = c");
});

test("how the cards of a tie stand in it makes no difference", () => {
  const order = gaps.withSize(of("a=b > c"), 0, 2);
  assert.deepEqual(gaps.sizes({ ...of("b=a > c"), gaps: order.gaps }), [2]);
});

test("all sizes at once, as a form gives them", () => {
  assert.deepEqual(gaps.sizes(gaps.withSizes(of("a > b=d > c"), [1, 3])), [1, 3]);
  assert.deepEqual(gaps.sizes(gaps.withSizes(of("a > b > c"), [2])), [2, 0]);
});

test("a card speaks of the step to the better side, the best of the one below", () => {
  const order = of("a > b=c > d", ["e"]);
  assert.deepEqual(["a", "b", "c", "d", "e"].map((id) => gaps.stepOf(order, id)), [0, 0, 0, 1, -1]);
  assert.equal(gaps.stepOf(of("a=b"), "a"), -1);
});

test("the trail of moves knows a changed size from none", () => {
  const isSame = (one, other) => weak.same(one, other) && gaps.sameSizes(one, other);
  const trail = new weak.History(of("a > b"), isSame);
  assert.equal(trail.push(of("a > b")), false);
  assert.equal(trail.push(gaps.withSize(trail.now, 0, 1)), true);
  assert.ok(trail.undo());
  assert.deepEqual(gaps.sizes(trail.now), [0]);
});

test("each choice on the scale is an order, and the order is the choice", () => {
  const choices = ["0-3", "0-2", "0-1", "tie", "1-1", "1-2", "1-3", "0-0", "1-0", ""];
  for (const choice of choices) assert.equal(gaps.choiceOf(gaps.orderOf(choice, ["a", "b"]), ["a", "b"]), choice);
  assert.deepEqual(weak.toRanks(gaps.orderOf("1-2", ["a", "b"])), { a: 2, b: 1 });
  assert.deepEqual(gaps.sizes(gaps.orderOf("1-2", ["a", "b"])), [2]);
  assert.deepEqual(weak.toRanks(gaps.orderOf("tie", ["a", "b"])), { a: 1, b: 1 });
});

test("a letter leads past the tie to its side, then outward, and no further than the end", () => {
  const walk = (card, from, count) => {
    const seen = [from];
    while (seen.length < 6) seen.push(gaps.towards(card, seen.at(-1), count));
    return seen;
  };
  assert.deepEqual(walk(0, 3, 7), [3, 2, 1, 0, 0, 0]);
  assert.deepEqual(walk(1, 3, 7), [3, 4, 5, 6, 6, 6]);
  assert.deepEqual(walk(0, 6, 7), [6, 2, 1, 0, 0, 0], "from the other side straight to the nearest of its own");
  assert.deepEqual(walk(1, 1, 3), [1, 2, 2, 2, 2, 2]);
});
