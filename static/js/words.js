/** Sentences out of the patterns that stand in the page's data attributes. */

/** "{card}: place {place}" with the values in their places. */
export const fill = (pattern, values) => pattern.replace(/\{(\w+)\}/g, (_, name) => values[name]);

/** "A, B and C"; `and` is the word between the last two. */
export function wordList(names, and) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} ${and} ${names.at(-1)}`;
}
