/**
 * What two texts do not have in common, word by word (Chinese and Japanese too: the browser knows their words).
 * Pure: it knows no page. The library is `diffArrays` of the package diff; it is handed in.
 */

/** Two texts that have less in common than this many edits apart are compared by their vocabulary. */
const MOST_EDITS = 1_500;

/**
 * The words, signs and gaps of a text with their places.
 * @returns {{word: string, start: number, end: number}[]} white space is one word " ", however it is written
 */
export function wordsOf(text, language) {
  return segments(text, language).map(([piece, start]) => ({
    word: /^\s+$/.test(piece) ? " " : piece,
    start,
    end: start + piece.length,
  }));
}

function segments(text, language) {
  if (globalThis.Intl?.Segmenter) {
    const cutter = new Intl.Segmenter(known(language), { granularity: "word" });
    return Array.from(cutter.segment(text), ({ segment, index }) => [segment, index]);
  }
  // Without it: words of letters and digits, but every Chinese or Japanese character alone.
  const pattern = /[\u3040-\u30ff\u3400-\u9fff]|[\p{L}\p{N}_]+?(?=[\u3040-\u30ff\u3400-\u9fff]|[^\p{L}\p{N}_]|$)|\s+|./gsu;
  return Array.from(text.matchAll(pattern), (match) => [match[0], match.index]);
}

function known(language) {
  try {
    return Intl.getCanonicalLocales(language);
  } catch {
    return undefined;
  }
}

/**
 * What only the one and only the other has.
 * @returns {{one: [number, number][], other: [number, number][], shared: number}} places in UTF-16 units,
 *   and the part of all words that they share, from 0 to 1
 */
export function differences(one, other, diffArrays, language = "en") {
  const [a, b] = [wordsOf(one, language), wordsOf(other, language)];
  const parts = diffArrays(a.map(({ word }) => word), b.map(({ word }) => word), { maxEditLength: MOST_EDITS });
  const [onlyA, onlyB] = parts ? alone(parts, a, b) : [strange(a, b), strange(b, a)];
  const count = (list) => list.filter(({ word }) => /[\p{L}\p{N}]/u.test(word)).length;
  const all = count(a) + count(b);
  return {
    one: pieces(onlyA, one),
    other: pieces(onlyB, other),
    shared: all ? 1 - (count(onlyA) + count(onlyB)) / all : 1,
  };
}

/** The words that stand on one side of the difference only. */
function alone(parts, a, b) {
  const only = [[], []];
  let [i, j] = [0, 0];
  for (const { added, removed, value } of parts) {
    if (removed) only[0].push(...a.slice(i, i + value.length));
    if (added) only[1].push(...b.slice(j, j + value.length));
    if (!added) i += value.length;
    if (!removed) j += value.length;
  }
  return only;
}

/** The words that do not occur in the other text at all. */
function strange(words, others) {
  const known = new Set(others.map(({ word }) => word));
  return words.filter(({ word }) => !known.has(word));
}

/** Neighbours in a line as one piece, a gap between two of them included; no piece is white space alone. */
function pieces(words, text) {
  const found = [];
  for (const { start, end } of words) {
    if (text.slice(start, end).includes("\n")) continue;
    const last = found.at(-1);
    if (last && /^[^\S\n]*$/.test(text.slice(last[1], start))) last[1] = end;
    else found.push([start, end]);
  }
  return found.map(([start, end]) => tight(text, start, end)).filter(Boolean);
}

function tight(text, start, end) {
  while (start < end && /\s/.test(text[start])) start++;
  while (end > start && /\s/.test(text[end - 1])) end--;
  return start < end ? [start, end] : null;
}
