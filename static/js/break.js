/**
 * A reminder to take a break after long work without one. The time is kept in local storage, so that it runs on
 * from set to set and over several tabs; five minutes without a sign of life are a break. It can be waved away,
 * and then comes again only after a while.
 */
const KEY = "labelhub.work";
const MINUTE = 60_000;
const SIGNS = ["pointerdown", "pointermove", "keydown", "scroll", "touchmove"];
const NOTE_EVERY_MS = 5_000;

/** The stretch of work after one more sign of life: {since, last, quiet}, in ms since 1970. */
export function stretch(before, now, pauseMs) {
  const goesOn = before && now - before.last < pauseMs && now >= before.last;
  return goesOn ? { ...before, last: now } : { since: now, last: now, quiet: 0 };
}

/** Whether it is time to say something. */
export function isLong(work, now, afterMs) {
  return now - work.since >= afterMs && now >= work.quiet;
}

function remind(box) {
  const { afterMinutes, pauseMinutes, againMinutes, words } = box.dataset;
  let noted = 0;

  const note = (now = Date.now()) => {
    if (now - noted < NOTE_EVERY_MS) return;
    noted = now;
    const work = stretch(read(), now, pauseMinutes * MINUTE);
    write(work);
    const long = isLong(work, now, afterMinutes * MINUTE);
    box.hidden = !long;
    if (long) box.querySelector("p").textContent = words.replace("{minutes}", Math.floor((now - work.since) / MINUTE));
  };
  box.querySelector("button").addEventListener("click", () => {
    const now = Date.now();
    write({ ...stretch(read(), now, pauseMinutes * MINUTE), quiet: now + againMinutes * MINUTE });
    box.hidden = true;
  });
  for (const sign of SIGNS) addEventListener(sign, () => note(), { passive: true, capture: true });
  note();
}

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY));
  } catch {
    return null;
  }
}

function write(work) {
  try {
    localStorage.setItem(KEY, JSON.stringify(work));
  } catch {
    // No storage (a private window): then nobody is reminded.
  }
}

if (globalThis.document) {
  const box = document.getElementById("break");
  if (box) remind(box);
}
