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
let coming = []; // what is shown next

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

// The old pictures stay until the new ones can be shown all at once; those that were still coming are given up.
async function follow() {
  const mine = ++turn;
  const { kept } = model.cut;
  const high = below.clientHeight || 72;
  try {
    const start = Math.max(0, kept - EACH);
    const pictures = await fetchPlaces(start, kept + EACH);
    if (mine !== turn) return;
    for (const item of coming) giveUp(item);
    const items = pictures.map((picture, n) => makeItem(picture, start + n, high));
    const left = whatFits(items.slice(kept - start), below.clientWidth);
    const right = whatFits(items.slice(0, kept - start).reverse(), above.clientWidth);
    coming = [...left, ...right];
    for (const item of coming) load(item, high);
    await Promise.race([Promise.all(coming.map(hasLoaded)), new Promise((done) => setTimeout(done, PATIENCE_MS))]);
    if (mine !== turn) return;
    above.replaceChildren(...right);
    below.replaceChildren(...left);
  } catch (error) {
    if (mine === turn) emit("trouble", error);
  }
}

function load(item, high) {
  item.firstChild.src = thumbnail(item.row, high);
}

function giveUp(item) {
  if (!item.isConnected && !item.firstChild.complete) item.firstChild.removeAttribute("src");
}

// No picture is cut at the end of the strip.
function whatFits(items, room) {
  let left = room + GAP;
  return items.filter((item) => (left -= Number.parseInt(item.style.width, 10) + GAP) >= 0);
}

function makeItem(picture, place, high) {
  const image = element("img", { alt: altText(picture), decoding: "async", draggable: false, fetchPriority: "high" });
  image.addEventListener("load", () => button.classList.add("here"));
  image.addEventListener("error", () => button.classList.add("gone"));
  const name = `${score(picture.score, digits())}  ${picture.name}`;
  const button = element("button", { type: "button", title: name, tabIndex: -1 }, image);
  Object.assign(button, { place, row: picture.row });
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
