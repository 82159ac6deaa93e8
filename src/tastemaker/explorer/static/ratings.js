// Ratings: saved at once, undone at once, never asked about.

import { Refusal, send } from "./api.js";
import { count, stars } from "./format.js";
import { emit, model, on, setRated } from "./model.js";

const saved = document.getElementById("saved");
let fading = 0;

const earlier = []; // what pictures were rated before, for undo; the last ones at the end
let last = Promise.resolve(); // one is saved after the other, however fast the keys come

export function startRatings() {
  window.addEventListener("unhandledrejection", (event) => {
    const { reason } = event;
    if (reason instanceof Refusal) tell(reason.message, true);
    else if (reason?.name !== "AbortError") return; // given up: another answer is wanted by now
    event.preventDefault();
  });
  on("ratings", setRated);
}

// Rate pictures alike. Only what changes is sent: what another page says of the rest stays.
export function rate(pictures, changes) {
  inTurn("saved", async () => {
    const before = pictures.map(({ row, label, said_by: saidBy, stars: number, rejected }) =>
      saidBy === "page" ? { row, label, stars: number, rejected } : { row, label, stars: 0, rejected: false });
    const results = await save(pictures.map(({ row }) => ({ row, ...changes })));
    earlier.push(before);
    emit("rated");
    return results;
  });
}

export function undo() {
  inTurn("undone", () => (earlier.length ? save(earlier.pop()) : null));
}

const save = (changes) => send("/api/ratings", { changes }, model.filter);

function inTurn(word, change) {
  last = last.then(async () => {
    try {
      const results = await change();
      if (!results) return tell("nothing to undo");
      emit("ratings", results);
      const [{ rejected, stars: number, label }] = results;
      const said = [rejected ? "rejected" : stars(number), label].filter(Boolean).join(" ");
      tell(`${word}  ${results.length > 1 ? `${count(results.length)} pictures  ` : ""}${said || "no rating"}`);
    } catch (error) {
      tell(`not saved: ${error.message}`, true);
    }
  });
}

export function tell(text, isWrong = false) {
  clearTimeout(fading);
  saved.textContent = text;
  saved.classList.toggle("wrong", isWrong);
  saved.classList.add("shown");
  const host = document.querySelector("dialog[open]") ?? document.body; // a modal dialog covers all that is not in it
  if (saved.parentNode !== host) host.append(saved);
  fading = setTimeout(() => saved.classList.remove("shown"), isWrong ? 8000 : 1400);
}
