/**
 * The ranking board: turns the plain form of annotate/board.html into tiers from best to worst (two cards: into
 * one scale between them).
 *
 * State lives in a weak order (weak-order.js) with the sizes of its steps (gaps.js); the page is drawn from it
 * after every move (tiers.js, scale.js), and the fields of the form are written from it, so what is submitted
 * is what is seen. What is said beside the order stands in fields of its own (feedback.js). Undo and redo walk
 * through orders and sizes; text has the browser's own undo. Moves are told in a live region. Words come from
 * data attributes of #board.
 *
 * Events on #board for other modules: board:ready, board:drawn, board:changed, board:restored; board:key for a
 * key that the board does not use, and board:submit before the form goes out: preventDefault() takes it over.
 * Who sends board:place with ranks by answer id sets the whole order at once.
 */
import { keepDraft, openDraft, store, stored } from "labelhub/draft";
import { Feedback } from "labelhub/feedback";
import { flagDialog } from "labelhub/flag";
import * as gaps from "labelhub/gaps";
import { isTyping, keyOf } from "labelhub/keys";
import { ActiveTime, keepLease } from "labelhub/lease";
import { Scale } from "labelhub/scale";
import { Tiers } from "labelhub/tiers";
import * as weak from "labelhub/weak-order";
import { fill, wordList } from "labelhub/words";

const $ = (id) => document.getElementById(id);
const board = $("board");
const form = $("ranking");
const submit = $("submit");
const words = board.dataset;
const cards = new Map([...board.querySelectorAll(".answer")].map((card) => [card.dataset.id, card]));
const ids = [...cards.keys()];
const letter = (id) => cards.get(id).dataset.letter;
const isPair = ids.length === 2;
const letterOfFlag = ids.some((id) => letter(id) === "F");
const sameOrder = (one, other) => weak.same(one, other) && gaps.sameSizes(one, other);
const summaryOf = (order, fields) => JSON.stringify([weak.toRanks(order), gaps.sizes(order), fields]);

document.querySelectorAll(".live-only").forEach((element) => (element.hidden = false));
document.querySelectorAll(".plain-only").forEach((element) => (element.hidden = true));
board.classList.add("live");
cards.forEach(equip);

const feedback = new Feedback(form, cards, {
  onChange: changed,
  onCopied: (id) => say(fill(words.sayCopied, { card: letter(id) })),
  onGraded: (id, grade) => say(fill(grade ? words.sayGraded : words.sayUngraded, { card: letter(id), grade })),
});
const asFilled = summaryOf(orderOnPage(), feedback.snapshot());
const draft = takeDraft();
const trail = new weak.History(draft.order, sameOrder);
const time = new ActiveTime(draft.activeMs);
const view = isPair
  ? new Scale(board, cards, { onOrder: (order) => compare(order) })
  : new Tiers(board, cards, { onMove: move, onRest: placeRest, onDropped: dropped, onGap: widen });
const flag = flagDialog(form, { onSent: (said) => (say(said), tell(said)), failed: words.sayFlagFailed });
let picked = null;
let sending = false;

function start() {
  draw({ still: true });
  listen();
  if ($("lease")) {
    keepLease($("lease"), form, { onActivity: () => time.touch(), onLost: complain, onBack: forgive });
  } else {
    for (const kind of ["pointermove", "keydown", "scroll"]) {
      addEventListener(kind, () => time.touch(), { passive: true, capture: true });
    }
  }
  if (draft.restored) {
    say(words.sayRestored);
    emit("restored");
  }
  if (!$("refusal").hidden) $("refusal").focus();
  emit("ready");
}

/** The letter becomes a button. */
function equip(card, id) {
  card.tabIndex = -1;
  const key = document.createElement("button");
  key.type = "button";
  key.className = "key";
  key.textContent = letter(id);
  key.setAttribute("aria-label", card.getAttribute("aria-label"));
  key.addEventListener("click", () => pick(id));
  card.querySelector(".key").replaceWith(key);
  card.addEventListener("focusin", () => mark(id));
  card.addEventListener("pointerdown", () => mark(id));
}

/** Tell other modules; false if one of them took it over. */
function emit(name, detail = {}) {
  return board.dispatchEvent(new CustomEvent(`board:${name}`, { bubbles: true, cancelable: true, detail }));
}

// --- moves

/** A letter was pressed: a card of the pool takes the next place, a placed one is picked. */
function pick(id) {
  mark(id);
  if (isPair) return view.towards(id);
  if (trail.now.pool.includes(id)) return move(id, weak.place);
  view.focus(id);
  say(whereIs(id));
}

function move(id, how) {
  picked = id;
  const isAlone = () => trail.now.tiers[weak.tierOf(trail.now, id)].length === 1;
  if (how === weak.tie && !trail.now.pool.includes(id) && trail.now.tiers.length < 2 && isAlone()) {
    return say(fill(words.sayAlone, { card: letter(id) }));
  }
  apply({ ...how(trail.now, id), gaps: trail.now.gaps }, id);
  say(whereIs(id) + readiness());
}

function apply(order, focus = null) {
  if (!trail.push(order)) return focus && view.focus(focus);
  forgive();
  draw({ focus });
  changed();
}

function travel(there, done) {
  const moved = trail[there]();
  if (moved) {
    draw();
    changed();
  }
  say(moved ? `${done} ${summary()}` : words.sayNothing);
}

function placeRest() {
  apply({ ...weak.placeRest(trail.now), gaps: trail.now.gaps });
  submit.focus();
  say(readiness());
}

function placeAll(ranks) {
  const given = Object.fromEntries(ids.map((id) => [id, Number(ranks[id])]));
  apply({ ...weak.fromRanks(ids, given), gaps: trail.now.gaps });
  say(summary());
}

function dropped(order, id) {
  picked = id;
  const moved = trail.push({ ...order, gaps: trail.now.gaps });
  draw({ still: true, focus: id });
  if (!moved) return;
  forgive();
  changed();
  say(whereIs(id) + readiness());
}

/** Two cards: the scale says both which is better and by how much. */
function compare(order) {
  apply({ gaps: {}, ...order });
  say(isReady() ? fill(words.sayChosen, { choice: view.sentence }) : words.sayUnchosen);
}

/** The step after tier `at` gets another size. */
function widen(at, size) {
  if (trail.push(gaps.withSize(trail.now, at, size))) {
    draw({ still: true });
    changed();
  }
  const places = { better: at + 1, worse: at + 2 };
  const named = board.querySelector(`.gap-steps [data-size="${size}"]`)?.title;
  say(size ? fill(words.sayGap, { ...places, size: named }) : fill(words.sayNoGap, places));
}

function widenAt(id, by) {
  const at = gaps.stepOf(trail.now, id);
  if (at < 0) return say(fill(words.sayNoNeighbour, { card: letter(id) }));
  widen(at, Math.min(Math.max(gaps.sizes(trail.now)[at] + by, 0), gaps.LARGEST));
  view.focus(id);
}

function mark(id) {
  picked = id;
  for (const [one, card] of cards) card.classList.toggle("on", one === id);
}

// --- what is said

function say(sentence) {
  // A repeated sentence is told again only if the region changes.
  $("said").textContent = $("said").textContent === sentence ? `${sentence}\u00a0` : sentence;
}

/** A word beside the buttons, for the eye. */
function tell(sentence) {
  $("draft-state").textContent = sentence;
}

function complain(sentence) {
  $("refusal").textContent = sentence;
  $("refusal").hidden = false;
}

function forgive() {
  $("refusal").hidden = true;
}

function whereIs(id) {
  const at = weak.tierOf(trail.now, id);
  const card = letter(id);
  if (at < 0) return fill(words.sayPool, { card });
  const others = trail.now.tiers[at].filter((one) => one !== id).map(letter).sort();
  const list = wordList(others, words.wordAnd);
  const values = { card, place: at + 1, places: trail.now.tiers.length, others: list };
  return fill(others.length ? words.sayTied : words.sayPlaced, values);
}

function summary() {
  if (isPair) return view.sentence || words.sayUnchosen;
  return weak.phrase(trail.now, letter) + readiness();
}

function readiness() {
  return isReady() ? ` ${fill(words.sayReady, { order: weak.phrase(trail.now, letter) })}` : "";
}

/** Why the form stays closed, "" when it is open. */
function closed() {
  if (!weak.isComplete(trail.now)) {
    const missing = wordList(trail.now.pool.map(letter), words.wordAnd);
    return isPair ? words.sayChoose : fill(words.sayMissing, { cards: missing });
  }
  const fromRanking = form.dataset.mode === "correct" && form.dataset.filled === "given";
  return fromRanking && summaryOf(trail.now, feedback.snapshot()) === asFilled ? words.sayUnchanged : "";
}

function isReady() {
  return closed() === "";
}

// --- drawing

function draw({ still = false, focus = null } = {}) {
  view.draw(trail.now, { still, focus, picked });
  const ranks = weak.toRanks(trail.now);
  for (const id of ids) form.elements[`rank-${id}`].value = ranks[id] ?? "";
  const steps = gaps.sizes(trail.now);
  for (let place = 1; place < ids.length; place++) {
    const field = form.elements[`gap-${place}`];
    if (field) field.value = steps[place - 1] || "";
  }
  drawDock();
  emit("drawn", { order: trail.now });
}

function drawDock() {
  submit.setAttribute("aria-disabled", String(!isReady()));
  const order = isPair ? view.sentence : weak.phrase(trail.now, letter);
  const rest = trail.now.pool.length ? "…" : "";
  $("submit-words").textContent = fill(words.wordSubmit, { order: [order, rest].filter(Boolean).join(" › ") });
  $("undo").disabled = trail.past.length === 0;
  $("redo").disabled = trail.future.length === 0;
}

// --- keys, buttons, submit

function listen() {
  document.addEventListener("keydown", onKey);
  board.addEventListener("board:place", (event) => placeAll(event.detail));
  form.addEventListener("submit", onSubmit);
  $("undo").addEventListener("click", undo);
  $("redo").addEventListener("click", redo);
  const keysOn = $("keys-on");
  keysOn.checked = stored("labelhub.keys") !== "off";
  keysOn.addEventListener("change", () => store("labelhub.keys", keysOn.checked ? "on" : "off"));
}

const undo = () => travel("undo", words.sayUndone);
const redo = () => travel("redo", words.sayRedone);

const MOVES = {
  arrowleft: weak.better,
  arrowup: weak.better,
  arrowright: weak.worse,
  arrowdown: weak.worse,
  "=": weak.tie,
  backspace: weak.putBack,
  delete: weak.putBack,
};
const STEPS = { ">": 1, ".": 1, "<": -1, ",": -1 };
const ON_SCALE = {
  arrowleft: () => view.step(-1),
  arrowup: () => view.step(-1),
  arrowright: () => view.step(1),
  arrowdown: () => view.step(1),
  "=": () => view.tie(),
  backspace: () => view.clear(),
  delete: () => view.clear(),
};
const ANYWHERE = {
  z: undo,
  y: redo,
  s: () => $("skip")?.showPopover(),
  "?": () => $("keys").showPopover(),
  t: () => feedback.toIdeal(),
  n: () => withPicked((id) => feedback.toggleNotes(id)),
  r: () => withPicked((id) => feedback.toGrade(id)),
};

function onKey(event) {
  if (event.altKey || event.isComposing || document.querySelector(":popover-open")) return;
  const key = keyOf(event);
  const withControl = event.ctrlKey || event.metaKey;
  if (key === "enter" && withControl) return act(event, () => form.requestSubmit(submit));
  if (key === "escape") return act(event, leave);
  if (isTyping(event.target)) return;
  if (withControl) {
    if (key === "z" || key === "y") act(event, () => (key === "y" || event.shiftKey ? redo() : undo()));
    return;
  }
  if (!$("keys-on").checked) return;
  const does = meaning(key, event);
  if (does) return act(event, does);
  if (does === null && !emit("key", { key, picked, event })) event.preventDefault();
}

/** What a key does here; undefined: the browser's own, null: not the board's. */
function meaning(key, event) {
  if (event.target.closest(".likert") && key.startsWith("arrow")) return undefined;
  if (feedback.isGrade(key)) return () => feedback.grade(key);
  if (key === "enter") return event.target.closest("button, a, summary") ? undefined : () => form.requestSubmit(submit);
  if (key === "f" && (event.shiftKey || !letterOfFlag)) return $("flag") ? () => flag(picked) : null;
  if (isPair && /^[1-9]$/.test(key)) return () => view.choose(Number(key) - 1);
  const id = cardFor(key);
  if (id) return () => pick(id);
  if (isPair) return ON_SCALE[key] ?? ANYWHERE[key] ?? null;
  if (key in MOVES) return picked ? () => move(picked, MOVES[key]) : undefined;
  if (key in STEPS && "gaps" in words) return () => withPicked((one) => widenAt(one, STEPS[key]));
  return ANYWHERE[key] ?? null;
}

function withPicked(how) {
  if (picked) how(picked);
  else say(words.sayPick);
}

/** Out of a field to its card, out of a card to nothing. */
function leave() {
  const card = isTyping(document.activeElement) ? document.activeElement.closest(".answer") : null;
  if (card) return card.focus({ preventScroll: true });
  document.activeElement.blur();
  mark(null);
}

function act(event, what) {
  event.preventDefault();
  what();
}

function cardFor(key) {
  if (/^[1-9]$/.test(key)) return ids[Number(key) - 1];
  return ids.find((id) => letter(id).toLowerCase() === key);
}

function onSubmit(event) {
  const refuse = (sentence) => {
    event.preventDefault();
    say(sentence);
    complain(sentence);
  };
  if (sending) return event.preventDefault();
  if (!isReady()) return refuse(closed());
  form.elements.active_ms.value = time.touch();
  form.elements.duration_ms.value = Date.now() - draft.since;
  if (!emit("submit")) return event.preventDefault();
  if (!navigator.onLine) return refuse(words.sayOffline);
  save({ sent: true });
  sending = true;
  // A refusal of the server, or the way back, shows this page anew; a line that fails leaves it as it is.
  setTimeout(() => (sending = false), 5000);
}

// --- the draft

/** What this browser kept for this set; what the server sent back with a refusal goes before it. */
function takeDraft() {
  const kept = openDraft(form.dataset.draft);
  const fromPage = form.dataset.filled === "sent";
  const own = kept.order && [...kept.order.tiers.flat(), ...kept.order.pool].sort().join() === [...ids].sort().join();
  const takes = own && !fromPage;
  if (takes && kept.fields) feedback.restore(kept.fields);
  return {
    order: takes ? kept.order : orderOnPage(),
    restored: takes && (kept.order.tiers.length > 0 || Object.keys(kept.fields ?? {}).length > 0),
    activeMs: kept.activeMs ?? Number(form.elements.active_ms.value),
    since: kept.since ?? Date.now() - Number(form.elements.duration_ms.value),
  };
}

/** The order that the form came with. */
function orderOnPage() {
  const choice = document.querySelector("#scale :checked")?.value;
  if (choice) return gaps.orderOf(choice, ids);
  const ranks = Object.fromEntries(ids.map((id) => [id, Number(form.elements[`rank-${id}`].value)]));
  const order = weak.fromRanks(ids, ranks);
  const given = [...new Set(Object.values(ranks).filter(Boolean))].sort((a, b) => a - b);
  return gaps.withSizes(order, given.map((place) => Number(form.elements[`gap-${place}`]?.value ?? 0)));
}

function changed() {
  drawDock();
  save();
  emit("changed", { order: trail.now });
}

function save({ sent = false } = {}) {
  const fields = feedback.snapshot();
  const kept = { order: trail.now, fields, activeMs: time.touch(), since: draft.since, sent };
  tell(keepDraft(form.dataset.draft, kept) ? words.saySaved : words.sayUnsaved);
}

start();
