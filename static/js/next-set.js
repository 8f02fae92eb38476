/**
 * The page between two sets. While nothing is there it looks again by itself; after a reload of the board
 * (which the browser cannot tell from leaving it, so the set went back) it takes the set up again.
 */
const LOOK_EVERY_MS = 15_000;
const take = document.getElementById("take");
const waiting = document.getElementById("waiting");

const arrival = performance.getEntriesByType("navigation")[0];
if (take && arrival?.type === "reload" && arrival.redirectCount > 0) take.requestSubmit();

if (waiting) {
  document.getElementById("looking").hidden = false;
  setInterval(look, LOOK_EVERY_MS);
}

async function look() {
  if (document.hidden) return;
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (page.getElementById("work")) location.reload();
  } catch {
    // The line is down; the next look may succeed.
  }
}
