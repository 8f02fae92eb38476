/**
 * Several cards as tiers from best to worst, the pool of those without a place, and the steps between them.
 * Drawn anew from the order after every move; cards are dragged by SortableJS, loaded apart: without it keys
 * and buttons do all of it.
 */
import { sizes } from "labelhub/gaps";
import * as weak from "labelhub/weak-order";
import { fill } from "labelhub/words";

const MOTION_MS = 140;
const MANY = 5; // more cards than this flow in rows, as there is no room for so many columns
const $ = (id) => document.getElementById(id);

export class Tiers {
  /**
   * @param {HTMLElement} board carries the words in data attributes
   * @param {Map<string, HTMLElement>} cards by answer id
   * @param {{onMove: (id: string, how: Function) => void, onRest: Function,
   *   onDropped: (order: object, id: string) => void, onGap: (at: number, size: number) => void}} calls
   */
  constructor(board, cards, calls) {
    this.board = board;
    this.cards = cards;
    this.calls = calls;
    this.words = board.dataset;
    this.sortables = [];
    board.classList.toggle("many", cards.size > MANY);
    for (const [id, card] of cards) this.equip(id, card);
    import("sortablejs").then(
      (module) => {
        this.Sortable = module.default;
        board.classList.add("draggable");
        this.makeSortable();
      },
      () => {},
    );
  }

  /** The tools of a card come from the template. */
  equip(id, card) {
    const tools = $("card-tools").content.cloneNode(true);
    for (const button of tools.querySelectorAll("[data-move]")) {
      const label = fill(button.getAttribute("aria-label"), { card: card.dataset.letter });
      button.setAttribute("aria-label", label);
      button.addEventListener("click", () => this.calls.onMove(id, weak[button.dataset.move]));
    }
    card.querySelector(".answer-head").append(tools);
  }

  /** `focus` is the card to stay with; it is brought into view before it glides, or the glide would hide it. */
  draw(order, { still = false, focus = null, picked = null } = {}) {
    const before = still ? null : this.placesOnPage();
    const { tiers, pool } = order;
    this.board.replaceChildren(...this.parts(order));
    for (const [id, card] of this.cards) {
      const placed = !pool.includes(id);
      card.classList.toggle("placed", placed);
      card.classList.toggle("on", id === picked);
      const tied = placed && tiers[weak.tierOf(order, id)].length > 1;
      card.querySelector('[data-move="better"]').disabled = placed && !tied && tiers[0][0] === id;
      card.querySelector('[data-move="worse"]').disabled = placed && !tied && tiers.at(-1)[0] === id;
      card.querySelector('[data-move="tie"]').disabled = tiers.length < 2 && !tied;
    }
    this.makeSortable();
    if (focus) this.focus(focus);
    if (before) this.glide(before);
  }

  focus(id) {
    const card = this.cards.get(id);
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  focusGap(at, size) {
    this.board.querySelector(`.gap-steps[data-at="${at}"] [data-size="${size}"]`)?.focus();
  }

  parts(order) {
    const all = [this.room(0, order)];
    order.tiers.forEach((tier, i) => all.push(this.tierBox(tier, i, order), this.room(i + 1, order)));
    if (order.pool.length) all.push(this.poolBox(order.pool));
    return all;
  }

  /** The room before, between and after tiers: a card that is dropped there gets a tier of its own. */
  room(at, order) {
    const { tiers, pool } = order;
    const box = document.createElement("div");
    box.className = "gap";
    if (tiers.length === 0) {
      box.classList.add("start");
      const hint = Object.assign(document.createElement("p"), { textContent: this.words.wordStartHint });
      box.append(heading(1, this.words.wordStart), hint);
    } else if (at > 0 && at < tiers.length) {
      box.classList.add("between");
      if ("gaps" in this.words) box.append(this.stepsBox(at - 1, sizes(order)[at - 1]));
    } else if (at === tiers.length && pool.length) {
      box.classList.add("next");
    }
    box.append(this.drop([]));
    return box;
  }

  /** Three sizes to choose from; the chosen one is let go by pressing it again. */
  stepsBox(at, size) {
    const box = $("gap-steps").content.cloneNode(true).firstElementChild;
    box.dataset.at = at;
    box.setAttribute("aria-label", fill(this.words.wordGap, { better: at + 1, worse: at + 2 }));
    for (const button of box.querySelectorAll("button")) {
      const own = Number(button.dataset.size);
      button.setAttribute("aria-pressed", String(own === size));
      if (own === size) box.querySelector("small").textContent = button.title;
      button.addEventListener("click", () => {
        this.calls.onGap(at, own === size ? 0 : own);
        this.focusGap(at, own);
      });
    }
    return box;
  }

  tierBox(tier, i, { tiers, pool }) {
    const box = group("tier");
    const notes = [];
    if (i === 0) notes.push(this.words.wordBest);
    if (i > 0 && i === tiers.length - 1 && pool.length === 0) notes.push(this.words.wordWorst);
    if (tier.length > 1) notes.push(this.words.wordTie);
    box.setAttribute("aria-label", [fill(this.words.wordPlace, { place: i + 1 }), ...notes].join(", "));
    box.append(heading(i + 1, notes.join(" · ")), this.drop(tier));
    return box;
  }

  poolBox(pool) {
    const box = group("pool");
    box.dataset.count = pool.length;
    box.setAttribute("aria-label", this.words.wordPool);
    const head = document.createElement("h2");
    head.textContent = this.words.wordPool;
    const tools = $("pool-tools").content.cloneNode(true);
    tools.querySelector("button").addEventListener("click", () => this.calls.onRest());
    head.append(tools);
    box.append(head, this.drop(pool));
    return box;
  }

  drop(list) {
    const box = document.createElement("div");
    box.className = "drop";
    box.append(...list.map((id) => this.cards.get(id)));
    return box;
  }

  // --- motion

  placesOnPage() {
    return new Map([...this.cards].map(([id, card]) => [id, card.getBoundingClientRect()]));
  }

  /** Let each card glide from where it stood; nothing moves for those who asked for stillness. */
  glide(before) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const [id, card] of this.cards) {
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

  makeSortable() {
    if (!this.Sortable) return;
    this.sortables.forEach((one) => one.destroy());
    this.sortables = [...this.board.querySelectorAll(".drop")].map((list) =>
      this.Sortable.create(list, {
        group: "board",
        draggable: ".answer",
        handle: ".answer-head",
        filter: "button:not(.key)", // a narrow card has little else to take it by than its letter
        preventOnFilter: false,
        forceFallback: true, // the same with mouse, pen and finger
        fallbackOnBody: true,
        fallbackTolerance: 4,
        emptyInsertThreshold: 24,
        animation: MOTION_MS,
        onStart: () => this.board.classList.add("dragging"),
        onEnd: ({ item }) => this.dropped(item),
      }),
    );
  }

  /** Read the order off the page as it was left by the drag. */
  dropped(item) {
    this.board.classList.remove("dragging");
    const lists = [...this.board.querySelectorAll(".gap .drop, .tier .drop")];
    const idsIn = (list) => [...list.querySelectorAll(":scope > .answer")].map((card) => card.dataset.id);
    const order = {
      tiers: lists.map(idsIn).filter((tier) => tier.length),
      pool: [...this.board.querySelectorAll(".pool .drop")].flatMap(idsIn),
    };
    this.calls.onDropped(order, item.dataset.id);
  }
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
