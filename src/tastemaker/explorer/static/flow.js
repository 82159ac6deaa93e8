// The flow of culling: how much is rated, how long the rest takes, where one goes after a rating, and a look at what was kept.

import { apply } from "./filter.js";
import { button, count, element } from "./format.js";
import { emit, model, on, placeOf, positionOf, shownImages } from "./model.js";
import { tell } from "./ratings.js";
import { keep, settings } from "./settings.js";

const PAUSE_MS = 60_000; // a longer break is no time that a rating took
const FEWEST = 5; // ratings from which their pace is told
const MOST = 50;
const STARRED = "1,2,3,4,5";

const paces = []; // ms between the last ratings
let lastTime = 0;

export function startFlow() {
  on("rated", () => {
    const now = performance.now();
    if (lastTime && now - lastTime < PAUSE_MS) paces.push(now - lastTime);
    if (paces.length > MOST) paces.shift();
    lastTime = now;
    show();
  });
  for (const event of ["view", "progress", "picked"]) on(event, show);
}

function show() {
  const { rated, images } = model.view;
  const left = images - rated.size;
  const isUnderWay = rated.size > 0 && left > 0;
  const spare = (textContent) => element("span", { className: "spare", textContent });
  for (const place of document.querySelectorAll(".progress")) {
    place.textContent = model.picked.size > 1 ? `${count(model.picked.size)} picked${isUnderWay ? " · " : ""}` : "";
    if (isUnderWay) place.append(`${count(rated.size)} of ${count(images)}`, spare(" rated"), paces.length < FEWEST ? "" : ` · ${timeLeft(left)}`);
    if (images && !left) place.append(spare(`all ${count(images)} rated: see `), button("what has stars", survey, { className: "offer survey" }));
  }
}

function timeLeft(left) {
  const minutes = Math.max(1, Math.round((left * paces.reduce((sum, pace) => sum + pace, 0)) / paces.length / 60_000));
  return `${minutes < 60 ? "" : `${Math.floor(minutes / 60)} h `}${minutes % 60} min left`;
}

// Whether one goes on to the next picture after a rating: with Shift or Caps Lock, or always.
const box = element("input", { type: "checkbox", checked: settings.goesOn });

export const goesOn = (event) => settings.goesOn || event.shiftKey || event.getModifierState("CapsLock");

export function toggleGoesOn(value = !settings.goesOn) {
  box.checked = value;
  keep({ goesOn: value });
  tell(value ? "goes on after each rating" : "stays after a rating");
}

export function goesOnSwitch() {
  box.addEventListener("change", () => toggleGoesOn(box.checked));
  return element("label", { className: "switch" }, box, " ", element("span", { textContent: "go on after a rating" }));
}

// The next picture that nobody has rated, from the one after the active one on, and from the start again.
export function nextUnrated() {
  const { rated } = model.view;
  const images = shownImages();
  const from = positionOf(model.active);
  for (let step = 1; step <= images; step++) {
    const place = placeOf((from + step) % images);
    if (!rated.has(place)) return emit("go", place);
  }
  tell("all are rated");
}

// Only what has stars, to look at it as a whole; and back.
export function survey() {
  for (const open of document.querySelectorAll("dialog[open]")) open.close();
  apply({ rated: model.filter.rated === STARRED ? "" : STARRED });
}
