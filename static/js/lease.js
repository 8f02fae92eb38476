/**
 * The lease on a set, and the time spent on it: renewed while somebody is at work, counted down in the bar,
 * given back when the last tab with it is left. Pauses of more than two minutes are no active time.
 *
 * The page's own forms do not give the set back (nor does "labelhub:leaving", sent before the way on), nor does a reload where the browser tells it apart; where
 * it does not, the reloaded page takes the set up again. Nothing is lost if all of this fails: the server
 * keeps late work.
 */

const IDLE_MS = 120_000;
const RENEW_EVERY_MS = 60_000;
const RETURN_AFTER_MS = [0, 2_000]; // what the old page sent as it went may arrive after this one was made
const ACTIVITY = ["pointermove", "pointerdown", "keydown", "scroll", "touchmove"];

/** Adds up the time between signs of life, leaving out what is longer than a pause. */
export class ActiveTime {
  constructor(soFar = 0, now = Date.now()) {
    this.total = soFar;
    this.last = now;
  }

  touch(now = Date.now()) {
    const gap = now - this.last;
    if (gap > 0 && gap <= IDLE_MS) this.total += gap;
    this.last = now;
    return this.total;
  }
}

/**
 * @param {HTMLElement} bar the countdown, with its addresses and words in data attributes
 * @param {HTMLFormElement} form carries the lease token and the CSRF token
 * @param {{onActivity: Function, onLost: (sentence: string) => void, onBack: Function}} calls
 */
export function keepLease(bar, form, { onActivity, onLost, onBack }) {
  let ends = Date.now() + Number(bar.dataset.seconds) * 1000;
  let renewed = Date.now();
  let lost = Number(bar.dataset.seconds) === 0;
  let cutOff = false;

  const show = () => {
    const left = Math.max(0, Math.round((ends - Date.now()) / 1000));
    const clock = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
    bar.textContent = left && !lost ? bar.dataset.sayHeld.replace("{time}", clock) : bar.dataset.sayEnded;
    bar.classList.toggle("ends", lost || left < 120);
  };

  const renew = async () => {
    renewed = Date.now();
    let response;
    try {
      response = await fetch(bar.dataset.renew, { method: "POST", body: proof(form) });
    } catch {
      cutOff = true;
      onLost(bar.dataset.sayLost);
      return;
    }
    const answer = await response.json().catch(() => ({}));
    if (response.ok && answer.seconds_left) {
      if (lost || cutOff) onBack();
      ends = Date.now() + answer.seconds_left * 1000;
      lost = cutOff = false;
    } else if (answer.error && !lost) {
      lost = true;
      onLost(answer.error);
    }
    show();
  };

  const alive = () => {
    onActivity();
    if (Date.now() - renewed > RENEW_EVERY_MS) renew();
  };
  for (const kind of ACTIVITY) addEventListener(kind, alive, { passive: true, capture: true });
  addEventListener("online", renew);
  releaseOnLeave(bar, form);
  const arrival = performance.getEntriesByType("navigation")[0];
  if (arrival?.type !== "navigate") RETURN_AFTER_MS.forEach((wait) => setTimeout(renew, wait));
  // A page that was fetched before it was wanted shows what was left of the lease then.
  else if (arrival.deliveryType === "navigational-prefetch") renew();
  show();
  setInterval(show, 1000);
}

function releaseOnLeave(bar, form) {
  const tabs = new Tabs(`labelhub.tabs.${form.dataset.draft}`);
  let staying = false;
  document.addEventListener("submit", (event) => (staying ||= !event.defaultPrevented));
  globalThis.navigation?.addEventListener("navigate", (event) => {
    staying ||= event.navigationType === "reload";
  });
  addEventListener("labelhub:leaving", () => (staying = true));
  addEventListener("pagehide", () => {
    const last = tabs.leave();
    if (!staying && last) navigator.sendBeacon(bar.dataset.release, proof(form));
  });
  // Out of the back-forward cache: what stands here may be submitted by now.
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}

function proof(form) {
  const fields = new FormData();
  for (const name of ["csrfmiddlewaretoken", "token"]) fields.set(name, form.elements[name].value);
  return fields;
}

/** The tabs of this browser that show the same set, in local storage; forgotten after an hour. */
class Tabs {
  constructor(name) {
    this.name = name;
    this.me = crypto.randomUUID?.() ?? String(Math.random());
    this.write({ ...this.others(), [this.me]: Date.now() });
  }

  others() {
    try {
      const all = Object.entries(JSON.parse(localStorage.getItem(this.name) ?? "{}"));
      return Object.fromEntries(all.filter(([id, t]) => id !== this.me && Date.now() - t < 3_600_000));
    } catch {
      return {};
    }
  }

  /** Strike this tab off; true if it was the last. */
  leave() {
    const others = this.others();
    this.write(others);
    return Object.keys(others).length === 0;
  }

  write(tabs) {
    try {
      if (Object.keys(tabs).length) localStorage.setItem(this.name, JSON.stringify(tabs));
      else localStorage.removeItem(this.name);
    } catch {
      // No storage (a private window): then each tab takes itself for the only one.
    }
  }
}
