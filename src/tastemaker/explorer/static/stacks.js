// Stacks: one cell for each group of pictures, its best frame. An opened stack shows all of its pictures as they were taken.

import { fetchPlaces } from "./chunks.js";
import { button, element, images, range } from "./format.js";
import { changeFilter, model, on, placeOf, positionOf, setActive, shownImages } from "./model.js";
import { tell } from "./ratings.js";

const LOOKED_AT_ONCE = 200;

const bar = document.getElementById("stack");
const text = element("p");

let before = { order: "best", active: 0, cut: { text: "20%" } }; // where one was when the stack was opened

const isOpened = () => !["", "best"].includes(model.filter.group);

export function startStacks() {
  bar.append(text, button("Back to the stacks", () => openStack(), { className: "offer" }));
  for (const event of ["view", "order", "show"]) on(event, showBar);
  if (!model.table.groups) return;
  on("open-stack", openStack);
  on("next-stack", openNext);
}

function showBar() {
  bar.hidden = !isOpened() || model.show !== "pictures";
  document.body.classList.toggle("in-stack", isOpened());
  const order = { oldest: ", as they were taken", name: ", by file name" }[model.order] ?? "";
  text.textContent = `A stack of ${images(model.view.images)}${order}`;
}

// The stacks; all pictures of the one that is active; and back.
async function openStack(picture) {
  if (isOpened()) return closeStack();
  if (model.filter.group !== "best") return document.getElementById("group").click(); // which says that it looks for them
  if (!(picture?.stack > 1)) return tell("no stack: the picture is alone");
  before = { order: model.order, active: model.active, cut: model.cut };
  const order = model.table.orders.includes("oldest") ? "oldest" : "name";
  await changeFilter({ group: String(picture.row) }, { order, cut: { text: "100%" } }); // one compares them: nothing is cut off
  const members = await fetchPlaces(range(0, model.view.images));
  const place = members.findIndex(({ row }) => row === picture.row);
  if (place >= 0) setActive(place); // else the stack is closed by now
}

const closeStack = () => changeFilter({ group: "best" }, before);

// The next stack in the order of the stacks, opened.
async function openNext() {
  if (isOpened()) await closeStack();
  if (model.filter.group !== "best") return openStack();
  for (let from = positionOf(model.active) + 1; from < shownImages(); from += LOOKED_AT_ONCE) {
    const places = range(from, Math.min(from + LOOKED_AT_ONCE, shownImages())).map(placeOf);
    const pictures = await fetchPlaces(places);
    const found = pictures.findIndex(({ stack }) => stack > 1);
    if (found < 0) continue;
    setActive(places[found]);
    return openStack(pictures[found]);
  }
  tell("no further stack");
}
