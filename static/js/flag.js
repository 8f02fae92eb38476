/**
 * The dialog that shows an answer to the admins. Without script its button sends the whole form, so that the
 * ranking comes back filled in; here only the flag goes, and the page stays as it is.
 */

const $ = (id) => document.getElementById(id);

/**
 * @param {HTMLFormElement} form carries the lease token and the CSRF token
 * @param {{onSent: (sentence: string) => void, failed: string}} calls `failed` is said when the line is down
 * @returns {(id: string | null) => void} opens the dialog for a card
 */
export function flagDialog(form, { onSent, failed }) {
  const box = $("flag");
  if (!box) return () => {};
  const choose = (id) => ($("flag-answer").value = id ?? "");
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-flag]");
    if (button) choose(button.dataset.flag);
  });
  box.addEventListener("toggle", (event) => {
    if (event.newState !== "open") return;
    complain("");
    $($("flag-answer").value ? "flag-note" : "flag-answer").focus();
  });
  $("flag-send").addEventListener("click", async (event) => {
    event.preventDefault();
    $("flag-send").disabled = true;
    const { said, error } = await send(form, failed);
    $("flag-send").disabled = false;
    if (error) return complain(error);
    $("flag-note").value = "";
    choose(null);
    box.hidePopover();
    onSent(said);
  });
  return (id) => {
    choose(id);
    box.showPopover();
  };
}

async function send(form, failed) {
  const fields = new FormData();
  for (const name of ["csrfmiddlewaretoken", "token", "flag_answer", "flag_note"]) {
    fields.set(name, form.elements[name].value);
  }
  try {
    const headers = { Accept: "application/json" };
    const response = await fetch($("flag-send").formAction, { method: "POST", body: fields, headers });
    const answer = await response.json();
    return answer.said || answer.error ? answer : { error: failed };
  } catch {
    return { error: failed };
  }
}

function complain(sentence) {
  $("flag-refusal").textContent = sentence;
  $("flag-refusal").hidden = !sentence;
}
