/** Which key was pressed, on any keyboard, and whether it was meant for a field. */

// As Chinese keyboards write them.
const WIDE = { "＝": "=", "？": "?", "》": ">", "《": "<", "。": ".", "，": "," };

/** The key in small letters; under another script's layout, the Latin letter of the same key. */
export function keyOf(event) {
  const latin = /^[\x20-\x7e]$/.test(event.key) || event.key.length > 1;
  const key = WIDE[event.key] ?? (latin ? event.key : event.code.replace(/^(Key|Digit)/, ""));
  return key.toLowerCase();
}

/** Whether what is typed goes into a field, so that it can be no command. */
export function isTyping(target) {
  return target.matches("input:not([type=checkbox], [type=radio]), select, textarea, [contenteditable]");
}
