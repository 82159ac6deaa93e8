// One picture of the grid: a box of its shape that is there at once, then its score and marks, then the picture.

import { pictureAt, whyNot } from "./api.js";
import { element, score, stars } from "./format.js";
import { giveUp } from "./loader.js";
import { digits, shownImages } from "./model.js";
import { altText } from "./thumb.js";

const NARROW = 116; // px that a score and five stars take

export function makeCell(position, place) {
  const frame = element("div", { className: "frame" });
  const label = element("div", { className: "label" }, element("span", { className: "score" }), element("span", { className: "mark" }));
  const cell = element("div", { className: "cell", role: "option", id: `cell-${position}`, title: "not here yet", "aria-setsize": shownImages(), "aria-posinset": position + 1, "aria-selected": "false" }, frame, label, element("div", { className: "file", dir: "auto" }));
  cell.place = place;
  return cell;
}

export function fillCell(cell, picture) {
  cell.picture = picture;
  cell.querySelector(".score").textContent = score(picture.score, digits());
  cell.title = picture.name;
  cell.querySelector(".file").textContent = picture.file;
  const badge = (className, textContent, title) => cell.querySelector(".frame").append(element("span", { className, textContent, title }));
  if (picture.stack > 1) badge("stack", picture.stack, `The best of ${picture.stack}: a press, or G, opens them`);
  if (picture.best) badge("stack best", "best", picture.best);
  showMark(cell);
}

export function showMark(cell) {
  const { rejected, stars: number, label, said_by: saidBy } = cell.picture;
  const isNarrow = Number.parseFloat(cell.style.width) < NARROW && number > 1;
  const text = rejected ? "rejected" : isNarrow ? `${number} ★` : stars(number);
  const isImage = number && !rejected ? { role: "img", "aria-label": `${number} stars` } : {};
  const ofFile = saidBy === "file" ? " of-file" : "";
  cell.querySelector(".mark").replaceWith(element("span", { className: `mark${ofFile}`, textContent: text, ...isImage }));
  cell.classList.toggle("rejected", rejected);
  cell.dataset.colour = label;
}

// Returns what is to be loaded for a cell, null where that is there or coming.
export function prepareImage(cell, height) {
  const { picture } = cell;
  const frame = cell.querySelector(".frame");
  if (!picture) return null;
  if (!frame.querySelector("img")) {
    const image = element("img", { alt: altText(picture), decoding: "async", draggable: false });
    image.addEventListener("load", () => image.classList.add("here"));
    image.addEventListener("error", () => showReason(frame, image, picture));
    frame.prepend(image);
  }
  const image = frame.querySelector("img");
  return image.src === "" ? { image, source: pictureAt(picture.row, height) } : null;
}

export function dropCell(cell) {
  const image = cell.querySelector("img");
  if (image && !image.complete) giveUp(image);
  cell.remove();
}

async function showReason(frame, image, picture) {
  if (!image.isConnected || !image.getAttribute("src")) return;
  const reason = await whyNot(image.src);
  if (image.isConnected) frame.replaceChildren(element("p", { className: "no-picture", textContent: reason, title: picture.name }));
}
