// One picture of the grid: a box of its shape that is there at once, then its score and marks, then the picture.

import { thumbnail, whyNot } from "./api.js";
import { digits, model } from "./model.js";
import { element, score, stars } from "./format.js";
import { giveUp } from "./loader.js";

const NARROW = 116; // px that a score and five stars take

export function makeCell(position, place) {
  const frame = element("div", { className: "frame" });
  const figure = element("span", { className: "score" });
  const mark = element("span", { className: "mark" });
  const cell = element("div", { className: "cell", role: "option", id: `cell-${position}` }, frame);
  cell.append(element("div", { className: "label" }, figure, mark));
  cell.setAttribute("aria-setsize", model.view.images);
  cell.setAttribute("aria-posinset", position + 1);
  cell.setAttribute("aria-selected", "false");
  cell.place = place;
  return cell;
}

export function fillCell(cell, picture) {
  cell.picture = picture;
  cell.querySelector(".score").textContent = score(picture.score, digits());
  cell.title = picture.name;
  showMark(cell);
}

export function showMark(cell) {
  const { picture } = cell;
  const mark = cell.querySelector(".mark");
  const isNarrow = Number.parseFloat(cell.style.width) < NARROW && picture.stars > 1;
  mark.textContent = picture.rejected ? "rejected" : isNarrow ? `${picture.stars} ★` : stars(picture.stars);
  if (picture.stars && !picture.rejected) mark.setAttribute("aria-label", `${picture.stars} stars`);
  else mark.removeAttribute("aria-label");
  if (picture.stars && !picture.rejected) mark.setAttribute("role", "img");
  else mark.removeAttribute("role");
  cell.classList.toggle("rejected", picture.rejected);
}

// Returns what is to be loaded for a cell, null where that is there or coming.
export function prepareImage(cell, height) {
  const { picture } = cell;
  const frame = cell.querySelector(".frame");
  if (!picture) return null;
  if (!frame.firstChild) {
    const image = element("img", { alt: altText(picture), decoding: "async", draggable: false });
    image.addEventListener("load", () => image.classList.add("here"));
    image.addEventListener("error", () => showReason(frame, image, picture));
    frame.append(image);
  }
  const image = frame.firstChild;
  return image.src === "" ? { image, source: thumbnail(picture.row, height) } : null;
}

export function dropCell(cell) {
  const image = cell.querySelector("img");
  if (image && !image.complete) giveUp(image);
  cell.remove();
}

export const altText = (picture) => picture.alt || `${picture.name}, score ${score(picture.score, 2)}`;

async function showReason(frame, image, picture) {
  if (!image.isConnected || !image.getAttribute("src")) return;
  const reason = await whyNot(image.src);
  if (!image.isConnected) return;
  frame.replaceChildren(element("p", { className: "no-picture", textContent: reason || "no picture", title: picture.name }));
}
