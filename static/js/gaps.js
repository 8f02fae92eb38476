/**
 * How much better a tier is than the next one: 1 slightly, 2 clearly, 3 much, 0 not said. Pure.
 *
 * A size is kept by the cards on both sides of it, in `order.gaps`. It goes away when a card joins or leaves
 * one of the two tiers, since it was said of others, and is there again when a move is taken back.
 */

export const LARGEST = 3;

const keyOf = (upper, lower) => [upper, lower].map((tier) => [...tier].sort().join()).join("|");

/** The sizes from best to worst, one for each step between neighbouring tiers. */
export function sizes(order) {
  return order.tiers.slice(1).map((tier, i) => order.gaps?.[keyOf(order.tiers[i], tier)] ?? 0);
}

/** The same order with another size after tier `at`, counted from 0. */
export function withSize(order, at, size) {
  const key = keyOf(order.tiers[at], order.tiers[at + 1]);
  return { ...order, gaps: { ...order.gaps, [key]: Math.min(Math.max(size, 0), LARGEST) } };
}

/** An order with all its sizes, as ranks and the fields of a form give them. */
export function withSizes(order, all) {
  const steps = order.tiers.slice(1).map((_, at) => at);
  return steps.reduce((made, at) => withSize(made, at, all[at] ?? 0), order);
}

/** The step that a card's tier is one side of: to the next better tier, from the best to the next; -1: none. */
export function stepOf(order, id) {
  const at = order.tiers.findIndex((tier) => tier.includes(id));
  if (at < 0 || order.tiers.length < 2) return -1;
  return Math.max(at - 1, 0);
}

/** Whether the same is said of the same steps. */
export function sameSizes(one, other) {
  return sizes(one).join() === sizes(other).join();
}

// --- two cards alone: one choice is both the order and the size

/** The order that a choice on the scale means: "0-3" the first card much better, "tie", "" nothing yet. */
export function orderOf(choice, [first, second]) {
  if (!choice) return { tiers: [], pool: [first, second] };
  if (choice === "tie") return { tiers: [[first, second]], pool: [] };
  const [card, size] = choice.split("-").map(Number);
  const order = { tiers: card ? [[second], [first]] : [[first], [second]], pool: [] };
  return withSize(order, 0, size);
}

/** The choice that an order means; the reverse of `orderOf`. */
export function choiceOf(order, [first]) {
  if (order.pool.length) return "";
  if (order.tiers.length === 1) return "tie";
  return `${order.tiers[0].includes(first) ? 0 : 1}-${sizes(order)[0]}`;
}

/** Where a card's letter leads from place `now` on a scale of `count`: just past the tie, then further out. */
export function towards(card, now, count) {
  const middle = (count - 1) / 2;
  const direction = card === 0 ? -1 : 1;
  const from = (now - middle) * direction > 0 ? now : middle;
  return Math.min(Math.max(from + direction, 0), count - 1);
}
