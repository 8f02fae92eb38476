/**
 * Rankings that wait in this browser until they can be sent: kept before the first try, struck off when the server
 * has them. Every try carries the same idempotency key, so that however often one is sent, it is stored once.
 *
 * Every page of somebody who is signed in loads this module: what waits is sent from whichever page is open when
 * the line is back. What the server refuses stays here, with the reason, until its owner throws it away.
 */

const NAME = "labelhub.outbox";
const FIRST_PAUSE_MS = 5_000;
const LONGEST_PAUSE_MS = 120_000;
const PATIENCE_MS = 30_000;

export const WAITS = "waits"; // no line, or the server is not well: tried again
export const STOPPED = "stopped"; // signed out: waits for the person
export const REFUSED = "refused"; // the server said why; not tried again
export const SENT = "sent";

/** The rankings that wait, in local storage; those of other people on this computer are not touched. */
export class Outbox {
  constructor(storage, user) {
    this.storage = storage;
    this.user = String(user);
  }

  all() {
    try {
      const kept = JSON.parse(this.storage.getItem(NAME) ?? "[]");
      return Array.isArray(kept) ? kept : [];
    } catch {
      return [];
    }
  }

  mine() {
    return this.all().filter((entry) => entry.user === this.user);
  }

  find(key) {
    return this.mine().find((entry) => entry.key === key) ?? null;
  }

  /** Keep an entry, in the place of an older one for the same page; false where the browser keeps nothing. */
  put(entry) {
    const others = this.all().filter((one) => one.key !== entry.key && (one.user !== this.user || one.url !== entry.url));
    return this.write([...others, { ...entry, user: this.user }]);
  }

  drop(key) {
    return this.write(this.all().filter((entry) => entry.key !== key || entry.user !== this.user));
  }

  write(entries) {
    try {
      if (entries.length) this.storage.setItem(NAME, JSON.stringify(entries));
      else this.storage.removeItem(NAME);
      return true;
    } catch {
      return false;
    }
  }
}

/** What an answer of the server means for the entry that was sent. */
export function meaning(response, answer) {
  if (response.type === "opaqueredirect" || response.status === 401 || response.status === 403) return STOPPED;
  if (response.ok && answer?.said) return SENT;
  if (response.ok || response.status >= 500 || [408, 425, 429].includes(response.status)) return WAITS;
  return REFUSED;
}

/** How long to wait before the next try. */
export function pauseAfter(tries) {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.max(0, tries - 1));
}

/**
 * Send one entry. The CSRF token is today's, out of the cookie: that of the page may be of an older session.
 * @param {{url: string, fields: [string, string][]}} entry
 * @param {{stay: boolean}} how `stay`: nobody stands at the board, so no next set is to be taken
 */
export async function post(entry, { stay }) {
  const body = new URLSearchParams(entry.fields);
  if (stay) body.set("stay", "1");
  const headers = { Accept: "application/json", "X-CSRFToken": cookie("csrftoken") };
  let response;
  let answer = null;
  try {
    response = await fetch(entry.url, { method: "POST", body, headers, redirect: "manual", signal: AbortSignal.timeout(PATIENCE_MS) });
    answer = await response.json().catch(() => null);
  } catch {
    return { state: WAITS, answer: null };
  }
  return { state: meaning(response, answer), answer };
}

function cookie(name) {
  const found = document.cookie.split("; ").find((pair) => pair.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
}

/** The outbox of the page's own person, and the notice that shows it. */
class Post {
  constructor(notice) {
    this.notice = notice;
    this.words = notice.dataset;
    this.outbox = new Outbox(globalThis.localStorage, this.words.user);
    this.timer = 0;
    this.tries = 0;
    this.board = null; // the key of the ranking that the open board sends by itself
    notice.querySelector("[data-send]").addEventListener("click", () => this.flush(true));
    notice.querySelector("[data-discard]").addEventListener("click", () => this.discard());
    addEventListener("online", () => this.flush());
    addEventListener("storage", (event) => event.key === NAME && this.show());
    document.addEventListener("visibilitychange", () => document.hidden || this.flush());
    this.show();
    this.flush();
  }

  /** Send what waits; two tabs never send at the same time. */
  async flush(asked = false) {
    clearTimeout(this.timer);
    if (!this.due(asked).length) return this.show();
    const send = async () => {
      for (const { key } of this.due(asked)) {
        const entry = this.outbox.find(key); // another tab may have sent it meanwhile
        if (entry && !(await this.try(entry))) break;
      }
    };
    if (navigator.locks) await navigator.locks.request(NAME, { ifAvailable: true }, (lock) => lock && send());
    else await send();
    this.show();
    if (this.due(false).length) this.timer = setTimeout(() => this.flush(), pauseAfter(++this.tries));
    else this.tries = 0;
  }

  due(asked) {
    return this.outbox.mine().filter((entry) => entry.state === WAITS || (entry.state === STOPPED && (asked || entry.page !== page)));
  }

  /** One try; false if there is no point in trying the others now. */
  async try(entry) {
    const here = entry.key === this.board;
    const { state, answer } = await post(entry, { stay: !here });
    this.settle(entry, state, answer);
    if (here && state !== WAITS) dispatchEvent(new CustomEvent("labelhub:posted", { detail: { state, answer } }));
    return state === SENT || state === REFUSED;
  }

  /** Note what became of an entry. */
  settle(entry, state, answer) {
    if (state === SENT) {
      this.outbox.drop(entry.key);
      forgetDraft(entry.draft);
      this.told = fill(this.words.saySent, entry);
    } else {
      this.outbox.put({ ...entry, state, page, error: answer?.error ?? (state === REFUSED ? this.words.sayUnknown : "") });
    }
    this.show();
  }

  discard() {
    const refused = this.outbox.mine().find((entry) => entry.state === REFUSED);
    if (refused && confirm(this.words.sayDiscard)) this.outbox.drop(refused.key);
    this.show();
  }

  show() {
    const mine = this.outbox.mine();
    const of = (state) => mine.filter((entry) => entry.state === state && entry.key !== this.quiet);
    const [refused] = of(REFUSED);
    const stopped = of(STOPPED).length;
    const waiting = of(WAITS).length;
    let sentence = "";
    if (refused) sentence = fill(this.words.sayRefused, refused);
    else if (stopped) sentence = this.words.saySignIn;
    else if (waiting) sentence = this.count(waiting);
    else if (this.told && mine.length === 0) sentence = this.told;
    this.notice.querySelector("[data-words]").textContent = sentence;
    this.notice.hidden = !sentence;
    this.notice.classList.toggle("success", !refused && !stopped && !waiting);
    this.notice.querySelector("[data-send]").hidden = Boolean(refused) || (!waiting && !stopped);
    this.notice.querySelector("[data-open]").hidden = !refused;
    if (refused) this.notice.querySelector("[data-open]").href = refused.url;
    this.notice.querySelector("[data-discard]").hidden = !refused;
    this.notice.querySelector("[data-login]").hidden = Boolean(refused) || !stopped;
  }

  count(n) {
    const form = new Intl.PluralRules(document.documentElement.lang).select(n);
    return fill(form === "one" ? this.words.sayWaitsOne : this.words.sayWaitsOther, { count: n });
  }

  // --- for the board

  /**
   * Keep a ranking and try to send it at once.
   * @returns {Promise<{state: string, answer: object | null, kept: boolean}>}
   */
  async hand(entry) {
    this.board = entry.key;
    this.quiet = entry.key; // while the first try runs there is nothing to tell
    const kept = this.outbox.put({ ...entry, state: WAITS });
    const { state, answer } = await post(entry, { stay: false });
    this.quiet = null;
    if (state === REFUSED) {
      // The board itself shows why, with everything still in it.
      this.outbox.drop(entry.key);
      this.show();
    } else if (kept) {
      this.settle(entry, state, answer);
      if (state === WAITS) this.timer = setTimeout(() => this.flush(), pauseAfter(++this.tries));
    }
    return { state, answer, kept };
  }

  /** What waits for this page already: its key is the one to send again. */
  waitingFor(url) {
    return this.outbox.mine().find((entry) => entry.url === url) ?? null;
  }

  /** From now on this ranking is the open board's: when it is sent, the board goes on. */
  adopt(key) {
    this.board = key;
  }
}

function forgetDraft(name) {
  try {
    if (name) localStorage.removeItem(name);
  } catch {
    // no storage, no drafts
  }
}

const fill = (pattern, values) => pattern.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
/** This page's own name: one that was signed out is tried again by the next page, not by the same one. */
const page = String(Math.random());
const notice = globalThis.document?.getElementById("outbox");
export const mail = notice ? new Post(notice) : null;
