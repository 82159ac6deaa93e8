// Pictures that are picked together: keys rate all of them, and they open side by side.

import { emit, model, on, placeOf, positionOf, shownImages } from "./model.js";

const MOST = 5000;

let anchor = null; // the place that a range begins at

export function startPicked() {
  for (const event of ["view", "order"]) on(event, clearPicked);
}

export function clearPicked() {
  anchor = null;
  if (!model.picked.size) return;
  model.picked.clear();
  emit("picked");
}

export function togglePick(place) {
  const isFirst = !model.picked.size;
  if (isFirst) model.picked.add(model.active);
  if (!model.picked.delete(place) || (isFirst && place === model.active)) model.picked.add(place);
  anchor = place;
  emit("picked");
}

// Pick all from where the range began up to a place.
export function pickTo(place, from = model.active) {
  anchor ??= from;
  const [first, last] = [positionOf(anchor), positionOf(place)].sort((a, b) => a - b);
  model.picked.clear();
  for (let position = first; position <= Math.min(last, first + MOST - 1); position++) model.picked.add(placeOf(position));
  emit("picked");
}

export function pickAll() {
  clearPicked();
  pickTo(placeOf(shownImages() - 1), placeOf(0));
}

// The places that are picked, in the order in which they are shown; none where it is only one.
export function pickedPlaces() {
  return model.picked.size > 1 ? [...model.picked].sort((a, b) => positionOf(a) - positionOf(b)) : [];
}
