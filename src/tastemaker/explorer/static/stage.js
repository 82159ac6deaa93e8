// Where opened pictures lie, one to four: as large as fit, or at 100%, where all show the same part and move together.

import { pictureAt, whyNot } from "./api.js";
import { element } from "./format.js";
import { altText } from "./thumb.js";

const LARGEST = 1.5; // times as large as it is, a picture is shown at most
const STILL = 4; // px that a click may move

export const stage = element("div", { className: "stage" });

let panes = []; // {picture, element, view, box}
let middle = null; // at 100%: which part of the pictures is in the middle, as [x, y] from 0 to 1
let moved = 0;
let onShown = () => {};

const sizeOf = (picture) => [picture.width || 1, picture.height || 1];

function fitOf({ picture, view }) {
  const [width, height] = sizeOf(picture);
  return Math.min(view.clientWidth / width, view.clientHeight / height, LARGEST);
}

const sourceIn = (pane, picture) => pictureAt(picture.row, middle ? Infinity : sizeOf(picture)[1] * Math.min(fitOf({ ...pane, picture }), 1));

// The address of a picture that is going to be shown like those that are.
export const sourceOf = (picture) => sourceIn(panes[0], picture);

// `actions`: onPress(row) for a press on a pane, onLeave() for one beside a single picture, onShown() once one is there.
export function startStage(actions) {
  onShown = actions.onShown;
  stage.addEventListener("click", (event) => {
    if (moved > STILL) return;
    const pane = panes.find(({ element: place }) => place.contains(event.target));
    if (pane) actions.onPress(pane.picture.row);
    if (pane?.box.contains(event.target)) zoom(event, pane);
    else if (panes.length === 1) actions.onLeave();
  });
  stage.addEventListener("pointerdown", () => (moved = 0));
  stage.addEventListener("pointermove", (event) => event.buttons && pan(event.movementX, event.movementY));
  new ResizeObserver(() => panes.forEach(place)).observe(stage);
}

// To 100% of what is pressed, or of the middle; and back.
export function zoom(event, pane = panes[0]) {
  const box = pane?.box.getBoundingClientRect();
  if (middle || !box) middle = null;
  else middle = event ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : [0.5, 0.5];
  for (const each of panes) show(each);
}

export function clearStage() {
  middle = null;
  panes = [];
  stage.replaceChildren();
}

function pan(x, y) {
  moved += Math.abs(x) + Math.abs(y);
  if (!middle || !panes.length) return;
  const box = panes[0].box.getBoundingClientRect();
  for (const [side, way] of [[0, x / box.width], [1, y / box.height]]) {
    const name = side ? "Height" : "Width";
    const half = Math.min(0.5, ...panes.map((pane) => pane.view[`client${name}`] / 2 / pane.box[`offset${name}`]));
    middle[side] = within(within(middle[side], half) - way, half);
  }
  panes.forEach(place);
}

const within = (part, half) => (half >= 0.5 ? 0.5 : Math.min(Math.max(part, half), 1 - half));

function place(pane) {
  const { picture, view, box } = pane;
  const scale = middle ? 1 / window.devicePixelRatio : fitOf(pane);
  const sizes = sizeOf(picture).map((size) => (middle ? size * scale : Math.max(1, Math.floor(size * scale))));
  Object.assign(box.style, { width: `${sizes[0]}px`, height: `${sizes[1]}px`, translate: "" });
  stage.classList.toggle("whole", middle !== null);
  if (!middle) return;
  const lefts = [view.clientWidth, view.clientHeight].map((room, n) => room / 2 - within(middle[n], room / 2 / sizes[n]) * sizes[n]);
  box.style.translate = lefts.map((left) => `${Math.round(left / scale) * scale}px`).join(" "); // pixels of the screen, not parts of them
}

// Show pictures side by side. Those that are there already stay; `captionOf` gives what stands below each of several.
export function showStage(pictures, captionOf) {
  const before = new Map(panes.map((pane) => [pane.picture.row, pane]));
  panes = pictures.map((picture) => before.get(picture.row) ?? makePane(picture));
  stage.replaceChildren(...panes.map(({ element: pane }) => pane));
  stage.className = `stage of-${pictures.length}${middle ? " whole" : ""}`;
  for (const pane of panes) {
    pane.element.querySelector(".pane-caption")?.remove();
    if (pictures.length > 1) pane.element.append(captionOf(pane.picture));
    show(pane);
  }
}

export function markPane(row) {
  for (const { picture, element: pane } of panes) pane.classList.toggle("active", picture.row === row);
}

function makePane(picture) {
  const small = element("img", { alt: "", className: "small", src: pictureAt(picture.row, 160), draggable: false });
  const box = element("div", { className: "fit" }, small);
  const view = element("div", { className: "view" }, box);
  return { picture, box, view, element: element("div", { className: "pane" }, view) };
}

// What there is at once, and the picture as large as it is needed over it when it is here.
function show(pane) {
  place(pane);
  const { box, view, picture } = pane;
  const source = sourceIn(pane, picture);
  if (box.querySelector(".large:last-child")?.getAttribute("src") === source) return;
  const large = element("img", { alt: altText(picture), className: "large", draggable: false });
  box.append(large);
  large.addEventListener("load", () => {
    large.classList.add("here");
    for (const older of [...box.children].slice(0, [...box.children].indexOf(large))) older.remove(); // it may be of another shape, where EXIF turns the picture
    if (box.isConnected) onShown();
  });
  large.addEventListener("error", async () => {
    const reason = await whyNot(large.src);
    if (large.isConnected) view.replaceChildren(element("p", { className: "no-picture", textContent: reason }));
  });
  large.src = source;
}
