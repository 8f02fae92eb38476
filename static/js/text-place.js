/**
 * Places in the text of an element, as numbers. The server counts in code points (of lib.markdown.plain, which is
 * the element's textContent), JavaScript in UTF-16 units; ranges of the page speak of text nodes.
 */

/** How many code points stand before UTF-16 unit `unit`. */
export function toPoints(text, unit) {
  let points = 0;
  for (let at = 0; at < unit; points++) at += text.codePointAt(at) > 0xffff ? 2 : 1;
  return points;
}

/** The UTF-16 unit at which code point number `point` begins. */
export function toUnits(text, point) {
  let at = 0;
  for (let n = 0; n < point && at < text.length; n++) at += text.codePointAt(at) > 0xffff ? 2 : 1;
  return at;
}

/**
 * Start and end without the white space at both ends, and without half a character; null if nothing is left.
 * @returns {[number, number] | null}
 */
export function trimmed(text, start, end) {
  const isTail = (at) => at > 0 && at < text.length && /[\udc00-\udfff]/.test(text[at]) && /[\ud800-\udbff]/.test(text[at - 1]);
  if (isTail(start)) start--;
  if (isTail(end)) end++;
  while (start < end && /\s/.test(text[start])) start++;
  while (end > start && /\s/.test(text[end - 1])) end--;
  return start < end ? [start, end] : null;
}

/** Where a range of the page begins and ends in the text of `root`, in UTF-16 units; what is outside is cut off. */
export function unitsOf(root, range) {
  const before = (node, offset) => {
    const reach = document.createRange();
    reach.selectNodeContents(root);
    if (reach.comparePoint(node, offset) < 0) return 0;
    if (reach.comparePoint(node, offset) === 0) reach.setEnd(node, offset);
    return reach.toString().length;
  };
  return [before(range.startContainer, range.startOffset), before(range.endContainer, range.endOffset)];
}

/**
 * Ranges of the page for pieces of the text of `root`; the pieces are in order and do not overlap.
 * Static ranges: they outlive that the board takes a card out and puts it in elsewhere.
 * @param {[number, number][]} pieces in UTF-16 units
 */
export function rangesOf(root, pieces) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const ranges = [];
  let node = walker.nextNode();
  let passed = 0;
  /** The text node that holds character `at`; `end` prefers the node that ends there. */
  const seek = (at, end) => {
    while (node && (end ? passed + node.length < at : passed + node.length <= at)) {
      passed += node.length;
      node = walker.nextNode();
    }
    return node && [node, at - passed];
  };
  for (const [start, end] of pieces) {
    const [from, to] = [seek(start, false), seek(end, true)];
    if (!from || !to) break;
    ranges.push(new StaticRange({ startContainer: from[0], startOffset: from[1], endContainer: to[0], endOffset: to[1] }));
  }
  return ranges;
}

/** Whether this browser can mark text without touching the page. */
export const canHighlight = () => typeof Highlight === "function" && Boolean(globalThis.CSS?.highlights);

/** Mark these ranges under a name that the style sheet knows; no ranges, no marks. */
export function highlight(name, ranges) {
  if (!canHighlight()) return;
  if (ranges.length) CSS.highlights.set(name, new Highlight(...ranges));
  else CSS.highlights.delete(name);
}
