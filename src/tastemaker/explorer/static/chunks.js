// The pictures of a view, fetched in blocks of what is shown together; those fetched last are kept.

import { ask } from "./api.js";
import { model, on, placeOf, shownImages } from "./model.js";

const BLOCK = 200;
const KEPT = 8000;

let known = new Map(); // place -> picture
let coming = new Map(); // what a block is called -> a promise of it

export function startChunks() {
  on("view", () => {
    known = new Map();
    coming = new Map();
  });
}

// The picture at a place (from the best), undefined where it is not here yet.
export const peek = (place) => known.get(place);

// Every picture between two places, once they are all here.
export const fetchPlaces = (from, to) => fetchBlocks(from, to, model.view.images, (place) => place, "place");

// Every picture between two positions, in the order in which they are shown.
export const fetchPositions = (from, to) => fetchBlocks(from, to, shownImages(), placeOf, model.order === "best" && !model.part ? "place" : `${model.order} ${model.part}`);

// Take over what is new of pictures: row -> what changes.
export function update(changes) {
  for (const picture of known.values()) if (changes.has(picture.row)) Object.assign(picture, changes.get(picture.row));
}

async function fetchBlocks(from, to, all, at, kind) {
  const turn = coming;
  const start = Math.max(0, from);
  const end = Math.min(to, all);
  const places = Array.from({ length: Math.max(0, end - start) }, (_, n) => at(start + n));
  const blocks = new Set(places.flatMap((place, n) => (known.has(place) ? [] : [Math.floor((start + n) / BLOCK)])));
  await Promise.all([...blocks].map((block) => {
    const first = block * BLOCK;
    const whole = Array.from({ length: Math.min(BLOCK, all - first) }, (_, n) => at(first + n));
    return fetchBlock(`${kind} ${block}`, whole.filter((place) => !known.has(place)));
  }));
  return turn === coming ? places.map(peek) : []; // another view is shown by now
}

function fetchBlock(name, places) {
  if (!coming.has(name)) coming.set(name, load(places, coming).finally(() => coming.delete(name)));
  return coming.get(name);
}

async function load(places, turn) {
  const pictures = await ask("/api/rows/at", { ...model.filter, places: places.join() });
  if (turn !== coming) return; // of another view
  places.forEach((place, n) => known.has(place) || known.set(place, pictures[n])); // what is shown already stays the same object
  for (const old of known.keys()) {
    if (known.size <= KEPT) break;
    known.delete(old);
  }
}
