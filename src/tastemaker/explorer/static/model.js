// What is shown: the view (filter, order), the cut-off, the active picture. Kept in the address, told to whoever listens.

import { ask, turns } from "./api.js";

const listeners = new Map();

// A filter that lets all pass. Facets (from rated to folder) have their values as the server takes them.
export const UNFILTERED = { where: "", text: "", like: "", rated: "", date: "", camera: "", lens: "", folder: "", group: "" };

export const model = {
  table: null, // what /api/table said
  filter: { by: "", ...UNFILTERED, asked: "" }, // what is wanted; view.filter is that of what is shown, whose places it tells
  order: "best", // or "worst", or one of table.orders
  part: "", // "kept" or "dropped": what is shown of the view
  show: "pictures",
  dimension: "",
  view: { filter: {}, images: 0, rated: new Set(), rejected: new Set(), first: 0, step: 0.01, decimals: 2, reaching: [], low: 0, high: 1, unscored: 0, by: "", like: "" },
  shapes: new Uint16Array(0), // aspect ratios in thousandths, best first
  // text: the share or number that was asked for, else empty; name: the cut-off with as many digits as it needs; place: how
  // many of the view lie before it, rejected ones among them; kept: without those; places: of what is kept, where that is not
  // all before the cut, but pictures that are unlike each other
  cut: { score: 0, place: 0, kept: 0, name: "", text: "", places: null },
  active: 0, // place of the active picture, best first
  picked: new Set(), // places of the pictures that are picked together
  picture: null, // row of the opened picture
};

export function on(event, listener) {
  if (!listeners.has(event)) listeners.set(event, []);
  listeners.get(event).push(listener);
}

export function emit(event, detail) {
  for (const listener of listeners.get(event) ?? []) listener(detail);
  remember();
}

export const digits = () => model.view.decimals;

// What the pictures are ranked by, in a word: words give a likeness.
export const measure = () => (model.view.like ? "likeness" : "score");

// Pictures that have what they are ranked by, whatever passes the filter; the others are failures.
export const allImages = () => model.table.images - model.view.unscored;

export const isFiltered = () => Object.keys(UNFILTERED).some((name) => model.filter[name]);

// Pictures are displayed in any order, or only those on one side of the cut-off; places always count from the best.
let ordered = null; // places in the order that the server made, null for an order by score
let arranged = null; // places in the order in which they are shown, null where that is all of them, best first
let positions = null; // of each place, -1 where it is not shown

export const shownImages = () => (arranged ? arranged.length : model.view.images);
export const placeOf = (position) => (arranged ? arranged[position] : position);
export const positionOf = (place) => (positions ? positions[place] : place);

// The shapes of what is shown, in its order.
export const shownShapes = () => arranged?.map((place) => model.shapes[place]) ?? model.shapes;

// Whether places come one after the other, so that the cut-off is a line between them.
export const isByScore = () => !ordered && !model.part && !model.cut.places;

export const isKept = (place) => model.cut.places?.has(place) ?? place < model.cut.place;

function arrange() {
  const { view, part } = model;
  const before = Math.max(0, positionOf(model.active));
  arranged = positions = null;
  if (ordered || part || model.order === "worst") {
    let places = ordered ?? new Uint32Array(view.images).map((_, n) => n);
    if (model.order === "worst") places = places.reverse();
    if (part) places = places.filter((place) => isKept(place) === (part === "kept") && !view.rejected.has(place));
    arranged = places;
    positions = new Int32Array(view.images).fill(-1);
    places.forEach((place, position) => (positions[place] = position));
  }
  if (!(positionOf(model.active) >= 0)) model.active = placeOf(Math.min(before, shownImages() - 1)) ?? 0;
}

async function fetchOrder(signal) {
  if (!model.table.orders.includes(model.order)) return null;
  return new Uint32Array(decode(await ask("/api/order", { ...model.filter, order: model.order }, signal)));
}

function decode(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let n = 0; n < letters.length; n++) bytes[n] = letters.charCodeAt(n); // a third of the time of Uint8Array.from
  return bytes.buffer;
}

// How many of the view reach a score, rejected ones among them.
export function placeAt(score) {
  const { first, step, reaching, images } = model.view;
  const number = Math.round(score / step) - first;
  if (!reaching.length || number >= reaching.length) return 0;
  return number <= 0 ? images : reaching[number];
}

// Pictures that count: what is rejected is shown, but neither kept nor dropped.
export const counted = () => model.view.images - model.view.rejected.size;

const keptBefore = (place) => place - [...model.view.rejected].filter((rejected) => rejected < place).length;

const snap = (score) => Number((Math.round(score / model.view.step) * model.view.step).toFixed(digits()));

// Move the cut-off to a score that an arrow key can reach: its count is in the page.
export function cutAt(score) {
  const { first, step, reaching } = model.view;
  setAt(Math.min(Math.max(score, first * step), (first + reaching.length - 1) * step));
}

function setAt(score, isMoved = true) {
  const snapped = snap(score);
  const place = placeAt(snapped);
  setCut({ score: snapped, place, kept: keptBefore(place), name: snapped.toFixed(digits()), text: "", places: null }, isMoved);
}

export function moveCut(steps) {
  const { step } = model.view;
  if (model.cut.places) return cutVaried(variedCount() + steps);
  const exact = model.cut.score / step;
  const from = steps > 0 ? Math.floor(exact + 1e-6) : Math.ceil(exact - 1e-6);
  cutAt((from + steps) * step);
}

// The cut-off as the server reads it.
export const cutText = () => model.cut.text || model.cut.name;

// What somebody types: a score, a share (20%), a number (100k), or so many that are unlike each other (varied 40). The server
// reads it and counts.
export async function cutByText(text, isMoved = true) {
  if (/^-?\d*\.\d+$/.test(text) && isOnStep(Number(text))) return setAt(Number(text), isMoved); // its count is in the page
  const before = model.cut;
  const cut = await ask("/api/cutoff", { ...model.view.filter, cut: text });
  if (model.cut === before) setCut(asCut(cut), isMoved); // not where it was moved meanwhile
}

const asCut = ({ score, places, ...cut }) => ({ ...cut, score: score ?? 0, places: places && new Set(places) });

const variedCount = () => Number(model.cut.text.split(" ")[1]);

// Cut by variety. The number is taken at once: keys and the slider go on from it before the pictures are chosen.
export async function cutVaried(number) {
  const before = model.cut;
  const asked = { ...before, text: `varied ${Math.min(Math.max(number, 1), counted())}` };
  model.cut = asked;
  emit("choosing"); // the first time it takes a second or two in a large table
  try {
    await cutByText(asked.text);
  } catch (error) {
    if (model.cut === asked) setCut(before);
    throw error;
  }
}

// Count anew what the cut-off keeps, as after another picture is rejected.
function recut() {
  const { score, text, name } = model.cut;
  if (text) return cutByText(text, false);
  return isOnStep(score) ? setAt(score, false) : cutByText(name, false);
}

let ratingsSaved = 0; // how often, so far

// Pictures of a view are rated or rejected, or are not any more. They stay where they are until one moves the cut-off or filters.
export async function setRated(ratings, view) {
  ratingsSaved++;
  const isComing = model.filter !== model.view.filter; // another one, which looks for itself what was saved meanwhile
  if (view !== model.view) return isComing ? null : loadView(); // the places are not of this one
  const { rated, rejected } = view;
  const before = [...rejected].join();
  for (const { place, stars, rejected: isRejected } of ratings.filter(({ place }) => place >= 0)) {
    rated[stars || isRejected ? "add" : "delete"](place);
    rejected[isRejected ? "add" : "delete"](place);
  }
  emit("progress");
  if ([...rejected].join() !== before) await recut();
}

let rearranging = 0;
const CUT_RESTS_MS = 120;

function setCut(cut, isMoved = true) {
  model.cut = cut;
  emit("cut");
  if (!isMoved) return;
  clearTimeout(rearranging);
  if (model.part) rearranging = setTimeout(() => show(model.order, model.part), CUT_RESTS_MS);
}

const turn = turns();
let shown = ""; // the ranking of the view
const cuts = new Map(); // ranking -> its last cut-off: a score says nothing of a likeness
const ranking = ({ by, like }) => (like.trim() ? `like ${like.trim()}` : by);

// Fetch the counts and shapes of the filter. Throws what the server says of a filter that it does not take.
export async function loadView(cut = model.cut, active = null) {
  const signal = turn();
  const filter = { ...model.filter, asked: `${performance.timeOrigin + performance.now()}` };
  model.filter = filter;
  const before = ratingsSaved;
  const [{ shapes, cut: found, rated, rejected, ...view }, order] = await Promise.all([ask("/api/view", { ...filter, cut: cut.text || cut.name }, signal), fetchOrder(signal)]);
  if (ratingsSaved !== before) return loadView(cut, active); // it may lack what was saved meanwhile
  model.view = { ...view, filter, rated: new Set(rated), rejected: new Set(rejected) };
  model.active = active ?? model.active;
  shown = ranking(filter);
  model.shapes = new Uint16Array(decode(shapes));
  model.cut = asCut(found);
  ordered = order;
  arrange();
  emit("view");
  emit("cut");
}

const isOnStep = (score) => Math.abs(score / model.view.step - Math.round(score / model.view.step)) < 1e-6;

// `active`: the place that is active then; that of the first picture that is shown, where there is no such place. `cut`: that
// of the ranking, unless another one is given.
export async function changeFilter(changes, { order = model.order, active = -1, cut } = {}) {
  const before = { filter: model.filter, order: model.order };
  Object.assign(model, { filter: { ...model.filter, ...changes }, order });
  cuts.set(shown, model.cut);
  try {
    await loadView(cut ?? cuts.get(ranking(model.filter)) ?? { text: "", name: "" }, active);
  } catch (error) {
    if (error.name === "AbortError") return;
    Object.assign(model, before);
    throw error;
  }
}

export const setOrder = (order) => changeFilter({}, { order });

// Show only what is kept, what is dropped, or with an empty part all.
export const setPart = (part) => show(model.order, part);

function show(order, part) {
  Object.assign(model, { order, part });
  arrange();
  emit("order");
}

export function setShow(show) {
  model.show = show;
  emit("show");
}

export function setActive(place) {
  model.active = Math.min(Math.max(place, 0), Math.max(0, model.view.images - 1));
  emit("active");
}

let remembering = 0;

// Write the state into the address, not more often than browsers allow.
export function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => history.replaceState(null, "", `/${toHash()}`), 250);
}

export function toHash() {
  const state = new URLSearchParams();
  const { filter } = model;
  state.set("cut", cutText());
  for (const [name, value] of Object.entries(filter)) if (value && name !== "asked") state.set(name, value);
  if (model.order !== "best") state.set("order", model.order);
  if (model.part) state.set("part", model.part);
  if (model.show !== "pictures") state.set("show", model.show);
  if (model.dimension) state.set("by-slice", model.dimension);
  if (model.active) state.set("at", model.active);
  if (model.picture !== null) state.set("picture", model.picture);
  return `#${state}`;
}

// Take the state from the address.
export function fromHash() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(model.filter)) model.filter[name] = state.get(name) ?? "";
  model.order = state.get("order") ?? "best";
  model.part = ["kept", "dropped"].includes(state.get("part")) ? state.get("part") : "";
  model.show = ["slices", "taste", "failures"].includes(state.get("show")) ? state.get("show") : "pictures";
  model.dimension = state.get("by-slice") ?? "";
  model.active = Number.parseInt(state.get("at") ?? "0", 10) || 0;
  const picture = Number.parseInt(state.get("picture") ?? "", 10);
  model.picture = picture >= 0 ? picture : null;
  model.cut.text = state.get("cut") ?? "";
}
