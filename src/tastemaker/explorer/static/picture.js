// A picture over the page: as large as fits, with all that is known of it, and the pictures that look like it.

import { ask, thumbnail, view, whyNot } from "./api.js";
import { altText } from "./cell.js";
import { fetchPlaces } from "./chunks.js";
import { columnName, count, element, score, stars } from "./format.js";
import { focusGrid, reveal } from "./grid.js";
import { digits, emit, model, on, placeOf, positionOf, setActive, toHash } from "./model.js";

const NEIGHBOUR = 72; // px high
const MEMBER = 56; // px high, of a picture's group

const dialog = document.getElementById("picture");
const stage = element("div", { className: "stage" });
const facts = element("aside", { className: "facts", tabIndex: 0 });
facts.setAttribute("aria-label", "About this picture");
const row = element("div", { className: "neighbour-row", role: "group" });
row.setAttribute("aria-label", "Pictures that look like it");
const close = element("button", { type: "button", textContent: "Close", className: "close" });
const back = element("button", { type: "button", textContent: "Previous", className: "step back" });
const onward = element("button", { type: "button", textContent: "Next", className: "step onward" });

let shown = null; // the picture
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
  stage.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", closed);
  on("open", openPlace);
  on("cut", showVerdict);
  on("rating", ({ row, stars: number, rejected }) => {
    if (shown?.row !== row) return;
    Object.assign(shown, { stars: number, rejected });
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
  dialog.setAttribute("aria-label", `${picture.name}, score ${score(picture.score, digits())}`);
  back.disabled = place < 0 || positionOf(place) === 0;
  onward.disabled = place < 0 || positionOf(place) === model.view.images - 1;
  showStage(picture, mine);
  showHead();
  await Promise.all([showFacts(picture, mine), showNeighbours(picture, mine)]);
}

// The thumbnail at once, the large picture over it when it is here.
function showStage(picture, mine) {
  const box = element("div", { className: "fit" });
  const { width = 1, height = 1 } = { width: picture.width || 1, height: picture.height || 1 };
  const fit = () => {
    const scale = Math.min(stage.clientWidth / width, stage.clientHeight / height, 1.5);
    box.style.width = `${Math.max(1, Math.floor(width * scale))}px`;
    box.style.height = `${Math.max(1, Math.floor(height * scale))}px`;
    return Math.max(width, height) * scale;
  };
  const small = element("img", { alt: "", className: "small", src: thumbnail(picture.row, 160), draggable: false });
  const large = element("img", { alt: altText(picture), className: "large", draggable: false });
  box.append(small, large);
  stage.replaceChildren(box);
  const size = fit();
  stage.fit = fit;
  large.addEventListener("load", () => {
    large.classList.add("here");
    small.remove(); // it may be of another shape, where EXIF turns the picture
    if (mine === turn) preload();
  });
  large.addEventListener("error", async () => {
    const reason = await whyNot(large.src);
    if (mine === turn) stage.replaceChildren(element("p", { className: "no-picture", textContent: reason || "no picture" }));
  });
  large.src = view(picture.row, Math.min(size, Math.max(width, height)));
}

new ResizeObserver(() => stage.fit?.()).observe(stage);

async function preload() {
  const position = shown ? positionOf(shown.place) : -1;
  if (position < 0 || shown.place < 0) return;
  for (const next of [position + 1, position - 1]) {
    if (next < 0 || next >= model.view.images) continue;
    const [picture] = await fetchPlaces(placeOf(next), placeOf(next) + 1);
    const { width: w, height: h } = { width: picture.width || 1, height: picture.height || 1 };
    const scale = Math.min(stage.clientWidth / w, stage.clientHeight / h, 1.5);
    new Image().src = view(picture.row, Math.min(Math.max(w, h) * scale, Math.max(w, h)));
  }
}

const head = element("div", { className: "facts-head" });
const verdict = element("span", { className: "verdict" });
const rating = element("span", { className: "rating" });
const rest = element("div", { className: "facts-rest" });

function showHead() {
  const figure = element("strong", { className: "figure", textContent: score(shown.score, digits()) || "no score" });
  const name = element("p", { className: "name", dir: "auto", textContent: shown.name });
  head.replaceChildren(element("div", { className: "line" }, figure, verdict, rating), name);
  if (head.parentNode !== facts) facts.append(head, rest);
  showVerdict();
  showRating();
}

function showVerdict() {
  if (!shown) return;
  const isKept = shown.place >= 0 ? shown.place < model.cut.kept : shown.score !== null && shown.score >= model.cut.score;
  verdict.textContent = shown.score === null ? "" : isKept ? "kept" : "dropped";
  verdict.classList.toggle("kept", isKept);
}

function showRating() {
  rating.textContent = shown.rejected ? "rejected" : stars(shown.stars);
  rating.setAttribute("aria-label", shown.rejected ? "rejected" : `${shown.stars} stars`);
  rating.setAttribute("role", "img");
  rating.hidden = !shown.rejected && !shown.stars;
}

async function showFacts(picture, mine) {
  try {
    const facts = await ask(`/api/picture/${picture.row}`, model.filter);
    if (mine !== turn) return;
    const rank = facts.rank ? `${count(facts.rank)} of ${count(facts.of)}` : "";
    const percentile = facts.percentile === null ? "" : `better than ${facts.percentile.toFixed(1)} %`;
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
  return element("section", {}, element("h3", { textContent: name }), list);
}

function members({ images, others }) {
  const shown = element("div", { className: "members" }, ...others.map((picture) => makeNeighbour(picture, MEMBER)));
  const more = images - 1 - others.length;
  return element("section", {},
    element("h3", { textContent: `In a group of ${count(images)}` }), shown,
    ...(more > 0 ? [element("p", { className: "quiet", textContent: `and ${count(more)} more` })] : []));
}

const sidecar = (name, text) => element("section", {}, element("h3", { textContent: name }), element("pre", { dir: "auto", textContent: text }));

async function showNeighbours(picture, mine) {
  row.replaceChildren();
  if (row.hidden) return;
  search?.abort();
  search = new AbortController();
  const { signal } = search;
  try {
    const found = await ask(`/api/neighbours/${picture.row}`, {}, signal);
    if (mine === turn) row.replaceChildren(...found.map((picture) => makeNeighbour(picture, NEIGHBOUR)));
  } catch {
    // without neighbours the page is whole
  }
}

function makeNeighbour(picture, high) {
  const image = element("img", { alt: altText(picture), src: thumbnail(picture.row, high), draggable: false });
  const likeness = picture.similarity === undefined ? "" : `, similarity ${picture.similarity.toFixed(3)}`;
  const words = `${picture.name}: ${score(picture.score, digits()) || "no score"}${likeness}`;
  const button = element("button", { type: "button", title: words }, image);
  const aspect = picture.width && picture.height ? picture.width / picture.height : 1;
  image.addEventListener("load", () => button.classList.add("here"));
  image.addEventListener("error", () => button.classList.add("gone"));
  button.style.width = `${Math.round(high * Math.min(Math.max(aspect, 0.2), 4))}px`;
  button.addEventListener("click", () => openRow(picture.row));
  return button;
}
