// Ratings: saved at once, undone at once, never asked about.

import { Refusal, send } from "./api.js";
import { count, stars } from "./format.js";
import { emit, model, setRated } from "./model.js";

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
}

// Rate pictures alike. Only what changes is sent: what another page says of the rest stays.
export function rate(pictures, changes) {
  inTurn(async () => {
    const before = pictures.map(({ row, label, said_by: saidBy, stars: number, rejected }) =>
      saidBy === "page" ? { row, label, stars: number, rejected } : { row, label, stars: 0, rejected: false });
    await save(pictures.map(({ row }) => ({ row, ...changes })), "saved");
    earlier.push(before);
    emit("rated");
  });
}

export function undo() {
  inTurn(async () => {
    if (!earlier.length) return tell("nothing to undo");
    await save(earlier.at(-1), "undone");
    earlier.pop();
  });
}

async function save(changes, word) {
  const { view } = model; // the answer tells the places in it
  const results = await send("/api/ratings", { changes }, view.filter);
  setRated(results, view);
  emit("ratings", results);
  const [{ rejected, stars: number, label }] = results;
  const said = [rejected ? "rejected" : stars(number), label].filter(Boolean).join(" ");
  tell(`${word}  ${results.length > 1 ? `${count(results.length)} pictures  ` : ""}${said || "no rating"}`);
}

function inTurn(change) {
  last = last.then(change).catch((error) => tell(`not saved: ${error.message}`, true));
}

// Whether something was rated since the page was opened, and once all of it is saved.
export const hasRated = () => earlier.length > 0;
export const allSaved = () => last;

export function tell(text, isWrong = false) {
  clearTimeout(fading);
  saved.textContent = text;
  saved.classList.toggle("wrong", isWrong);
  saved.classList.add("shown");
  const host = document.querySelector("dialog[open]") ?? document.body; // a modal dialog covers all that is not in it
  if (saved.parentNode !== host) host.append(saved);
  fading = setTimeout(() => saved.classList.remove("shown"), isWrong ? 8000 : 1400);
}
