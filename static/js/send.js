/**
 * Sends a ranking without leaving the board: it is kept in the outbox first, so that a line that is down loses
 * nothing. Only when the server has it the page goes on to the next set. Skipping goes the same way, but does not
 * wait: a set that cannot be passed on now may be passed on later.
 */
import { mail, post, REFUSED, SENT, STOPPED, WAITS } from "labelhub/outbox";

const $ = (id) => document.getElementById(id);
const board = $("board");
const form = $("ranking");
const words = $("sending").dataset;
const ARRIVAL = "labelhub.arrival";
let busy = false;

if (form.dataset.mode === "rank" && mail) {
  arrive();
  resume();
  board.addEventListener("board:submit", (event) => {
    event.preventDefault();
    send();
  });
  board.addEventListener("board:changed", forgive);
  $("skip")?.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    skip(event.target);
  });
  addEventListener("labelhub:posted", (event) => finish(event.detail));
}

async function send() {
  if (busy) return;
  setBusy(true);
  const fields = [...new FormData(form)].filter(([name, value]) => name !== "csrfmiddlewaretoken" && typeof value === "string");
  const { key } = Object.fromEntries(fields);
  const entry = { key, fields, url: new URL(form.action).pathname, draft: form.dataset.draft, title: words.title, at: Date.now() };
  const result = await mail.hand(entry);
  if (result.state === WAITS && !result.kept) complain(words.sayUnkept);
  finish(result);
}

function finish({ state, answer }) {
  setBusy(false);
  if (state === SENT) return goOn(answer);
  if (state === REFUSED) complain(answer?.error ?? words.sayUnknown);
  if (state === STOPPED || state === WAITS) say(state === STOPPED ? words.saySignIn : words.sayWaits);
}

async function skip(skipping) {
  if (busy) return;
  setBusy(true);
  const fields = [...new FormData(skipping)].filter(([name]) => name !== "csrfmiddlewaretoken");
  const { state, answer } = await post({ url: new URL(skipping.action).pathname, fields }, { stay: false });
  setBusy(false);
  if (state === SENT) return goOn(answer);
  skipping.closest("[popover]").hidePopover();
  const why = { [REFUSED]: answer?.error ?? words.sayUnknown, [STOPPED]: words.saySignIn, [WAITS]: words.sayNotSkipped };
  complain(why[state]);
}

/** To the next page. It may be here already, drawn before this was sent: what is new is told to it. */
function goOn({ said, next, progress }) {
  if (!next) return;
  keep(sessionStorage, ARRIVAL, JSON.stringify({ path: next, said, progress }));
  dispatchEvent(new CustomEvent("labelhub:leaving"));
  location.assign(next);
}

function arrive() {
  let news = {};
  try {
    news = JSON.parse(sessionStorage.getItem(ARRIVAL)) ?? {};
    sessionStorage.removeItem(ARRIVAL);
  } catch {
    return;
  }
  if (news.path !== location.pathname) return;
  $("draft-state").textContent = news.said;
  const bar = $("progress");
  if (!bar || !news.progress) return;
  const label = document.querySelector(`label[for="${bar.id}"]`).firstChild;
  label.data = news.progress.words;
  bar.max = news.progress.wanted;
  bar.value = news.progress.done;
}

/** A ranking of this very set waits from before: it keeps its key, and the page goes on when it is sent. */
function resume() {
  const waiting = mail.waitingFor(new URL(form.action).pathname);
  if (!waiting) return;
  form.elements.key.value = waiting.key;
  if (waiting.state === REFUSED) complain(waiting.error);
  else mail.adopt(waiting.key);
}

function setBusy(on) {
  busy = on;
  $("submit").toggleAttribute("data-busy", on);
  if (on) $("draft-state").textContent = words.saySending;
  else if ($("draft-state").textContent === words.saySending) $("draft-state").textContent = "";
}

function say(sentence) {
  $("said").textContent = sentence;
  $("draft-state").textContent = sentence;
}

function complain(sentence) {
  $("refusal").textContent = sentence;
  $("refusal").hidden = false;
  $("refusal").focus();
}

function forgive() {
  $("refusal").hidden = true;
}

function keep(storage, name, value) {
  try {
    storage.setItem(name, value);
  } catch {
    // then the next page says nothing of this one
  }
}
