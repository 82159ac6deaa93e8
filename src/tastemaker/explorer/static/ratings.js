// Ratings: saved at once, undone at once, never asked about.

import { send } from "./api.js";
import { stars } from "./format.js";
import { emit, model } from "./model.js";

const saved = document.getElementById("saved");
let fading = 0;

let last = Promise.resolve(); // one is saved after the other, however fast the keys come

export function rate(picture, changes) {
  inTurn(() => {
    const wanted = { stars: picture.stars, rejected: picture.rejected, ...changes };
    return save("/api/ratings", { row: picture.row, ...wanted }, describe(wanted));
  });
}

export function undo() {
  inTurn(() => save("/api/ratings/undo", {}, null));
}

function inTurn(work) {
  last = last.then(work);
}

async function save(path, body, words) {
  try {
    const result = await send(path, body);
    if (result.row === null) return tell("nothing to undo");
    Object.assign(model.table.ratings, result.ratings);
    emit("rating", result);
    tell(words ? `saved  ${words}` : `undone  ${describe(result)}`);
  } catch (error) {
    tell(error.message, true);
  }
}

const describe = (rating) => (rating.rejected ? "rejected" : stars(rating.stars) || "no rating");

export function tell(text, isWrong = false) {
  clearTimeout(fading);
  saved.textContent = text;
  saved.classList.toggle("wrong", isWrong);
  saved.classList.add("shown");
  const host = document.querySelector("dialog[open]") ?? document.body; // a modal dialog covers all that is not in it
  if (saved.parentNode !== host) host.append(saved);
  fading = setTimeout(() => saved.classList.remove("shown"), isWrong ? 8000 : 1400);
}
