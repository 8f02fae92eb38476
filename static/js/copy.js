// Buttons that copy a field: <button hidden data-copy="id of the field" data-copied="…" data-not-copied="…">.
// They show themselves only here, since without script a person selects and copies by hand. Where the browser
// gives no clipboard (plain http on another machine), the text is selected and the button says what to press.

for (const button of document.querySelectorAll("[data-copy]")) {
  const field = document.getElementById(button.dataset.copy);
  const words = button.textContent;
  button.hidden = false;
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    field.select();
    button.textContent = (await copied(field.value)) ? button.dataset.copied : button.dataset.notCopied;
    setTimeout(() => {
      button.textContent = words;
    }, 4000);
  });
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
