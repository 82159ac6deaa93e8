// Ratings: saved at once, undone at once, never asked about.

import { send } from "./api.js";
import { stars } from "./format.js";
import { emit, model, on, setRejected } from "./model.js";

const saved = document.getElementById("saved");
let fading = 0;

const earlier = []; // what pictures were rated before, for undo; the last one at the end
let last = Promise.resolve(); // one is saved after the other, however fast the keys come

export function startRatings() {
  on("trouble", (error) => error.name !== "AbortError" && tell(error.message, true));
  on("rating", ({ place, rejected }) => setRejected(place, rejected).catch((error) => emit("trouble", error)));
}

// Only what changes is sent: what another page says of the rest stays.
export function rate(picture, changes) {
  inTurn("saved", async () => {
    const { row, said_by: saidBy, stars: number, rejected } = picture;
    const before = saidBy === "page" ? { row, stars: number, rejected } : { row, stars: 0, rejected: false };
    const result = await save({ row, ...changes });
    earlier.push(before);
    return result;
  });
}

export function undo() {
  inTurn("undone", () => (earlier.length ? save(earlier.pop()) : null));
}

const save = (change) => send("/api/ratings", { ...change, filter: model.filter });

function inTurn(word, change) {
  last = last.then(async () => {
    try {
      const result = await change();
      if (!result) return tell("nothing to undo");
      emit("rating", result);
      tell(`${word}  ${result.rejected ? "rejected" : stars(result.stars) || "no rating"}`);
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
