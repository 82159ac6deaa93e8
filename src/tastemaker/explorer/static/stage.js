// Where an opened picture lies: as large as fits, or at 100%, where the same part of the next picture is shown.

import { pictureAt, whyNot } from "./api.js";
import { element } from "./format.js";
import { altText } from "./thumb.js";

const LARGEST = 1.5; // times as large as it is, a picture is shown at most
const STILL = 4; // px that a click may move

export const stage = element("div", { className: "stage" });

let shown = null; // {picture, box, onShown}
let middle = null; // at 100%: which part of the picture is in the middle, as [x, y] from 0 to 1
let moved = 0;

const sizeOf = (picture) => [picture.width || 1, picture.height || 1];

function fitOf(picture) {
  const [width, height] = sizeOf(picture);
  return Math.min(stage.clientWidth / width, stage.clientHeight / height, LARGEST);
}

export const sourceOf = (picture) => pictureAt(picture.row, middle ? Infinity : sizeOf(picture)[1] * Math.min(fitOf(picture), 1));

export function startStage(onClose) {
  stage.addEventListener("click", (event) => {
    if (moved > STILL) return;
    if (event.target.closest(".fit")) zoom(event);
    else onClose();
  });
  stage.addEventListener("pointerdown", () => (moved = 0));
  stage.addEventListener("pointermove", (event) => event.buttons && pan(event.movementX, event.movementY));
  new ResizeObserver(place).observe(stage);
}

// To 100% of what is pressed, or of the middle; and back.
export function zoom(event) {
  const box = shown?.box.getBoundingClientRect();
  if (middle || !box) middle = null;
  else middle = event ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : [0.5, 0.5];
  if (shown) showStage(shown.picture, shown.onShown);
}

export function unzoom() {
  middle = null;
  shown = null;
}

function pan(x, y) {
  moved += Math.abs(x) + Math.abs(y);
  if (!middle || !shown) return;
  const box = shown.box.getBoundingClientRect();
  middle = [middle[0] - x / box.width, middle[1] - y / box.height];
  place();
}

function place() {
  if (!shown) return;
  const scale = middle ? 1 / window.devicePixelRatio : fitOf(shown.picture);
  const sizes = sizeOf(shown.picture).map((size) => Math.max(1, Math.floor(size * scale)));
  Object.assign(shown.box.style, { width: `${sizes[0]}px`, height: `${sizes[1]}px`, translate: "" });
  stage.classList.toggle("whole", middle !== null);
  if (!middle) return;
  const rooms = [stage.clientWidth, stage.clientHeight];
  middle = middle.map((part, n) => (sizes[n] <= rooms[n] ? 0.5 : Math.min(Math.max(part, rooms[n] / 2 / sizes[n]), 1 - rooms[n] / 2 / sizes[n])));
  shown.box.style.translate = middle.map((part, n) => `${rooms[n] / 2 - part * sizes[n]}px`).join(" ");
}

// The thumbnail at once, the large picture over it when it is here.
export function showStage(picture, onShown) {
  const small = element("img", { alt: "", className: "small", src: pictureAt(picture.row, 160), draggable: false });
  const large = element("img", { alt: altText(picture), className: "large", draggable: false });
  const box = element("div", { className: "fit" }, small, large);
  shown = { picture, box, onShown };
  stage.replaceChildren(box);
  place();
  large.addEventListener("load", () => {
    large.classList.add("here");
    small.remove(); // it may be of another shape, where EXIF turns the picture
    if (box.isConnected) onShown();
  });
  large.addEventListener("error", async () => {
    const reason = await whyNot(large.src);
    if (box.isConnected) stage.replaceChildren(element("p", { className: "no-picture", textContent: reason }));
  });
  large.src = sourceOf(picture);
}
