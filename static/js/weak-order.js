/**
 * A weak order in the making: tiers from best to worst, several cards in one tier are a tie, and a pool of
 * cards that have no place yet. Pure: it knows no page and no words, and every move returns a new order.
 *
 *   {tiers: [["c"], ["a", "d"]], pool: ["b"]}      c › a = d, and b waits
 */

/** An order from ranks by id (a missing or empty rank leaves the card in the pool); `ids` as shown. */
export function fromRanks(ids, ranks) {
  const given = [...new Set(ids.map((id) => ranks[id]).filter(Boolean))].sort((a, b) => a - b);
  return {
    tiers: given.map((rank) => ids.filter((id) => ranks[id] === rank)),
    pool: ids.filter((id) => !ranks[id]),
  };
}

/** Dense ranks by id: 1 = best, equal = tie; cards of the pool have none. */
export function toRanks(order) {
  return Object.fromEntries(order.tiers.flatMap((tier, i) => tier.map((id) => [id, i + 1])));
}

/** Whether every card has its place. */
export function isComplete(order) {
  return order.pool.length === 0;
}

/** The tier in which a card stands, counted from 0; -1 in the pool. */
export function tierOf(order, id) {
  return order.tiers.findIndex((tier) => tier.includes(id));
}

/** Put a card of the pool on the place after the last. */
export function place(order, id) {
  if (!order.pool.includes(id)) return order;
  const { tiers, pool } = without(order, id);
  return { tiers: [...tiers, [id]], pool };
}

/** Put all that is left in the pool on places of their own, in the order shown. */
export function placeRest(order) {
  return { tiers: [...order.tiers, ...order.pool.map((id) => [id])], pool: [] };
}

/** Take a card off its place. */
export function putBack(order, id) {
  if (order.pool.includes(id)) return order;
  const { tiers, pool } = without(order, id);
  return { tiers, pool: [...pool, id] };
}

/** Half a step up parts a tie, a whole step passes the tier above. */
export function better(order, id) {
  return step(order, id, -1);
}

/** The same downward. */
export function worse(order, id) {
  return step(order, id, 1);
}

/** Tie a card with the tier above it (the best one: with the tier below); a tied card is parted again. */
export function tie(order, id) {
  const at = tierOf(order, id);
  if (at < 0) return tieFromPool(order, id);
  if (order.tiers[at].length > 1) return insert(without(order, id), at + 1, id);
  if (order.tiers.length < 2) return order;
  const partner = order.tiers[at === 0 ? 1 : at - 1];
  return join(without(order, id), partner, id);
}

/** The order in symbols, best first: C › A = D › B. */
export function phrase(order, nameOf) {
  return order.tiers.map((tier) => tier.map(nameOf).sort().join(" = ")).join(" › ");
}

/** Whether two orders mean the same. */
export function same(one, other) {
  const flat = ({ tiers, pool }) => JSON.stringify([tiers.map((tier) => [...tier].sort()), pool]);
  return flat(one) === flat(other);
}

/** What was done, and what was undone; `isSame` tells whether two orders mean the same. */
export class History {
  constructor(first, isSame = same) {
    this.past = [];
    this.now = first;
    this.future = [];
    this.isSame = isSame;
  }

  /** Note a new order; one that means the same as the present one is not a move. */
  push(order) {
    if (this.isSame(order, this.now)) return false;
    this.past.push(this.now);
    this.now = order;
    this.future = [];
    return true;
  }

  undo() {
    if (this.past.length === 0) return false;
    this.future.push(this.now);
    this.now = this.past.pop();
    return true;
  }

  redo() {
    if (this.future.length === 0) return false;
    this.past.push(this.now);
    this.now = this.future.pop();
    return true;
  }
}

function step(order, id, direction) {
  const at = tierOf(order, id);
  if (at < 0) return place(order, id);
  const tied = order.tiers[at].length > 1;
  const to = tied ? at + (direction > 0 ? 1 : 0) : at + direction;
  if (to < 0 || to > order.tiers.length || (!tied && to === order.tiers.length)) return order;
  return insert(without(order, id), to, id);
}

function tieFromPool(order, id) {
  const last = order.tiers.at(-1);
  return last ? join(without(order, id), last, id) : place(order, id);
}

function without(order, id) {
  return {
    tiers: order.tiers.map((tier) => tier.filter((one) => one !== id)).filter((tier) => tier.length),
    pool: order.pool.filter((one) => one !== id),
  };
}

function insert({ tiers, pool }, at, id) {
  return { tiers: [...tiers.slice(0, at), [id], ...tiers.slice(at)], pool };
}

function join({ tiers, pool }, partner, id) {
  return { tiers: tiers.map((tier) => (tier.includes(partner[0]) ? [...tier, id] : tier)), pool };
}
