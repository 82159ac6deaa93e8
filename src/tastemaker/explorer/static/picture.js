// A picture over the page: as large as fits, with all that is known of it, and the pictures that look like it.

import { ask } from "./api.js";
import { fetchPlaces } from "./chunks.js";
import { columnName, count, element, score } from "./format.js";
import { focusGrid, reveal } from "./grid.js";
import { digits, emit, measure, model, on, placeOf, positionOf, setActive, toHash } from "./model.js";
import { rate } from "./ratings.js";
import { showStage, sourceOf, stage, startStage, unzoom } from "./stage.js";
import { makeThumb } from "./thumb.js";

const NEIGHBOUR = 72; // px high
const MEMBER = 56; // px high, of a picture's group

const dialog = document.getElementById("picture");
const facts = element("aside", { className: "facts", tabIndex: 0 });
facts.setAttribute("aria-label", "About this picture");
const row = element("div", { className: "neighbour-row", role: "group" });
row.setAttribute("aria-label", "Pictures that look like it");
const close = element("button", { type: "button", textContent: "Close", className: "close" });
const back = element("button", { type: "button", textContent: "Previous", className: "step back" });
const onward = element("button", { type: "button", textContent: "Next", className: "step onward" });

let shown = null; // the picture
const unfolded = new Set(); // names of what is unfolded beside it
let turn = 0;
let search = null; // for neighbours: in a large table it takes seconds, and is given up when one walks on

export const isOpen = () => dialog.open;
export const openedPicture = () => shown;

export function startPicture() {
  dialog.append(element("div", { className: "picture-tools" }, back, onward, close), stage, row, facts);
  row.hidden = !model.table.embeddings; // where there may be some, their place is kept free
  close.addEventListener("click", () => dialog.close());
  back.addEventListener("click", () => walk(-1));
  onward.addEventListener("click", () => walk(1));
  startStage(() => dialog.close());
  dialog.addEventListener("close", closed);
  on("open", openPlace);
  on("cut", showVerdict);
  on("rating", ({ row, place, ...rating }) => {
    if (shown?.row !== row) return;
    Object.assign(shown, rating);
    showVerdict();
    showRating();
  });
  window.addEventListener("popstate", () => {
    const wanted = new URLSearchParams(location.hash.slice(1)).get("picture");
    if (!wanted && dialog.open) dialog.close();
    else if (wanted && Number(wanted) !== model.picture) openRow(Number(wanted));
  });
}

async function openPlace(place) {
  const [picture] = await fetchPlaces(place, place + 1);
  if (picture) show(picture, place);
}

export async function openRow(row) {
  try {
    const picture = await ask(`/api/picture/${row}`, model.filter);
    show(picture, picture.place);
    if (picture.place >= 0) setActive(picture.place);
  } catch (error) {
    emit("trouble", error);
  }
}

export async function walk(steps) {
  if (!shown || shown.place < 0) return;
  const position = positionOf(model.active) + steps; // the one shown may still be coming
  if (position < 0 || position >= model.view.images) return;
  const place = placeOf(position);
  setActive(place);
  await openPlace(place);
}

function closed() {
  shown = null;
  turn++;
  model.picture = null;
  history.replaceState(null, "", `/${toHash()}`);
  stage.replaceChildren();
  unzoom();
  reveal(model.active);
  focusGrid();
}

async function show(picture, place) {
  const mine = ++turn;
  shown = { ...picture, place };
  const isFirst = !dialog.open;
  model.picture = picture.row;
  if (isFirst) {
    history.pushState(null, "", `/${toHash()}`);
    dialog.showModal();
    close.focus({ preventScroll: true });
  } else history.replaceState(null, "", `/${toHash()}`);
  dialog.setAttribute("aria-label", `${picture.name}, ${measure()} ${score(picture.score, digits())}`);
  back.disabled = place < 0 || positionOf(place) === 0;
  onward.disabled = place < 0 || positionOf(place) === model.view.images - 1;
  showStage(picture, preload);
  showHead();
  await Promise.all([showFacts(picture, mine), showNeighbours(picture, mine)]);
}

async function preload() {
  const position = shown ? positionOf(shown.place) : -1;
  if (position < 0 || shown.place < 0) return;
  for (const next of [position + 1, position - 1]) {
    if (next < 0 || next >= model.view.images) continue;
    const [picture] = await fetchPlaces(placeOf(next), placeOf(next) + 1);
    new Image().src = sourceOf(picture);
  }
}

const head = element("div", { className: "facts-head" });
const verdict = element("span", { className: "verdict" });
const rating = element("div", { className: "rating", role: "group", "aria-label": "Rating" });
const whose = element("span", { className: "quiet" });
const rest = element("div", { className: "facts-rest" });

function showHead() {
  const figure = element("strong", { className: "figure", textContent: score(shown.score, digits()) || `no ${measure()}` });
  const name = element("p", { className: "name", dir: "auto", textContent: shown.name });
  head.replaceChildren(element("div", { className: "line" }, figure, verdict), rating, name);
  if (head.parentNode !== facts) facts.append(head, rest);
  if (!rating.firstChild) fillRating();
  showVerdict();
  showRating();
}

function showVerdict() {
  if (!shown) return;
  const isBefore = shown.place >= 0 ? shown.place < model.cut.place : shown.score !== null && shown.score >= model.cut.score;
  const isKept = isBefore && !shown.rejected;
  verdict.textContent = shown.rejected ? "rejected" : shown.score === null ? "" : isKept ? "kept" : "dropped";
  verdict.classList.toggle("kept", isKept);
}

// Stars to press, and a second time to take them away.
function fillRating() {
  for (let number = 1; number <= 5; number++) {
    const star = element("button", { type: "button", className: "star", textContent: "★", title: `${number} stars (${number})`, "aria-label": `${number} stars` });
    star.addEventListener("click", () => rate(shown, { stars: shown.stars === number ? 0 : number }));
    rating.append(star);
  }
  const reject = element("button", { type: "button", className: "reject", textContent: "Reject", title: "Reject (X)" });
  reject.addEventListener("click", () => rate(shown, { rejected: !shown.rejected }));
  rating.append(reject, whose);
}

function showRating() {
  const buttons = [...rating.querySelectorAll("button")];
  buttons.slice(0, 5).forEach((star, n) => {
    star.classList.toggle("on", n < shown.stars);
    star.setAttribute("aria-pressed", shown.stars === n + 1);
  });
  buttons[5].setAttribute("aria-pressed", shown.rejected);
  whose.textContent = shown.said_by === "file" ? "in the file" : "";
}

async function showFacts(picture, mine) {
  try {
    const facts = await ask(`/api/picture/${picture.row}`, model.filter);
    if (mine !== turn) return;
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

function members({ images, others }) {
  const shown = element("div", { className: "members" }, ...others.map((picture) => makeThumb(picture, MEMBER, () => openRow(picture.row))));
  const more = images - 1 - others.length;
  return element("section", {},
    element("h3", { textContent: `In a group of ${count(images)}` }), shown,
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
  row.replaceChildren();
  if (row.hidden) return;
  search?.abort();
  search = new AbortController();
  const { signal } = search;
  try {
    const found = await ask(`/api/neighbours/${picture.row}`, model.filter, signal);
    if (mine === turn) row.replaceChildren(...found.map((picture) => makeThumb(picture, NEIGHBOUR, () => openRow(picture.row))));
  } catch {
    // without neighbours the page is whole
  }
}
