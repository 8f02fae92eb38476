/**
 * Places in an answer that are marked as good or bad, each with an optional word on why.
 *
 * Select text in a card (by mouse, by finger, by caret browsing, or with M on a picked card, then arrows) and a
 * small toolbar offers the marks. They are drawn with the browser's highlights, listed below the text, and kept
 * as JSON in the hidden field spans-<id>: what stands there when the page comes, or a draft brings, is shown.
 * Offsets count code points of the text as it is read, as the server counts them.
 */
import { highlight, rangesOf, toPoints, toUnits, trimmed, unitsOf } from "labelhub/text-place";
import { keyOf } from "labelhub/keys";
import { fill } from "labelhub/words";

const MOST = 50;
const QUOTED = 60;
const board = document.getElementById("board");
const form = document.getElementById("ranking");
const said = document.getElementById("said");
const say = (sentence) => (said.textContent = sentence);
const template = (id) => document.getElementById(id).content.cloneNode(true).firstElementChild;
const short = (quote) => (quote.length > QUOTED ? `${quote.slice(0, QUOTED - 1)}…` : quote).replace(/\s+/g, " ");

/** One card's marks: the field is the truth, list and highlights are drawn from it. */
class Marks {
  constructor(card, field) {
    this.card = card;
    this.field = field;
    this.letter = card.dataset.letter;
    this.root = card.querySelector(".prose[data-answer-text]");
    this.text = this.root.textContent;
    this.list = template("mark-list");
    this.words = this.list.dataset;
    this.list.setAttribute("aria-label", fill(this.list.getAttribute("aria-label"), { card: this.letter }));
    this.root.after(this.list);
    this.draw();
  }

  get spans() {
    try {
      const spans = JSON.parse(this.field.value || "[]");
      return Array.isArray(spans) ? spans : [];
    } catch {
      return [];
    }
  }

  set spans(spans) {
    this.field.value = JSON.stringify(spans);
    this.field.dispatchEvent(new Event("change", { bubbles: true }));
  }

  /** Mark the text between two UTF-16 units; false if there are too many marks. */
  add(from, to, tag) {
    const [start, end] = [toPoints(this.text, from), toPoints(this.text, to)];
    const others = this.spans.filter((span) => span.start !== start || span.end !== end);
    if (others.length >= MOST) return say(fill(this.words.sayMany, { most: MOST })), false;
    const quote = this.text.slice(from, to);
    const note = this.spans.find((span) => span.start === start && span.end === end)?.note ?? "";
    this.spans = [...others, { start, end, quote, tag, note }].sort((a, b) => a.start - b.start || a.end - b.end);
    this.draw();
    drawHighlights();
    say(fill(tag === "good" ? this.words.sayGood : this.words.sayBad, { card: this.letter, quote: short(quote) }));
    return true;
  }

  remove(n) {
    const spans = this.spans;
    const [gone] = spans.splice(n, 1);
    this.spans = spans;
    this.draw();
    drawHighlights();
    (this.list.children[Math.min(n, spans.length - 1)]?.querySelector("button") ?? this.card).focus({ preventScroll: true });
    say(fill(this.words.sayRemoved, { card: this.letter, quote: short(gone.quote) }));
  }

  draw() {
    this.list.replaceChildren(...this.spans.map((span, n) => this.item(span, n)));
    this.list.hidden = this.list.children.length === 0;
  }

  item(span, n) {
    const item = template("mark-item");
    const [tag, quote, note, button] = ["b", "q", "input", "button"].map((one) => item.querySelector(one));
    item.classList.add(span.tag === "good" ? "good" : "bad");
    tag.textContent = tag.dataset[span.tag];
    quote.textContent = short(span.quote);
    quote.lang = this.root.lang;
    note.value = span.note ?? "";
    for (const one of [note, button]) one.setAttribute("aria-label", fill(one.getAttribute("aria-label"), { quote: short(span.quote) }));
    note.addEventListener("input", () => {
      const spans = this.spans;
      spans[n] = { ...spans[n], note: note.value };
      this.spans = spans;
    });
    button.addEventListener("click", () => this.remove(n));
    return item;
  }

  ranges(tag) {
    return this.spans
      .filter((span) => span.tag === tag)
      .flatMap((span) => rangesOf(this.root, [[toUnits(this.text, span.start), toUnits(this.text, span.end)]]));
  }
}

const all = [...board.querySelectorAll(".answer")]
  .map((card) => [card, form.elements[`spans-${card.dataset.id}`]])
  .filter(([, field]) => field)
  .map(([card, field]) => new Marks(card, field));

function drawHighlights() {
  for (const tag of ["good", "bad"]) highlight(`marked-${tag}`, all.flatMap((marks) => marks.ranges(tag)));
}

/** What is selected in a card now: its marks and the place in UTF-16 units; null if nothing is. */
function selected() {
  const selection = getSelection();
  if (!selection.rangeCount || selection.isCollapsed) return null;
  const range = selection.getRangeAt(0);
  const marks = all.find(({ root }) => root.contains(range.startContainer));
  if (!marks || !(marks.root.contains(range.endContainer) || followsDirectly(marks, range))) return null;
  const place = trimmed(marks.text, ...unitsOf(marks.root, range));
  return place && { marks, place };
}

/** Whether a selection that ends outside its text ends before any other: so does a triple click on a last line. */
function followsDirectly(marks, range) {
  const rest = document.createRange();
  rest.setStartAfter(marks.root);
  rest.setEnd(range.endContainer, range.endOffset);
  return rest.toString().trim() === "";
}

/** The small toolbar beside the selection; it lives in the card, so that it is there in the large card, too. */
const bar = {
  box: all.length ? template("mark-tools") : null,
  now: null,

  start() {
    document.addEventListener("selectionchange", () => this.follow());
    addEventListener("resize", () => this.now && this.put());
    for (const button of this.box.querySelectorAll("[data-mark]")) {
      // A press must not take the selection away before it is read.
      button.addEventListener("pointerdown", (event) => event.preventDefault());
      button.addEventListener("click", () => this.mark(button.dataset.mark));
    }
    this.box.addEventListener("keydown", (event) => this.onKey(event));
  },

  follow() {
    if (this.box.contains(document.activeElement)) return;
    const found = selected();
    if (!found) return this.hide();
    this.now = found;
    if (this.box.parentElement !== found.marks.card) found.marks.card.append(this.box);
    this.box.hidden = false;
    this.put();
  },

  /** Above the beginning of the selection, or below its end where there is no room. */
  put() {
    const { marks, place } = this.now;
    const [range] = rangesOf(marks.root, [place]);
    const live = document.createRange();
    live.setStart(range.startContainer, range.startOffset);
    live.setEnd(range.endContainer, range.endOffset);
    const lines = live.getClientRects();
    if (!lines.length) return;
    const card = marks.card.getBoundingClientRect();
    const [first, last] = [lines[0], lines[lines.length - 1]];
    const above = first.top - this.box.offsetHeight - 6;
    const top = above > 4 ? above : last.bottom + 6;
    const furthest = marks.card.clientWidth - this.box.offsetWidth - 4;
    this.box.style.top = `${top - card.top - marks.card.clientTop + marks.card.scrollTop}px`;
    this.box.style.left = `${Math.max(4, Math.min(first.left - card.left, furthest))}px`;
  },

  hide() {
    this.now = null;
    this.box.hidden = true;
  },

  enter() {
    this.box.querySelector("button").focus({ preventScroll: true });
  },

  mark(tag) {
    const { marks, place } = this.now;
    const byKey = this.box.contains(document.activeElement);
    if (tag && !marks.add(...place, tag)) return;
    getSelection().removeAllRanges();
    this.hide();
    caret.end();
    if (!tag) say(marks.words.sayLeft);
    if (byKey) marks.card.focus({ preventScroll: true });
  },

  onKey(event) {
    const buttons = [...this.box.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    if (event.key === "ArrowRight") buttons[(at + 1) % buttons.length].focus();
    else if (event.key === "ArrowLeft") buttons.at(at - 1).focus();
    else if (event.key === "Escape") this.mark("");
    else if (event.key !== "Enter" && event.key !== " ") return;
    else return event.stopPropagation();
    event.preventDefault();
    event.stopPropagation();
  },
};

/** Selecting by keyboard without caret browsing: M begins at the first word, arrows move, with Shift they extend. */
const caret = {
  marks: null,

  begin(marks) {
    this.marks = marks;
    const [range] = rangesOf(marks.root, [trimmed(marks.text, 0, marks.text.length)]);
    getSelection().setBaseAndExtent(range.startContainer, range.startOffset, range.startContainer, range.startOffset);
    this.extend("forward", "word");
    say(fill(marks.words.sayStart, { card: marks.letter, quote: this.quote() }));
  },

  extend(direction, unit) {
    const selection = getSelection();
    const [node, offset] = [selection.focusNode, selection.focusOffset];
    selection.modify("extend", direction, unit);
    if (!this.marks.root.contains(selection.focusNode)) selection.extend(node, offset);
  },

  move(direction, unit) {
    const selection = getSelection();
    if (direction === "forward") selection.collapseToEnd();
    else selection.collapseToStart();
    if (unit === "line" || direction === "backward") this.step(direction, unit);
    this.extend("forward", "word");
    if (!selected()) this.extend("forward", "word"); // from the end of a word over the space behind it
  },

  step(direction, unit) {
    const selection = getSelection();
    const [node, offset] = [selection.focusNode, selection.focusOffset];
    selection.modify("move", direction, unit);
    if (!this.marks.root.contains(selection.focusNode)) selection.collapse(node, offset);
  },

  onKey(event) {
    if (bar.box.contains(document.activeElement) || event.target.closest?.("input, textarea, select")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowRight: ["forward", "word"], ArrowLeft: ["backward", "word"], ArrowDown: ["forward", "line"], ArrowUp: ["backward", "line"] };
    const way = moves[event.key];
    if (way) {
      this[event.shiftKey ? "extend" : "move"](...way);
      say(fill(this.marks.words.saySelected, { quote: this.quote() }));
    } else if (event.key === "Escape") {
      bar.mark("");
    } else if (["enter", "m", "tab"].includes(keyOf(event)) && bar.now) {
      bar.enter();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  },

  quote() {
    bar.follow();
    const found = selected();
    return found ? short(found.marks.text.slice(...found.place)) : "";
  },

  end() {
    this.marks = null;
  },
};

if (all.length) {
  bar.start();
  drawHighlights();
  board.addEventListener("board:drawn", drawHighlights);
  addEventListener("keydown", (event) => caret.marks && caret.onKey(event), { capture: true });
  // Shift and arrows extend a selection: they are the browser's then, the board must not move a card by them.
  addEventListener(
    "keydown",
    (event) => !caret.marks && event.shiftKey && event.key.startsWith("Arrow") && selected() && event.stopPropagation(),
    { capture: true },
  );
  addEventListener("pointerdown", (event) => !bar.box.contains(event.target) && caret.end());
  form.addEventListener("labelhub:restored", () => {
    all.forEach((marks) => marks.draw());
    drawHighlights();
  });
  const toMarks = (picked) => {
    bar.follow(); // the browser tells of a new selection a little later
    if (bar.now) return bar.enter();
    const marks = all.find(({ card }) => card.dataset.id === picked);
    if (marks) caret.begin(marks);
    else say(all[0].words.sayPick);
  };
  board.addEventListener("board:key", (event) => {
    if (event.detail.key !== "m") return;
    event.preventDefault();
    toMarks(event.detail.picked);
  });
  // In a card that is read large the board hears no keys.
  board.addEventListener("keydown", (event) => {
    const card = event.target.closest?.(".answer:popover-open");
    if (!card || keyOf(event) !== "m" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select") || caret.marks) return;
    event.preventDefault();
    toMarks(card.dataset.id);
  });
}
