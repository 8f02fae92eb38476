/**
 * What is wider than its column (code, tables, long formulas) can be walked into and scrolled by keyboard. Only
 * what really is: a stop at every paragraph would be a burden.
 */
const WIDE = ".prose :is(pre, table, p)";

function look() {
  for (const one of document.querySelectorAll(WIDE)) {
    const scrolls = one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== "visible";
    if (scrolls) one.tabIndex = 0;
    else if (one.hasAttribute("data-scrolls")) one.removeAttribute("tabindex");
    one.toggleAttribute("data-scrolls", scrolls);
  }
}

const frames = document.querySelectorAll(".prose");
if (frames.length) {
  let planned = 0;
  const observer = new ResizeObserver(() => {
    cancelAnimationFrame(planned);
    planned = requestAnimationFrame(look);
  });
  frames.forEach((frame) => observer.observe(frame));
  look();
  // Inside such a region its arrows scroll, and move nothing else on the page.
  addEventListener(
    "keydown",
    (event) => {
      const sideways = event.target.matches?.("[data-scrolls]") && ["ArrowLeft", "ArrowRight"].includes(event.key);
      const down = event.target.matches?.(".prose[tabindex]") && ["ArrowUp", "ArrowDown"].includes(event.key);
      if (sideways || down) event.stopPropagation();
    },
    { capture: true },
  );
}
