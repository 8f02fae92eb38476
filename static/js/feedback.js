/**
 * What is said beside the order: grades, notes, marked places, the ideal answer. All of it stands in the form's
 * own fields; this module opens them by key, counts them, and writes them down for the draft.
 */

const NAMES = /^(likert|attr|critique|spans)-\d+$|^(all_bad|refusal_right|ideal_answer)$/;
const CLEARING = ["0", "backspace", "delete"];
const $ = (id) => document.getElementById(id);

export class Feedback {
  /**
   * @param {HTMLFormElement} form
   * @param {Map<string, HTMLElement>} cards by answer id
   * @param {{onChange: Function, onCopied: (id: string) => void,
   *   onGraded: (id: string, grade: string) => void}} calls
   */
  constructor(form, cards, { onChange, onCopied, onGraded }) {
    this.form = form;
    this.cards = cards;
    this.onCopied = onCopied;
    this.onGraded = onGraded;
    this.grading = null;
    this.graded = this.grades();
    const changed = (event) => NAMES.test(event.target.name) && (this.show(), onChange());
    form.addEventListener("input", changed);
    form.addEventListener("change", changed);
    form.addEventListener("click", (event) => this.clearGrade(event.target));
    $("ideal-copies")?.addEventListener("click", (event) => this.copy(event.target.dataset.copy));
    this.show();
  }

  /** Every field that says something, by name: `{"likert-7": ["5"], "attr-7": ["opinion", "harm"]}`. */
  snapshot() {
    const fields = {};
    for (const field of this.fields()) {
      const says = isChoice(field) ? field.checked : field.value !== "" && field.value !== "[]";
      if (says) (fields[field.name] ??= []).push(field.value);
    }
    return fields;
  }

  restore(fields) {
    for (const field of this.fields()) {
      const values = fields[field.name] ?? [];
      if (isChoice(field)) field.checked = values.includes(field.value);
      else field.value = values[0] ?? (field.name.startsWith("spans-") ? "[]" : "");
    }
    for (const card of this.cards.values()) {
      const notes = card.querySelector(".notes");
      if (notes) notes.open = said(notes) > 0;
    }
    if ($("ideal")) $("ideal").open = $("ideal-answer").value !== "";
    this.graded = this.grades();
    this.show();
    this.form.dispatchEvent(new CustomEvent("labelhub:restored", { bubbles: true }));
  }

  fields() {
    return [...this.form.elements].filter((field) => NAMES.test(field.name));
  }

  /** The counts on closed notes, and whether there is room for a copy. */
  show() {
    for (const card of this.cards.values()) {
      const count = card.querySelector(".notes .count");
      if (!count) continue;
      const given = said(count.closest(".notes"));
      count.hidden = given === 0;
      count.textContent = given;
      count.setAttribute("aria-label", count.dataset.say.replace("{count}", given));
    }
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.disabled = $("ideal-answer").value !== "";
    }
  }

  // --- by key

  /** Open the notes on a card and step into them, or close them again. */
  toggleNotes(id) {
    const notes = this.cards.get(id).querySelector(".notes");
    if (!notes) return;
    notes.open = !notes.open;
    if (notes.open) notes.querySelector("textarea, input").focus();
    else this.cards.get(id).focus({ preventScroll: true });
  }

  /** The next digit grades this card; 0 takes its grade back. */
  toGrade(id) {
    const steps = this.steps(id);
    (steps.find((one) => one.checked) ?? steps[0])?.focus();
    this.grading = steps.length ? id : null;
    steps.forEach((one) => one.addEventListener("blur", () => (this.grading = null), { once: true }));
  }

  isGrade(key) {
    return this.grading !== null && (/^[1-7]$/.test(key) || CLEARING.includes(key));
  }

  grade(key) {
    const id = this.grading;
    const now = this.steps(id).find((one) => one.checked);
    const step = CLEARING.includes(key) ? now : this.steps(id).find((one) => one.value === key);
    if (step && (step !== now || CLEARING.includes(key))) step.click();
    this.cards.get(id).focus({ preventScroll: true });
    this.onGraded(id, step?.checked ? step.value : "");
  }

  steps(id) {
    return [...this.cards.get(id).querySelectorAll(".likert input")];
  }

  toIdeal() {
    if (!$("ideal")) return;
    $("ideal").open = true;
    $("ideal-answer").focus();
  }

  // --- grades can be taken back, which radio buttons alone cannot

  grades() {
    const chosen = this.fields().filter((field) => field.type === "radio" && field.checked);
    return new Map(chosen.map((field) => [field.name, field.value]));
  }

  clearGrade(field) {
    if (field.type !== "radio" || !NAMES.test(field.name)) return;
    if (this.graded.get(field.name) === field.value) {
      field.checked = false;
      this.graded.delete(field.name);
      field.dispatchEvent(new Event("change", { bubbles: true }));
    } else {
      this.graded.set(field.name, field.value);
    }
  }

  // --- the ideal answer

  copy(id) {
    const source = id && this.cards.get(id).querySelector("template.source");
    if (!source || $("ideal-answer").value) return;
    const text = $("ideal-answer");
    text.value = source.content.textContent;
    text.focus();
    text.setSelectionRange(0, 0);
    text.dispatchEvent(new Event("input", { bubbles: true }));
    this.onCopied(id);
  }
}

const isChoice = (field) => field.type === "radio" || field.type === "checkbox";

function said(notes) {
  const fields = [...notes.querySelectorAll("input, textarea")];
  return fields.filter((field) => (isChoice(field) ? field.checked : field.value.trim() !== "")).length;
}
