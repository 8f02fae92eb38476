/** Drafts in this browser: one for each set, forgotten when it was sent or is a week old. */

const PREFIX = "labelhub.draft.";
const WEEK_MS = 7 * 86_400_000;

/** What was kept under this name, `{}` if nothing was. */
export function openDraft(name) {
  sweep(name);
  return parsed(stored(name));
}

/** Keep a draft; false where the browser keeps nothing. */
export function keepDraft(name, draft) {
  return store(name, JSON.stringify({ ...draft, at: Date.now() }));
}

function sweep(current) {
  try {
    for (const name of Object.keys(localStorage)) {
      if (!name.startsWith(PREFIX) || name === current) continue;
      const { at = 0, sent = false } = parsed(localStorage.getItem(name));
      if (sent || Date.now() - at > WEEK_MS) localStorage.removeItem(name);
    }
  } catch {
    // no storage, no drafts
  }
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

export function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function store(name, value) {
  try {
    localStorage.setItem(name, value);
    return true;
  } catch {
    return false;
  }
}
