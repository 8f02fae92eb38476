/**
 * The next set is ready at once: while somebody reads this one, the next is lent ahead and its page fetched by a
 * speculation rule. Browsers that know no such rules get the lease alone, which is the slower half of the way.
 * Leaving gives back both: the server does so when the first is given back.
 */

const FIRST_AFTER_MS = 1_500;
const EVERY_MS = 240_000; // a fetched page is kept for five minutes
const form = document.getElementById("ranking");
const address = document.getElementById("sending")?.dataset.ahead;
let rule = null;
let last = 0;
let wanted = true;
let asking = false;

if (address) {
  setTimeout(ask, FIRST_AFTER_MS);
  for (const kind of ["pointermove", "keydown", "scroll"]) addEventListener(kind, again, { passive: true, capture: true });
}

function again() {
  if (wanted && last && Date.now() - last > EVERY_MS) ask();
}

async function ask() {
  if (asking || document.hidden || !navigator.onLine) return;
  asking = true;
  last = Date.now();
  try {
    const body = new URLSearchParams();
    for (const name of ["csrfmiddlewaretoken", "token"]) body.set(name, form.elements[name].value);
    const response = await fetch(address, { method: "POST", body, headers: { Accept: "application/json" }, redirect: "manual" });
    const { next } = response.ok ? await response.json() : {};
    if (next) prepare(next);
    else wanted = response.ok; // nothing is left, or not yet: the next sign of life asks again
  } catch {
    // The line is down: the next set is fetched when it is needed.
  } finally {
    asking = false;
  }
}

function prepare(url) {
  if (!HTMLScriptElement.supports?.("speculationrules")) return;
  rule?.remove();
  rule = document.createElement("script");
  rule.type = "speculationrules";
  rule.nonce = document.querySelector("script[nonce]")?.nonce ?? "";
  rule.textContent = JSON.stringify({ prefetch: [{ source: "list", urls: [url], eagerness: "immediate" }] });
  document.head.append(rule);
}
