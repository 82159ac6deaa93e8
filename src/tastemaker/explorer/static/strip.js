// The borderline strip: the pictures nearest to the cut-off, dropped on the left, kept on the right, the nearest inmost.

import { thumbnail } from "./api.js";
import { altText } from "./cell.js";
import { fetchPlaces } from "./chunks.js";
import { element, score } from "./format.js";
import { digits, emit, model, on, setActive } from "./model.js";

const EACH = 14;
const GAP = 4; // px between pictures
const DEBOUNCE_MS = 60;
const PATIENCE_MS = 700;

const strip = document.getElementById("strip");
const below = strip.querySelector(".below");
const above = strip.querySelector(".strip-side.above");

let waiting = 0;
let turn = 0;

export function startStrip() {
  for (const event of ["cut", "view"]) on(event, followSoon);
  new ResizeObserver(followSoon).observe(strip);
  strip.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    setActive(button.place);
    emit("open", button.place);
  });
}

function followSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(follow, DEBOUNCE_MS);
}

// The old pictures stay until the new ones can be shown all at once.
async function follow() {
  const mine = ++turn;
  const { kept } = model.cut;
  const high = below.clientHeight || 72;
  try {
    const start = Math.max(0, kept - EACH);
    const pictures = await fetchPlaces(start, kept + EACH);
    const items = pictures.map((picture, n) => makeItem(picture, start + n, high));
    await Promise.race([Promise.all(items.map(hasLoaded)), new Promise((done) => setTimeout(done, PATIENCE_MS))]);
    if (mine !== turn) return;
    above.replaceChildren(...whatFits(items.slice(0, kept - start).reverse(), above.clientWidth));
    below.replaceChildren(...whatFits(items.slice(kept - start), below.clientWidth));
  } catch (error) {
    if (mine === turn) emit("trouble", error);
  }
}

// No picture is cut at the end of the strip.
function whatFits(items, room) {
  let left = room + GAP;
  return items.filter((item) => (left -= Number.parseInt(item.style.width, 10) + GAP) >= 0);
}

function makeItem(picture, place, high) {
  const image = element("img", { alt: altText(picture), decoding: "async", draggable: false, fetchPriority: "high" });
  image.src = thumbnail(picture.row, high);
  image.addEventListener("load", () => button.classList.add("here"));
  image.addEventListener("error", () => button.classList.add("gone"));
  const name = `${score(picture.score, digits())}  ${picture.name}`;
  const button = element("button", { type: "button", title: name, tabIndex: -1 }, image);
  button.place = place;
  const aspect = picture.width && picture.height ? picture.width / picture.height : 1;
  button.style.width = `${Math.round(Math.min(Math.max(aspect, 0.3), 3.5) * high)}px`;
  return button;
}

const hasLoaded = (item) => {
  const image = item.firstChild;
  return new Promise((done) => {
    if (image.complete) done();
    image.addEventListener("load", done);
    image.addEventListener("error", done);
  });
};
