// The borderline strip: the pictures nearest to the cut-off, dropped on the left, kept on the right, the nearest inmost.

import { fetchPlaces } from "./chunks.js";
import { range } from "./format.js";
import { emit, model, on, setActive } from "./model.js";
import { giveUpThumb, hasLoaded, makeThumb } from "./thumb.js";

const EACH = 14;
const GAP = 4; // px between pictures
const DEBOUNCE_MS = 60;
const PATIENCE_MS = 700;

const strip = document.getElementById("strip");
const opened = document.getElementById("picture");
const below = strip.querySelector(".below");
const above = strip.querySelector(".strip-side.above");

let waiting = 0;
let turn = 0;
let coming = []; // what is shown next

export function startStrip() {
  for (const event of ["cut", "view"]) on(event, followSoon);
  new ResizeObserver(followSoon).observe(strip);
  opened.addEventListener("close", followSoon);
}

function followSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(follow, DEBOUNCE_MS);
}

// The old pictures stay until the new ones can be shown all at once; those that were still coming are given up.
async function follow() {
  const mine = ++turn;
  const { place } = model.cut;
  const high = below.clientHeight;
  if (!high || opened.open) return; // folded away, or under a picture that is open
  const start = Math.max(0, place - EACH);
  const pictures = await fetchPlaces(range(start, Math.min(place + EACH, model.view.images)));
  if (mine !== turn) return;
  coming.forEach(giveUpThumb);
  const items = pictures.map((picture, n) => ({ picture, place: start + n })).filter(({ picture }) => !picture.rejected);
  const left = whatFits(items.filter((item) => item.place >= place), below.clientWidth, high);
  const right = whatFits(items.filter((item) => item.place < place).reverse(), above.clientWidth, high);
  coming = [...left, ...right];
  await Promise.race([Promise.all(coming.map(hasLoaded)), new Promise((done) => setTimeout(done, PATIENCE_MS))]);
  if (mine !== turn) return;
  above.replaceChildren(...right);
  below.replaceChildren(...left);
}

// No picture is cut at the end of the strip, and none is loaded that does not fit.
function whatFits(items, room, high) {
  const shown = [];
  let left = room + GAP;
  for (const { picture, place } of items) {
    const thumb = makeThumb(picture, high, () => {
      setActive(place);
      emit("open", place);
    });
    left -= Number.parseInt(thumb.style.width, 10) + GAP;
    if (left < 0) break;
    thumb.tabIndex = -1;
    shown.push(thumb);
  }
  return shown;
}
