/**
 * Reading aids on the ranking board: cards that scroll together, one card large, and what differs between two.
 *
 * None of them changes the text or the order: cards keep their place in the page, and differences are drawn with
 * the browser's highlights. Buttons come from #reading-tools and #card-reading, words from their data attributes.
 */
import { canHighlight, highlight, rangesOf } from "labelhub/text-place";
import { differences } from "labelhub/word-diff";
import { fill } from "labelhub/words";
import { store, stored } from "labelhub/draft";
import { isTyping, keyOf } from "labelhub/keys";

const board = document.getElementById("board");
const said = document.getElementById("said");
const cards = [...board.querySelectorAll(".answer")].sort((a, b) => (a.dataset.letter < b.dataset.letter ? -1 : 1));
const textOf = (card) => card.querySelector(".prose[data-answer-text]");
const letter = (card) => card.dataset.letter;

const tools = document.getElementById("reading-tools").content.cloneNode(true).firstElementChild;
document.getElementById("board-tools").append(tools);
const words = tools.dataset;
const say = (sentence) => (said.textContent = sentence);

/** Cards of limited height that scroll together, each by the same part of its way. */
const level = {
  button: tools.querySelector("[data-level]"),
  on: false,
  part: 0,
  set: new WeakMap(), // where a text was put by us: its scroll event is no wish of the reader's

  start() {
    this.button.addEventListener("click", () => this.turn(!this.on, true));
    board.addEventListener("scroll", (event) => this.on && this.follow(event.target), { capture: true, passive: true });
    board.addEventListener("board:drawn", () => this.on && this.align());
    this.turn(stored("labelhub.level") === "on");
  },

  turn(on, told = false) {
    this.on = on;
    this.button.setAttribute("aria-pressed", String(on));
    board.classList.toggle("level", on);
    for (const card of cards) {
      if (on) textOf(card).tabIndex = 0;
      else textOf(card).removeAttribute("tabindex");
    }
    if (!told) return;
    store("labelhub.level", on ? "on" : "off");
    say(on ? words.sayLevel : words.sayApart);
  },

  follow(text) {
    if (!text.matches?.("[data-answer-text]") || Math.abs((this.set.get(text) ?? -9) - text.scrollTop) < 2) return;
    this.set.delete(text);
    const way = text.scrollHeight - text.clientHeight;
    this.part = way > 0 ? text.scrollTop / way : 0;
    this.align(text);
  },

  align(leader = null) {
    for (const card of cards) {
      const text = textOf(card);
      if (text === leader) continue;
      text.scrollTop = this.part * (text.scrollHeight - text.clientHeight);
      this.set.set(text, text.scrollTop);
    }
  },
};

/** One card large, above the page. It stays the same element: what is marked in it stays marked. */
const large = {
  card: null,
  back: null,

  start() {
    for (const card of cards) {
      const button = document.getElementById("card-reading").content.cloneNode(true).querySelector("button");
      button.setAttribute("aria-label", fill(button.getAttribute("aria-label"), { card: letter(card) }));
      button.addEventListener("click", () => (this.card === card ? this.close() : this.open(card)));
      card.querySelector(".card-tools").prepend(button);
      card.addEventListener("toggle", (event) => event.target === card && event.newState === "closed" && this.closed(card));
      card.addEventListener("keydown", (event) => this.card === card && this.onKey(event));
    }
    // A card that is taken out of the page is closed without a word.
    board.addEventListener("board:drawn", () => this.card && !this.card.matches(":popover-open") && this.closed(this.card));
  },

  open(card) {
    const from = { focus: document.activeElement, x: scrollX, y: scrollY };
    if (this.card) this.closed(this.card);
    this.back ??= from;
    this.card = card;
    card.popover = "auto";
    card.showPopover();
    this.button(card).setAttribute("aria-expanded", "true");
    card.focus();
  },

  close() {
    this.card?.hidePopover();
  },

  closed(card) {
    if (!card.hasAttribute("popover")) return;
    if (card.matches(":popover-open")) card.hidePopover();
    card.removeAttribute("popover");
    this.button(card).setAttribute("aria-expanded", "false");
    if (this.card !== card) return;
    this.card = null;
    const { focus, x, y } = this.back;
    this.back = null;
    (focus?.isConnected && focus !== document.body ? focus : card).focus({ preventScroll: true });
    scrollTo(x, y);
  },

  /** Escape closes by itself; V does, too, and the arrows turn to the next card. */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.target.closest("input, textarea, select, [data-scrolls]")) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) this.open(cards.at((cards.indexOf(this.card) + step) % cards.length));
    else if (keyOf(event) === "v") this.close();
    else return;
    event.preventDefault();
  },

  button: (card) => card.querySelector("[data-large]"),
};

/** What only one of two cards has. */
const compare = {
  button: tools.querySelector("[data-compare]"),
  chooser: tools.querySelector(".chooser"),
  verdict: tools.querySelector(".verdict"),
  chosen: [],
  choosing: false,

  start() {
    this.button.addEventListener("click", () => this.toggle(null));
    for (const card of cards) {
      const one = document.createElement("button");
      one.type = "button";
      one.className = "key";
      one.textContent = letter(card);
      one.setAttribute("aria-label", card.getAttribute("aria-label"));
      one.setAttribute("aria-pressed", "false");
      one.addEventListener("click", () => this.choose(card));
      this.chooser.append(one);
    }
    addEventListener("keydown", (event) => this.choosing && this.onKey(event), { capture: true });
  },

  /** Begin to choose two cards (a picked one is the first of them), or take the marks away. */
  toggle(picked) {
    if (this.choosing || this.chosen.length) return this.end(words.sayNoDifference);
    if (!canHighlight()) return this.show(words.sayTooOld);
    if (cards.length === 2) {
      this.chosen = [...cards];
      return this.mark();
    }
    this.choosing = true;
    this.button.setAttribute("aria-pressed", "true");
    this.chooser.hidden = false;
    if (picked) this.choose(picked);
    else this.show(words.sayChoose);
  },

  choose(card) {
    if (this.chosen.length === 2) this.chosen = [];
    this.chosen = this.chosen.includes(card) ? this.chosen.filter((one) => one !== card) : [...this.chosen, card];
    if (this.chosen.length === 2) return this.mark();
    this.choosing = true;
    highlight("differs", []);
    this.press();
    this.show(this.chosen.length ? fill(words.saySecond, { card: letter(card) }) : words.sayChoose);
  },

  async mark() {
    this.choosing = false;
    this.chosen.sort((a, b) => cards.indexOf(a) - cards.indexOf(b));
    this.press();
    const pair = this.chosen;
    const { diffArrays } = await import("labelhub/diff").catch(() => ({}));
    if (pair !== this.chosen) return;
    if (!diffArrays) return this.end(words.sayUnloaded);
    const [one, other] = pair.map(textOf);
    const found = differences(one.textContent, other.textContent, diffArrays, one.lang);
    highlight("differs", [...rangesOf(one, found.one), ...rangesOf(other, found.other)]);
    const names = { one: letter(pair[0]), other: letter(pair[1]) };
    const share = new Intl.NumberFormat(document.documentElement.lang, { style: "percent" }).format(found.shared);
    const same = found.one.length + found.other.length === 0;
    this.show(fill(same ? words.saySame : words.sayShared, { ...names, share }));
  },

  end(sentence) {
    this.chosen = [];
    this.choosing = false;
    highlight("differs", []);
    this.press();
    this.chooser.hidden = true;
    this.show(sentence);
    if (sentence === words.sayNoDifference) this.verdict.textContent = "";
  },

  press() {
    this.button.setAttribute("aria-pressed", String(this.choosing || this.chosen.length > 0));
    this.chooser.querySelectorAll("button").forEach((one, n) => {
      one.setAttribute("aria-pressed", String(this.chosen.includes(cards[n])));
    });
  },

  show(sentence) {
    this.verdict.textContent = sentence;
    say(sentence);
  },

  /** While two cards are chosen their letters choose, and rank nothing. */
  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector(":popover-open")) return;
    if (event.isComposing || isTyping(event.target)) return;
    const key = keyOf(event);
    const card = /^[1-9]$/.test(key) ? cards[key - 1] : cards.find((one) => letter(one).toLowerCase() === key);
    if (card) this.choose(card);
    else if (key === "escape") this.end(words.sayNoDifference);
    else return;
    event.preventDefault();
    event.stopPropagation();
  },
};

const KEYS = {
  l: () => level.turn(!level.on, true),
  v: (card) => (card ? large.open(card) : say(words.sayPick)),
  w: (card) => compare.toggle(card),
};

board.addEventListener("board:key", (event) => {
  const { key, picked } = event.detail;
  if (!Object.hasOwn(KEYS, key)) return;
  event.preventDefault();
  KEYS[key](cards.find((card) => card.dataset.id === picked) ?? null);
});
level.start();
large.start();
compare.start();
