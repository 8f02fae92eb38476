/**
 * The reviewer's start from the suggested order: it is put on the board at once, without leaving the page,
 * and can be undone like any move. Without script the link loads the page with the places filled in.
 */
const start = document.getElementById("start-suggested");
const board = document.getElementById("board");

if (start && board) {
  const words = start.dataset.ranks.trim().split(/\s+/);
  const ranks = Object.fromEntries(words.map((pair) => pair.split(":").map(Number)));
  start.addEventListener("click", (event) => {
    event.preventDefault();
    board.dispatchEvent(new CustomEvent("board:place", { detail: ranks }));
    board.scrollIntoView({ block: "nearest" });
  });
}
