/**
 * The ranking board: turns the plain form of annotate/board.html into tiers from best to worst.
 *
 * State lives in a weak order (weak-order.js); the page is drawn from it after every move, and the lists of
 * places in the form are written from it, so what is submitted is what is seen. Moves come by drag
 * (SortableJS, loaded apart: without it all else works), by keys and by the buttons on the cards, and are
 * told in a live region. Words come from data attributes of #board.
 */
import * as weak from "labelhub/weak-order";
import { ActiveTime, keepLease } from "labelhub/lease";

const MOTION_MS = 140;
const $ = (id) => document.getElementById(id);
const board = $("board");
const form = $("ranking");
const submit = $("submit");
const words = board.dataset;
const cards = new Map([...board.querySelectorAll(".answer")].map((card) => [card.dataset.id, card]));
const ids = [...cards.keys()];
const letter = (id) => cards.get(id).dataset.letter;
const fill = (pattern, values) => pattern.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const wordList = (names) =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} ${words.wordAnd} ${names.at(-1)}`;

const draft = openDraft();
const trail = new weak.History(draft.order);
const time = new ActiveTime(draft.activeMs);
let picked = null;
let Sortable = null;
let sortables = [];
let sending = false;

start();

function start() {
  document.querySelectorAll(".live-only").forEach((element) => (element.hidden = false));
  board.classList.add("live");
  document.querySelector(".plain-help").hidden = true;
  for (const [id, card] of cards) equip(id, card);
  draw({ still: true });
  listen();
  keepLease($("lease"), form, { onActivity: () => time.touch(), onLost: complain, onBack: forgive });
  if (draft.restored) say(words.sayRestored);
  if (!$("refusal").hidden) $("refusal").focus();
  import("sortablejs").then(
    (module) => {
      Sortable = module.default;
      board.classList.add("draggable");
      makeSortable();
    },
    () => {}, // keys and buttons do all that dragging does
  );
}

/** The letter becomes a button; the tools of a card come from the template. */
function equip(id, card) {
  card.tabIndex = -1;
  const key = document.createElement("button");
  key.type = "button";
  key.className = "key";
  key.textContent = letter(id);
  key.setAttribute("aria-label", card.getAttribute("aria-label"));
  key.addEventListener("click", () => pick(id));
  card.querySelector(".key").replaceWith(key);
  const tools = $("card-tools").content.cloneNode(true);
  for (const button of tools.querySelectorAll("[data-move]")) {
    button.setAttribute("aria-label", fill(button.getAttribute("aria-label"), { card: letter(id) }));
    button.addEventListener("click", () => move(id, weak[button.dataset.move]));
  }
  card.querySelector(".answer-head").append(tools);
  card.addEventListener("focusin", () => mark(id));
  card.addEventListener("pointerdown", () => mark(id));
}

// --- moves

/** A letter was pressed: a card of the pool takes the next place, a placed one is picked. */
function pick(id) {
  if (trail.now.pool.includes(id)) return move(id, weak.place);
  mark(id);
  focusOn(id);
  say(whereIs(id));
}

function move(id, how) {
  picked = id;
  if (how === weak.tie && !trail.now.pool.includes(id) && trail.now.tiers.length < 2 && isAlone(id)) {
    return say(fill(words.sayAlone, { card: letter(id) }));
  }
  apply(how(trail.now, id), id);
  say(whereIs(id) + readiness());
}

function isAlone(id) {
  return trail.now.tiers[weak.tierOf(trail.now, id)].length === 1;
}

function apply(order, focus = null) {
  if (!trail.push(order)) return focus && focusOn(focus);
  forgive();
  draw({ focus });
  save();
}

function travel(there, done) {
  const moved = trail[there]();
  if (moved) {
    draw();
    save();
  }
  say((moved ? `${done} ` : words.sayNothing) + (moved ? summary() : ""));
}

function placeRest() {
  apply(weak.placeRest(trail.now));
  submit.focus();
  say(readiness());
}

function mark(id) {
  picked = id;
  for (const [one, card] of cards) card.classList.toggle("on", one === id);
}

function focusOn(id) {
  const card = cards.get(id);
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest", inline: "nearest" });
}

// --- what is said

function say(sentence) {
  // A repeated sentence is told again only if the region changes.
  $("said").textContent = $("said").textContent === sentence ? `${sentence}\u00a0` : sentence;
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
  const values = { card, place: at + 1, places: trail.now.tiers.length, others: wordList(others) };
  return fill(others.length ? words.sayTied : words.sayPlaced, values);
}

function summary() {
  return weak.phrase(trail.now, letter) + readiness();
}

function readiness() {
  return weak.isComplete(trail.now) ? ` ${fill(words.sayReady, { order: weak.phrase(trail.now, letter) })}` : "";
}

function missing() {
  return fill(words.sayMissing, { cards: wordList(trail.now.pool.map(letter)) });
}

// --- drawing

/** `focus` is the card to stay with; it is brought into view before it glides, or the glide would hide it. */
function draw({ still = false, focus = null } = {}) {
  const before = still ? null : places();
  const { tiers, pool } = trail.now;
  board.replaceChildren(...parts(tiers, pool));
  board.dataset.columns = tiers.length + pool.length;
  for (const [id, card] of cards) {
    const placed = !pool.includes(id);
    card.classList.toggle("placed", placed);
    card.classList.toggle("on", id === picked);
    const tied = placed && tiers[weak.tierOf(trail.now, id)].length > 1;
    card.querySelector('[data-move="better"]').disabled = placed && !tied && tiers[0][0] === id;
    card.querySelector('[data-move="worse"]').disabled = placed && !tied && tiers.at(-1)[0] === id;
    card.querySelector('[data-move="tie"]').disabled = tiers.length < 2 && !tied;
  }
  const ranks = weak.toRanks(trail.now);
  for (const id of ids) form.elements[`rank-${id}`].value = ranks[id] ?? "";
  drawDock();
  makeSortable();
  if (focus) focusOn(focus);
  if (before) glide(before);
}

function parts(tiers, pool) {
  const all = [gap(0, tiers, pool)];
  tiers.forEach((tier, i) => all.push(tierBox(tier, i, tiers, pool), gap(i + 1, tiers, pool)));
  if (pool.length) all.push(poolBox(pool));
  return all;
}

/** The room before, between and after tiers: a card that is dropped there gets a tier of its own. */
function gap(at, tiers, pool) {
  const box = document.createElement("div");
  box.className = "gap";
  if (tiers.length === 0) {
    box.classList.add("start");
    box.append(heading(1, words.wordStart), Object.assign(document.createElement("p"), { textContent: words.wordStartHint }));
  } else if (at > 0 && at < tiers.length) {
    box.classList.add("between");
  } else if (at === tiers.length && pool.length) {
    box.classList.add("next");
  }
  const list = document.createElement("div");
  list.className = "drop";
  box.append(list);
  return box;
}

function tierBox(tier, i, tiers, pool) {
  const box = group("tier");
  const notes = [];
  if (i === 0) notes.push(words.wordBest);
  if (i > 0 && i === tiers.length - 1 && pool.length === 0) notes.push(words.wordWorst);
  if (tier.length > 1) notes.push(words.wordTie);
  box.setAttribute("aria-label", [fill(words.wordPlace, { place: i + 1 }), ...notes].join(", "));
  box.append(heading(i + 1, notes.join(" · ")), drop(tier));
  return box;
}

function poolBox(pool) {
  const box = group("pool");
  box.dataset.count = pool.length;
  box.setAttribute("aria-label", words.wordPool);
  const head = document.createElement("h2");
  head.textContent = words.wordPool;
  const tools = $("pool-tools").content.cloneNode(true);
  tools.querySelector("button").addEventListener("click", placeRest);
  head.append(tools);
  box.append(head, drop(pool));
  return box;
}

function group(name) {
  const box = document.createElement("section");
  box.className = name;
  box.setAttribute("role", "group");
  return box;
}

function heading(number, note) {
  const head = document.createElement("h2");
  const figure = document.createElement("b");
  figure.textContent = number;
  head.append(figure, ` ${note}`);
  return head;
}

function drop(list) {
  const box = document.createElement("div");
  box.className = "drop";
  box.append(...list.map((id) => cards.get(id)));
  return box;
}

function drawDock() {
  const complete = weak.isComplete(trail.now);
  submit.setAttribute("aria-disabled", String(!complete));
  const order = weak.phrase(trail.now, letter);
  const rest = trail.now.pool.length ? "…" : "";
  $("submit-words").textContent = fill(words.wordSubmit, { order: [order, rest].filter(Boolean).join(" › ") });
  $("undo").disabled = trail.past.length === 0;
  $("redo").disabled = trail.future.length === 0;
}

function places() {
  return new Map([...cards].map(([id, card]) => [id, card.getBoundingClientRect()]));
}

/** Let each card glide from where it stood; nothing moves for those who asked for stillness. */
function glide(before) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const [id, card] of cards) {
    const [old, now] = [before.get(id), card.getBoundingClientRect()];
    const [x, y] = [old.left - now.left, old.top - now.top];
    if (x || y) {
      card.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], {
        duration: MOTION_MS,
        easing: "ease-out",
      });
    }
  }
}

// --- dragging

function makeSortable() {
  if (!Sortable) return;
  sortables.forEach((one) => one.destroy());
  sortables = [...board.querySelectorAll(".drop")].map((list) =>
    Sortable.create(list, {
      group: "board",
      draggable: ".answer",
      handle: ".answer-head",
      filter: "button",
      preventOnFilter: false,
      forceFallback: true, // the same with mouse, pen and finger
      fallbackOnBody: true,
      fallbackTolerance: 4,
      emptyInsertThreshold: 24,
      animation: MOTION_MS,
      onStart: () => board.classList.add("dragging"),
      onEnd: dropped,
    }),
  );
}

/** Read the order off the page as it was left by the drag. */
function dropped({ item }) {
  board.classList.remove("dragging");
  const lists = [...board.querySelectorAll(".gap .drop, .tier .drop")];
  const idsIn = (list) => [...list.querySelectorAll(":scope > .answer")].map((card) => card.dataset.id);
  const order = {
    tiers: lists.map(idsIn).filter((tier) => tier.length),
    pool: [...board.querySelectorAll(".pool .drop")].flatMap(idsIn),
  };
  picked = item.dataset.id;
  const moved = trail.push(order);
  draw({ still: true, focus: picked });
  if (!moved) return;
  forgive();
  save();
  say(whereIs(picked) + readiness());
}

// --- keys, buttons, submit

function listen() {
  document.addEventListener("keydown", onKey);
  form.addEventListener("submit", onSubmit);
  $("undo").addEventListener("click", () => travel("undo", words.sayUndone));
  $("redo").addEventListener("click", () => travel("redo", words.sayRedone));
  const keysOn = $("keys-on");
  keysOn.checked = stored("labelhub.keys") !== "off";
  keysOn.addEventListener("change", () => store("labelhub.keys", keysOn.checked ? "on" : "off"));
}

const KEYS = {
  arrowleft: (id) => move(id, weak.better),
  arrowup: (id) => move(id, weak.better),
  arrowright: (id) => move(id, weak.worse),
  arrowdown: (id) => move(id, weak.worse),
  "=": (id) => move(id, weak.tie),
  backspace: (id) => move(id, weak.putBack),
  delete: (id) => move(id, weak.putBack),
};

function onKey(event) {
  if (event.altKey || event.isComposing || isTyping(event.target) || document.querySelector(":popover-open")) return;
  const key = keyOf(event);
  if (event.ctrlKey || event.metaKey) {
    if (key === "z" || key === "y") act(event, () => (key === "y" || event.shiftKey ? redo() : undo()));
    return;
  }
  if (key === "escape") return act(event, () => (document.activeElement.blur(), mark(null)));
  if (!$("keys-on").checked) return;
  const id = cardFor(key);
  if (id) return act(event, () => pick(id));
  if (KEYS[key]) return picked && act(event, () => KEYS[key](picked));
  if (key === "z") return act(event, undo);
  if (key === "y") return act(event, redo);
  if (key === "s") return act(event, () => $("skip").showPopover());
  if (key === "?") return act(event, () => $("keys").showPopover());
  if (key === "enter" && !event.target.closest("button, a, summary")) act(event, () => form.requestSubmit(submit));
}

const undo = () => travel("undo", words.sayUndone);
const redo = () => travel("redo", words.sayRedone);

function act(event, what) {
  event.preventDefault();
  what();
}

/** The key in small letters; under another script's layout, the Latin letter of the same key. */
function keyOf(event) {
  const wide = { "＝": "=", "？": "?" };
  const latin = /^[\x20-\x7e]$/.test(event.key) || event.key.length > 1;
  const key = wide[event.key] ?? (latin ? event.key : event.code.replace(/^(Key|Digit)/, ""));
  return key.toLowerCase();
}

function cardFor(key) {
  if (/^[1-9]$/.test(key)) return ids[Number(key) - 1];
  return ids.find((id) => letter(id).toLowerCase() === key);
}

function isTyping(target) {
  return target.matches("input:not([type=checkbox], [type=radio]), select, textarea, [contenteditable]");
}

function onSubmit(event) {
  const refuse = (sentence) => {
    event.preventDefault();
    say(sentence);
    complain(sentence);
  };
  if (sending) return event.preventDefault();
  if (!weak.isComplete(trail.now)) return refuse(missing());
  if (!navigator.onLine) return refuse(words.sayOffline);
  form.elements.active_ms.value = time.touch();
  form.elements.duration_ms.value = Date.now() - draft.since;
  save({ sent: true });
  sending = true;
  // A refusal of the server, or the way back, shows this page anew; a line that fails leaves it as it is.
  setTimeout(() => (sending = false), 5000);
}

// --- the draft

/** What this browser kept for this set; what the server sent back with a refusal goes before it. */
function openDraft() {
  sweep();
  const kept = parsed(stored(form.dataset.draft));
  const ranks = Object.fromEntries(ids.map((id) => [id, Number(form.elements[`rank-${id}`].value)]));
  const refused = Object.values(ranks).some(Boolean);
  const known = kept.order && [...kept.order.tiers.flat(), ...kept.order.pool].sort().join() === [...ids].sort().join();
  return {
    order: refused || !known ? weak.fromRanks(ids, ranks) : kept.order,
    restored: !refused && known && kept.order.tiers.length > 0,
    activeMs: kept.activeMs ?? Number(form.elements.active_ms.value),
    since: kept.since ?? Date.now() - Number(form.elements.duration_ms.value),
  };
}

function save({ sent = false } = {}) {
  const kept = { order: trail.now, activeMs: time.touch(), since: draft.since, at: Date.now(), sent };
  const done = store(form.dataset.draft, JSON.stringify(kept));
  $("draft-state").textContent = done ? words.saySaved : words.sayUnsaved;
}

/** Forget drafts of other sets that were sent, or are older than a week. */
function sweep() {
  try {
    for (const name of Object.keys(localStorage)) {
      if (!name.startsWith("labelhub.draft.") || name === form.dataset.draft) continue;
      const { at = 0, sent = false } = parsed(localStorage.getItem(name));
      if (sent || Date.now() - at > 7 * 86_400_000) localStorage.removeItem(name);
    }
  } catch {
    // no storage, no drafts
  }
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function store(name, value) {
  try {
    localStorage.setItem(name, value);
    return true;
  } catch {
    return false;
  }
}
