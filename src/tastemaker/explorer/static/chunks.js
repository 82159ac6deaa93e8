// The pictures of a view, fetched together with those around them; those fetched last are kept.

import { ask } from "./api.js";
import { range } from "./format.js";
import { model, on, placeOf, shownImages } from "./model.js";

const BLOCK = 200;
const KEPT = 8000;

let known = new Map(); // place -> picture
let coming = new Map(); // place -> a promise of what it comes with

export function startChunks() {
  on("view", () => {
    known = new Map();
    coming = new Map();
  });
}

// The picture at a place (from the best), undefined where it is not here yet.
export const peek = (place) => known.get(place);

// Take over what is new of pictures: row -> what changes.
export function update(changes) {
  for (const picture of known.values()) if (changes.has(picture.row)) Object.assign(picture, changes.get(picture.row));
}

// The pictures from one position to another, in the order in which they are shown, and the rest of their blocks.
export const fetchAround = (from, to) =>
  fetchPlaces(range(BLOCK * Math.floor(from / BLOCK), Math.min(BLOCK * Math.ceil(to / BLOCK), shownImages())).map(placeOf));

// The pictures at some places, once they are all here; none where another view is shown by then.
export async function fetchPlaces(places) {
  const turn = coming;
  const missing = places.filter((place) => !known.has(place) && !coming.has(place));
  for (let start = 0; start < missing.length; start += BLOCK) {
    const block = missing.slice(start, start + BLOCK);
    const answer = load(block, turn);
    for (const place of block) coming.set(place, answer);
  }
  await Promise.all(new Set(places.map((place) => turn.get(place))));
  return turn === coming ? places.map(peek).filter(Boolean) : [];
}

async function load(places, turn) {
  try {
    const pictures = await ask("/api/rows", { ...model.view.filter, places: places.join() });
    if (turn !== coming) return; // of another view
    places.forEach((place, n) => known.set(place, pictures[n]));
  } finally {
    for (const place of places) turn.delete(place);
  }
  for (const old of known.keys()) {
    if (known.size <= KEPT) break;
    known.delete(old);
  }
}
