/** Two cards on one scale: they stay where they are, and the choice is drawn on the scale. */
import { choiceOf, orderOf, towards } from "labelhub/gaps";

export class Scale {
  /**
   * @param {HTMLElement} board
   * @param {Map<string, HTMLElement>} cards the two, by answer id
   * @param {{onOrder: (order: object) => void}} calls
   */
  constructor(board, cards, { onOrder }) {
    this.ids = [...cards.keys()];
    this.onOrder = onOrder;
    this.box = document.getElementById("scale");
    this.choices = [...this.box.querySelectorAll("input")];
    this.box.addEventListener("change", (event) => this.choose(this.choices.indexOf(event.target)));
  }

  draw(order, { picked }) {
    const choice = choiceOf(order, this.ids);
    for (const field of this.choices) field.checked = field.value === choice;
    const best = order.tiers.length === 2 ? order.tiers[0][0] : null;
    for (const card of document.querySelectorAll(".pair .answer")) {
      card.classList.toggle("best", card.dataset.id === best);
      card.classList.toggle("on", card.dataset.id === picked);
    }
  }

  /** The chosen sentence, "" before there is one. */
  get sentence() {
    return this.choices.find((field) => field.checked)?.getAttribute("aria-label") ?? "";
  }

  get now() {
    return this.choices.findIndex((field) => field.checked);
  }

  choose(at) {
    const wasHere = this.box.contains(document.activeElement);
    this.onOrder(orderOf(this.choices[at]?.value ?? "", this.ids));
    if (wasHere) this.choices[at]?.focus();
  }

  /** One step to the left (-1) or right (1); the first one leads from the middle. */
  step(direction) {
    const from = this.now < 0 ? (this.choices.length - 1) / 2 : this.now;
    this.choose(Math.min(Math.max(from + direction, 0), this.choices.length - 1));
  }

  towards(id) {
    this.choose(towards(this.ids.indexOf(id), this.now < 0 ? (this.choices.length - 1) / 2 : this.now, this.choices.length));
  }

  tie() {
    this.choose((this.choices.length - 1) / 2);
  }

  clear() {
    this.choose(-1);
  }
}
