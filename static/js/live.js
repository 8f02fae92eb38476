/*
Keeps the moving parts of a page up to date: fetches the partial that the page itself includes and puts
it in place. The server renders, this file only asks again, less often when nobody looks.

    <div data-live="/address/of/the/partial/" data-live-on>…the partial…</div>

The partial ends with <span data-live-state="on|off" hidden></span>: "off" ends the asking.
While a dialogue is open, text is selected or a field is being filled in, the part stays as it is.
*/

const SECOND = 1000;
export const EVERY = 3 * SECOND;
export const WHEN_IDLE = 12 * SECOND;
export const WHEN_HIDDEN = 60 * SECOND;
export const IDLE_AFTER = 60 * SECOND;

/** How long to wait before asking again; `failures` in a row make it longer, up to a minute. */
export function pause({ hidden, idleFor, failures }) {
  const calm = hidden ? WHEN_HIDDEN : idleFor > IDLE_AFTER ? WHEN_IDLE : EVERY;
  return Math.min(60 * SECOND, calm * 2 ** Math.min(failures, 5));
}

/** Whether the person is in the middle of something that a new rendering would take away. */
export function isBusy(region, document) {
  if (region.querySelector(":popover-open")) return true;
  if (document.activeElement?.matches?.("input, select, textarea") && region.contains(document.activeElement)) return true;
  const selection = document.getSelection?.();
  return Boolean(selection && !selection.isCollapsed && region.contains(selection.anchorNode));
}

/** Put new HTML into the region; what was opened stays open, what was scrolled stays, focus stays. */
export function replace(region, html, document) {
  const open = new Set([...region.querySelectorAll("details[open][id]")].map((one) => one.id));
  const scrolled = [...region.querySelectorAll("[id] .table-frame, .log")].map((one) => [one.scrollTop, one.scrollLeft]);
  const focused = region.contains(document.activeElement) ? pathTo(region, document.activeElement) : null;
  region.innerHTML = html;
  for (const id of open) region.querySelector(`details#${CSS.escape(id)}`)?.setAttribute("open", "");
  [...region.querySelectorAll("[id] .table-frame, .log")].forEach((one, n) => {
    if (scrolled[n]) [one.scrollTop, one.scrollLeft] = scrolled[n];
  });
  if (focused) region.querySelector(focused)?.focus({ preventScroll: true });
}

/** A selector that finds the same element in the next rendering: by address, target or nearest id. */
function pathTo(region, element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  for (const name of ["href", "popovertarget"]) {
    const value = element.getAttribute(name);
    if (value) return `[${name}="${CSS.escape(value)}"]`;
  }
  const details = element.closest("details[id]");
  if (details && region.contains(details)) return `#${CSS.escape(details.id)} > summary`;
  const form = element.closest("form[action]");
  return form ? `form[action="${CSS.escape(form.getAttribute("action"))}"] button` : null;
}

class Region {
  constructor(element) {
    this.element = element;
    this.shown = "";
    this.failures = 0;
    this.timer = 0;
    this.asking = false;
    this.over = false;
  }

  plan(delay) {
    clearTimeout(this.timer);
    if (this.over) return;
    const idleFor = Date.now() - lastMove;
    this.timer = setTimeout(() => this.ask(), delay ?? pause({ hidden: document.hidden, idleFor, failures: this.failures }));
  }

  async ask() {
    if (this.asking || this.over) return;
    this.asking = true;
    try {
      const answer = await fetch(this.element.dataset.live, { headers: { Accept: "text/html" }, redirect: "manual" });
      if (answer.type === "opaqueredirect" || [401, 403, 404].includes(answer.status)) return this.end(true);
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      this.show(await answer.text());
      this.failures = 0;
    } catch {
      this.failures += 1;
    } finally {
      this.asking = false;
      this.plan();
    }
  }

  show(html) {
    const next = essence(html);
    if (next !== this.shown) {
      if (isBusy(this.element, document)) return;
      replace(this.element, html, document);
      this.shown = next;
    }
    if (this.element.querySelector("[data-live-state]")?.dataset.liveState === "off") this.end(false);
  }

  /** Ask no more; `stale` when the page is no longer ours to see, which the person must learn. */
  end(stale) {
    this.over = true;
    clearTimeout(this.timer);
    delete this.element.dataset.liveOn;
    if (stale) this.element.append(Object.assign(document.createElement("p"), {
      className: "notice warning stale", role: "status", textContent: this.element.dataset.liveStale ?? "",
    }));
  }
}

/** The HTML without what differs at each rendering though nothing changed: the forms' tokens. */
function essence(html) {
  return html.replaceAll(/name="csrfmiddlewaretoken" value="[^"]*"/g, "");
}

let lastMove = Date.now();

function start() {
  const regions = [...document.querySelectorAll("[data-live][data-live-on]")].map((element) => new Region(element));
  if (!regions.length) return;
  for (const kind of ["pointermove", "pointerdown", "keydown", "scroll", "focus"]) {
    addEventListener(kind, () => {
      const wasIdle = Date.now() - lastMove > IDLE_AFTER;
      lastMove = Date.now();
      if (wasIdle) regions.forEach((region) => region.plan(0));
    }, { passive: true, capture: true });
  }
  document.addEventListener("visibilitychange", () => regions.forEach((region) => region.plan(document.hidden ? undefined : 0)));
  regions.forEach((region) => region.plan());
}

if (typeof document !== "undefined") start();
