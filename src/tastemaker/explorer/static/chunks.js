// The pictures of a view, fetched in pieces; the pieces seen last are kept.

import { ask } from "./api.js";
import { model, on } from "./model.js";

const SIZE = 200;
const KEPT = 40;

let chunks = new Map(); // number -> array of pictures, or a promise of it
let version = 0;

export function startChunks() {
  on("view", () => {
    version++;
    chunks = new Map();
  });
}

// The picture at a place (from the best), undefined where it is not here yet.
export function peek(place) {
  const chunk = chunks.get(Math.floor(place / SIZE));
  return Array.isArray(chunk) ? chunk[place % SIZE] : undefined;
}

// Every picture between two places, once they are all here.
export async function fetchPlaces(from, to) {
  const start = Math.max(0, from);
  const end = Math.min(to, model.view.images);
  if (start >= end) return [];
  const numbers = [];
  for (let n = Math.floor(start / SIZE); n <= Math.floor((end - 1) / SIZE); n++) numbers.push(n);
  await Promise.all(numbers.map(fetchChunk));
  const found = [];
  for (let place = start; place < end; place++) found.push(peek(place));
  return found;
}

// Take over what is new of pictures: row -> what changes.
export function update(changes) {
  for (const chunk of chunks.values()) {
    if (!Array.isArray(chunk)) continue;
    for (const picture of chunk) if (changes.has(picture.row)) Object.assign(picture, changes.get(picture.row));
  }
}

async function fetchChunk(number) {
  const known = chunks.get(number);
  if (known) {
    chunks.delete(number); // to the end: it was used last
    chunks.set(number, known);
    return known;
  }
  const mine = version;
  const coming = ask("/api/rows", { ...model.filter, start: number * SIZE, stop: (number + 1) * SIZE });
  chunks.set(number, coming);
  try {
    const pictures = await coming;
    if (mine === version) {
      chunks.set(number, pictures);
      for (const old of chunks.keys()) {
        if (chunks.size <= KEPT) break;
        if (old !== number) chunks.delete(old);
      }
    }
    return pictures;
  } catch (error) {
    if (mine === version) chunks.delete(number);
    throw error;
  }
}
