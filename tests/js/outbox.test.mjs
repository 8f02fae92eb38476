/** What waits to be sent: kept once, sent once, and nobody else's. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { meaning, Outbox, pauseAfter, REFUSED, SENT, STOPPED, WAITS } from "../../static/js/outbox.js";

function storage({ full = false } = {}) {
  const kept = new Map();
  return {
    getItem: (name) => kept.get(name) ?? null,
    removeItem: (name) => kept.delete(name),
    setItem: (name, value) => {
      if (full) throw new Error("QuotaExceededError");
      kept.set(name, value);
    },
  };
}

const entry = (key, url = `/sets/${key}/`) => ({ key, url, fields: [["rank-1", "1"]], state: WAITS });

test("what is put in comes out, until it is struck off", () => {
  const outbox = new Outbox(storage(), 7);
  assert.equal(outbox.put(entry("a")), true);
  assert.deepEqual(outbox.find("a").fields, [["rank-1", "1"]]);
  outbox.drop("a");
  assert.deepEqual(outbox.mine(), []);
});

test("the same set waits once: a later order takes the place of an earlier one", () => {
  const outbox = new Outbox(storage(), 7);
  outbox.put(entry("a", "/sets/1/"));
  outbox.put(entry("b", "/sets/1/"));
  outbox.put({ ...entry("b", "/sets/1/"), state: REFUSED });
  assert.deepEqual(outbox.mine().map(({ key, state }) => [key, state]), [["b", REFUSED]]);
});

test("what another person of this computer left is neither shown nor struck off", () => {
  const shared = storage();
  const [ann, ben] = [new Outbox(shared, 1), new Outbox(shared, 2)];
  ann.put(entry("a", "/sets/1/"));
  ben.put(entry("b", "/sets/1/"));
  ben.drop("a");
  assert.deepEqual(ann.mine().map(({ key }) => key), ["a"]);
  assert.deepEqual(ben.mine().map(({ key }) => key), ["b"]);
});

test("a browser that keeps nothing says so", () => {
  assert.equal(new Outbox(storage({ full: true }), 7).put(entry("a")), false);
});

test("a storage that was tampered with is an empty one", () => {
  const broken = storage();
  broken.setItem("labelhub.outbox", "{nonsense");
  assert.deepEqual(new Outbox(broken, 7).mine(), []);
  broken.setItem("labelhub.outbox", '{"a": 1}');
  assert.deepEqual(new Outbox(broken, 7).mine(), []);
});

test("only an answer in words of the server counts as sent", () => {
  assert.equal(meaning({ ok: true, status: 200 }, { said: "Saved." }), SENT);
  assert.equal(meaning({ ok: true, status: 200 }, null), WAITS); // a page of some hotel's network
  assert.equal(meaning({ ok: false, status: 0, type: "opaqueredirect" }, null), STOPPED);
  assert.equal(meaning({ ok: false, status: 403 }, null), STOPPED);
  for (const status of [500, 502, 503, 429, 408]) assert.equal(meaning({ ok: false, status }, null), WAITS);
  for (const status of [400, 404, 409, 422]) assert.equal(meaning({ ok: false, status }, { error: "…" }), REFUSED);
});

test("tries become rarer, up to two minutes", () => {
  assert.deepEqual([1, 2, 3, 20].map(pauseAfter), [5_000, 10_000, 20_000, 120_000]);
});
