// A picture over the page: as large as fits, with all that is known of it; or two to four side by side.

import { ask, turns } from "./api.js";
import { fetchPlaces } from "./chunks.js";
import { goesOnSwitch, nextUnrated } from "./flow.js";
import { button, columnName, count, element, range, score } from "./format.js";
import { focusGrid, reveal } from "./grid.js";
import { digits, emit, isKept, measure, model, on, placeOf, positionOf, remember, setActive, shownImages, toHash } from "./model.js";
import { pickedPlaces } from "./picked.js";
import { clearStage, markPane, showStage, sourceOf, stage, startStage } from "./stage.js";
import { makeRating, showRating } from "./stars.js";
import { makeThumb } from "./thumb.js";

const NEIGHBOUR = 72; // px high
const MEMBER = 56; // px high, of a picture's group
const MOST_BESIDE = 4;
const AHEAD = 3; // pictures that are loaded before one walks to them
const REST_MS = 150; // that one stays at a picture before more is asked of it
const LONGER_MS = 350; // and before those that look like it are searched for

const dialog = document.getElementById("picture");
const facts = element("aside", { className: "facts", tabIndex: 0, "aria-label": "About this picture" });
const row = element("div", { className: "neighbour-row", role: "group", "aria-label": "Pictures that look like it" });
const tool = (textContent, className, action) => button(textContent, action, { className });
const close = tool("Close", "close", () => dialog.close());
const back = tool("Previous", "step back", () => walk(-1));
const onward = tool("Next", "step onward", () => walk(1));
const several = tool("Side by side", "step several", () => showBeside());

let shown = null; // the active picture
let list = []; // the places that one walks through: those that are picked, or none for the whole view
let beside = 1; // how many are shown
let first = 0; // the number in the list of the first that is shown
let captions = []; // {row, line} of pictures side by side
const unfolded = new Set(); // names of what is unfolded beside it
let turn = 0;
const search = turns(); // for neighbours: in a large table it takes seconds, and is given up when one walks on

export const isOpen = () => dialog.open;
export const openedPicture = () => shown;

const numberOf = (place) => (list.length ? list.indexOf(place) : positionOf(place));
const placeAtNumber = (number) => (list.length ? list[number] : placeOf(number));
const listed = () => list.length || shownImages();

export function startPicture() {
  const progress = element("span", { className: "progress" });
  dialog.append(element("div", { className: "picture-tools" }, progress, several, back, onward, close), stage, row, facts);
  row.hidden = !model.table.embeddings; // where there may be some, their place is kept free
  startStage({ onPress: pressPane, onLeave: () => dialog.close(), onSwipe: walk, onShown: preload });
  dialog.addEventListener("close", closed);
  on("open", (place) => open(place));
  on("go", (place) => (isOpen() ? goTo(place) : (setActive(place), reveal(place))));
  on("cut", showVerdict);
  on("view", () => {
    if (!isOpen()) return;
    shown.place = -1; // until it is known where it lies now
    openRow(shown.row);
  });
  on("order", () => isOpen() && shown.place >= 0 && goTo(model.active)); // it may be shown no more
  on("ratings", (ratings) => {
    for (const { row: rated, place, ...said } of ratings) {
      if (shown?.row === rated) Object.assign(shown, said);
      for (const { picture, group } of captions) if (picture.row === rated) showRating(group, Object.assign(picture, said));
    }
    showVerdict();
    if (shown) showRating(rating, shown);
  });
  window.addEventListener("popstate", () => {
    const wanted = new URLSearchParams(location.hash.slice(1)).get("picture");
    if (!wanted && dialog.open) dialog.close();
    else if (wanted && Number(wanted) !== model.picture) openRow(Number(wanted));
  });
}

// What is picked side by side, else one picture.
function open(place, fewest = 1) {
  list = pickedPlaces();
  beside = Math.min(Math.max(list.length, fewest), MOST_BESIDE, shownImages());
  first = 0;
  goTo(list.length && !list.includes(place) ? list[0] : place);
}

async function openPlace(place) {
  const [picture] = await fetchPlaces([place]);
  if (picture) await show(picture, place);
}

export async function openRow(row) {
  const picture = await ask(`/api/picture/${row}`, model.view.filter);
  [list, beside] = [[], 1];
  show(picture, picture.place);
  if (picture.place >= 0) setActive(picture.place);
}

export async function walk(steps) {
  if (!shown || shown.place < 0) return;
  await goTo(placeAtNumber(numberOf(model.active) + steps)); // the one shown may still be coming
}

async function goTo(place) {
  if (place === undefined || place < 0 || place >= model.view.images) return;
  if (!list.includes(place)) list = [];
  setActive(place);
  try {
    await openPlace(place);
  } catch (error) {
    if (shown?.place >= 0 && model.active === place) setActive(shown.place); // keys rate what one sees
    throw error;
  }
}

// Show one more picture beside the others, and after four only one again; from the grid what is picked, or two.
export async function showBeside() {
  if (!isOpen()) return open(model.active, 2);
  if (shown.place < 0) return;
  beside = beside >= Math.min(MOST_BESIDE, listed()) ? 1 : beside + 1;
  await goTo(model.active);
}

function pressPane(row) {
  const pressed = captions.find(({ picture }) => picture.row === row);
  if (beside > 1 && pressed) goTo(pressed.picture.place);
}

function closed() {
  shown = null;
  turn++;
  model.picture = null;
  remember();
  clearStage();
  captions = [];
  reveal(model.active);
  focusGrid();
}

async function show(picture, place) {
  const mine = ++turn;
  const number = numberOf(place);
  const isAlone = place < 0 || beside === 1;
  first = Math.max(0, Math.min(Math.max(Math.min(first, number), number - beside + 1), listed() - beside));
  const pictures = isAlone ? [picture] : await fetchAll(first, first + beside);
  if (mine !== turn) return;
  shown = { ...picture, place };
  const isFirst = !dialog.open;
  model.picture = picture.row;
  if (isFirst) {
    history.pushState(null, "", `/${toHash()}`);
    dialog.showModal();
    dialog.focus({ preventScroll: true }); // not its first button
  } else remember();
  dialog.classList.toggle("several", !isAlone);
  dialog.setAttribute("aria-label", `${picture.name}, ${measure()} ${score(picture.score, digits())}`);
  back.disabled = place < 0 || number === 0;
  onward.disabled = place < 0 || number === listed() - 1;
  several.disabled = place < 0 || listed() < 2;
  several.textContent = isAlone ? "Side by side" : `${pictures.length} side by side`;
  captions = [];
  row.replaceChildren();
  showStage(pictures, makeCaption);
  markPane(picture.row);
  showHead();
  await pause(REST_MS);
  if (mine !== turn || !isAlone) return;
  await Promise.all([showFacts(picture, mine), pause(LONGER_MS)]);
  if (mine === turn) await showNeighbours(picture, mine);
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// The pictures from one number of the list to another, with their places.
async function fetchAll(from, to) {
  const places = range(from, to).map(placeAtNumber);
  const found = await fetchPlaces(places);
  return found.map((picture, n) => ({ ...picture, place: places[n] }));
}

function makeCaption(picture) {
  const group = makeRating(() => picture);
  showRating(group, picture);
  captions.push({ picture, group });
  const name = element("span", { className: "name", dir: "auto", textContent: picture.file, title: picture.name });
  return element("div", { className: "pane-caption" }, name, element("span", { className: "quiet", textContent: score(picture.score, digits()) }), group);
}

async function preload() {
  if (!shown || shown.place < 0) return;
  const last = numberOf(shown.place);
  const numbers = [...range(last + 1, last + 1 + AHEAD), first - 1].filter((number) => number >= 0 && number < listed());
  for (const picture of await fetchPlaces(numbers.map(placeAtNumber))) {
    if (!shown) return;
    const image = new Image();
    image.src = sourceOf(picture);
    await image.decode().catch(() => {}); // one after the other: what is shown comes first
  }
}

const head = element("div", { className: "facts-head" });
const name = element("h2", { className: "name", dir: "auto" });
const folder = element("p", { className: "quiet folder", dir: "auto" });
const taken = element("p", { className: "taken" });
const figure = element("strong", { className: "figure" });
const verdict = element("span", { className: "verdict" });
const rating = makeRating(() => shown);
const rest = element("div", { className: "facts-rest" });

function showHead() {
  if (!head.firstChild) {
    const next = tool("Next unrated", "step", () => nextUnrated());
    head.append(name, folder, taken, rating, element("div", { className: "line" }, figure, verdict), element("div", { className: "flow" }, goesOnSwitch(), next));
    facts.append(head, rest);
  }
  name.textContent = shown.file;
  folder.textContent = shown.folder;
  figure.textContent = score(shown.score, digits()) || `no ${measure()}`;
  showVerdict();
  showRating(rating, shown);
}

function showVerdict() {
  if (!shown) return;
  const isBefore = shown.place >= 0 ? isKept(shown.place) : shown.score !== null && shown.score >= model.cut.score;
  const passes = isBefore && !shown.rejected;
  verdict.textContent = shown.rejected ? "rejected" : shown.score === null ? "" : passes ? "kept" : "dropped";
  verdict.classList.toggle("kept", passes);
}

async function showFacts(picture, mine) {
  try {
    const facts = await ask(`/api/picture/${picture.row}`, model.view.filter);
    if (mine !== turn) return;
    taken.textContent = facts.shot.join("\n");
    const rank = facts.rank ? `${count(facts.rank)} of ${count(facts.of)}` : "";
    const percentile = facts.percentile === null ? "" : `${model.view.like ? "more alike" : "better"} than ${facts.percentile.toFixed(1)}%`;
    const parts = [element("p", { className: "rank quiet", textContent: [rank && `rank ${rank}`, percentile].filter(Boolean).join(" · ") })];
    if (facts.caption) parts.push(element("p", { className: "caption", dir: "auto", textContent: facts.caption }));
    if (facts.group && facts.group.images > 1) parts.push(members(facts.group));
    parts.push(group("Signals", facts.signals));
    parts.push(group("Columns", facts.columns));
    for (const [extension, text] of facts.sidecars) {
      if (text.trim() !== facts.caption.trim()) parts.push(sidecar(`.${extension}`, text));
    }
    if (facts.metadata) parts.push(sidecar("metadata", facts.metadata));
    rest.replaceChildren(...parts.filter(Boolean));
  } catch (error) {
    if (mine === turn) rest.replaceChildren(element("p", { className: "wrong", textContent: error.message }));
  }
}

function group(name, pairs) {
  const filled = pairs.filter(([, value]) => value !== "");
  if (!filled.length) return null;
  const list = element("dl", { className: "pairs" });
  for (const [key, value] of filled) list.append(element("dt", { textContent: columnName(key) }), element("dd", { textContent: value }));
  return folded(name, list);
}

function members({ images, why, is_best, others }) {
  const shown = element("div", { className: "members" }, ...others.map((picture) => makeThumb(picture, MEMBER, () => openRow(picture.row))));
  const more = images - 1 - others.length;
  return element("section", {},
    element("h3", { textContent: `In a group of ${count(images)}` }),
    ...(why ? [element("p", { className: "quiet", textContent: is_best ? `the best frame: ${why}` : `the first is the best frame: ${why}` })] : []), shown,
    ...(more > 0 ? [element("p", { className: "quiet", textContent: `and ${count(more)} more` })] : []));
}

const sidecar = (name, text) => folded(name, element("pre", { dir: "auto", textContent: text }));

// What is technical unfolds, and stays so for the next picture.
function folded(name, content) {
  const box = element("details", { open: unfolded.has(name) }, element("summary", { textContent: name }), content);
  box.addEventListener("toggle", () => (box.open ? unfolded.add(name) : unfolded.delete(name)));
  return box;
}

async function showNeighbours(picture, mine) {
  if (row.hidden) return;
  try {
    const found = await ask(`/api/neighbours/${picture.row}`, model.view.filter, search());
    if (mine === turn) row.replaceChildren(...found.map((picture) => makeThumb(picture, NEIGHBOUR, () => openRow(picture.row))));
  } catch {
    // without neighbours the page is whole
  }
}
