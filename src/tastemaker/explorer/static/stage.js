// Where opened pictures lie, one to four: as large as fit, or zoomed in, where all show the same part and move together.

import { pictureAt, whyNot } from "./api.js";
import { element } from "./format.js";
import { altText } from "./thumb.js";

const LARGEST = 1.5; // times as large as it is, a picture is shown at most
const STILL = 4; // px that a click may move
const SWIPE = 48; // px from which on a finger goes to the next picture

export const stage = element("div", { className: "stage" });

let panes = []; // {picture, element, view, box}
let middle = null; // zoomed in: which part of the pictures is in the middle, as [x, y] from 0 to 1
let scale = 1; // of the pictures then
const pointers = new Map(); // number -> [x, y] of each finger or mouse that is down
let moved = 0;
let swiped = 0;
let onShown = () => {};

const sizeOf = (picture) => [picture.width || 1, picture.height || 1];

function fitOf({ picture, view }) {
  const [width, height] = sizeOf(picture);
  return Math.min(view.clientWidth / width, view.clientHeight / height, LARGEST);
}

const sourceIn = (pane, picture) => pictureAt(picture.row, middle ? Infinity : sizeOf(picture)[1] * Math.min(fitOf({ ...pane, picture }), 1));

// The address of a picture that is going to be shown like those that are.
export const sourceOf = (picture) => sourceIn(panes[0], picture);

// `actions`: onPress(row) for a press on a pane, onLeave() for one beside a single picture, onSwipe(steps) for a finger that
// goes to another picture, onShown() once one is there.
export function startStage(actions) {
  onShown = actions.onShown;
  stage.addEventListener("click", (event) => {
    if (moved > STILL) return;
    const pane = panes.find(({ element: place }) => place.contains(event.target));
    if (pane) actions.onPress(pane.picture.row);
    if (pane?.box.contains(event.target)) zoom(event, pane);
    else if (panes.length === 1) actions.onLeave();
  });
  stage.addEventListener("pointerdown", (event) => {
    if (!pointers.size) moved = swiped = 0;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  stage.addEventListener("pointermove", follow);
  for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, (event) => pointers.delete(event.pointerId) && settle(actions.onSwipe));
  new ResizeObserver(() => panes.forEach(place)).observe(stage);
}

// To 100% of what is pressed, or of the middle; and back.
export function zoom(event, pane = panes[0]) {
  const box = pane?.box.getBoundingClientRect();
  if (middle || !box) middle = null;
  else middle = event ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : [0.5, 0.5];
  scale = 1 / window.devicePixelRatio;
  for (const each of panes) show(each);
}

// A finger or the mouse moves: the part that is shown goes with it. Before one zooms in, a finger draws the next picture on.
function follow(event) {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const now = [event.clientX, event.clientY];
  const [x, y] = now.map((at, side) => at - before[side]);
  pointers.set(event.pointerId, now);
  moved += Math.abs(x) + Math.abs(y);
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) pinch(other, before, now);
  else if (middle) pan(x, y);
  else if (event.pointerType === "touch") stage.style.translate = `${(swiped += x)}px`;
}

// Two fingers: what lies between them stays there.
function pinch(fixed, before, now) {
  const pane = panes[0];
  if (!pane) return;
  const fit = fitOf(pane);
  if (!middle) [middle, scale] = [[0.5, 0.5], fit];
  const [from, to] = [before, now].map(([x, y]) => Math.hypot(x - fixed[0], y - fixed[1]));
  const old = scale;
  scale = Math.min(Math.max((scale * to) / Math.max(from, 1), fit), Math.max(fit, 2 / window.devicePixelRatio));
  const room = pane.view.getBoundingClientRect();
  const off = [room.x + room.width / 2, room.y + room.height / 2].map((centre, side) => (now[side] + fixed[side]) / 2 - centre);
  middle = middle.map((part, side) => part + (off[side] / sizeOf(pane.picture)[side]) * (1 / old - 1 / scale));
  pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
}

// A finger is lifted.
function settle(onSwipe) {
  stage.style.translate = "";
  if (pointers.size) return;
  if (!middle && Math.abs(swiped) > SWIPE) onSwipe(-Math.sign(swiped));
  swiped = 0;
  if (middle && panes.length && scale <= fitOf(panes[0])) middle = null;
  for (const each of panes) show(each);
}

export function clearStage() {
  middle = null;
  panes = [];
  pointers.clear();
  stage.replaceChildren();
}

function pan(x, y) {
  if (!panes.length) return;
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
  stage.classList.toggle("whole", middle !== null); // first: it changes the room that there is
  const sizes = sizeOf(picture).map((size) => (middle ? size * scale : Math.max(1, Math.floor(size * fitOf(pane)))));
  Object.assign(box.style, { width: `${sizes[0]}px`, height: `${sizes[1]}px`, translate: "" });
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
