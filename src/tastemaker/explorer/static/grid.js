// The grid: justified rows of which only those on screen exist, whatever their number.

import { dropCell, fillCell, makeCell, prepareImage, showMark } from "./cell.js";
import { fetchAround, peek, update } from "./chunks.js";
import { element } from "./format.js";
import { BESIDE, GAP, boxes, layOut, rowAt, rowOf } from "./layout.js";
import { want } from "./loader.js";
import { emit, isByScore, isKept, model, on, placeOf, positionOf, setActive, shownImages, shownShapes } from "./model.js";
import { clearPicked, pickTo, togglePick } from "./picked.js";
import { Scroller } from "./scroller.js";
import { columnsAt, heightAt, linesBelow } from "./sizes.js";

const OVERSCAN = 0.75; // screens above and below
const SETTLE_MS = 90;
const WORD = 140; // px that the word on the line takes
const UNFOLDED = 480; // px that one scrolls before header and cut-off fold

const frame = document.getElementById("scroller");
const grid = document.getElementById("grid");
const line = element("div", { className: "cut-line", role: "presentation" }, ...["over", "down", "under"].map((className) => element("i", { className })), element("span", { className: "word" }));

let layout = layOut(new Uint16Array(0), 100, 200);
let cells = new Map(); // position -> element
let scroller = null;
let waiting = 0;
let settling = 0;
let lastTop = 0;
let lastTime = 0;
let width = 0;

export function startGrid() {
  scroller = new Scroller(frame, grid, () => {
    fold();
    renderSoon();
  });
  document.getElementById("folded").addEventListener("click", () => scroller.moveTo(0));
  grid.append(line);
  on("view", () => relayOut(true));
  on("order", () => relayOut(true));
  on("sizes", () => relayOut(true));
  on("cut", showCut);
  on("active", markActive);
  on("picked", () => cells.forEach(markPicked));
  on("ratings", (ratings) => {
    update(new Map(ratings.map(({ row, place, ...rating }) => [row, rating])));
    for (const cell of cells.values()) if (cell.picture) showMark(cell);
  });
  new ResizeObserver(() => {
    if (grid.clientWidth && grid.clientWidth !== width) relayOut(false);
    else renderSoon();
  }).observe(frame);
  grid.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    if (event.target.matches(".stack:not(.best)")) {
      setActive(cell.place);
      return emit("open-stack", cell.picture);
    }
    if (event.shiftKey) pickTo(cell.place);
    else if (event.ctrlKey || event.metaKey) togglePick(cell.place);
    else clearPicked();
    setActive(cell.place);
    if (event.detail === 2 || window.matchMedia("(pointer: coarse)").matches) emit("open", cell.place);
  });
}

// While one scrolls, header and cut-off fold to a bar. What is on screen stays where it is.
function fold() {
  const { classList } = document.body;
  const isFolded = classList.contains("folded") ? scroller.top > 0 : scroller.top > UNFOLDED;
  if (isFolded === classList.contains("folded")) return;
  const before = frame.getBoundingClientRect().top;
  classList.toggle("folded", isFolded);
  const moved = before - frame.getBoundingClientRect().top;
  if (isFolded) scroller.moveTo(scroller.top - moved);
}

export const focusGrid = () => grid.focus({ preventScroll: true });

// Lay out anew. The picture at the upper edge stays there, or the active one is brought on screen.
function relayOut(isNew) {
  const before = layout.rows ? placeOf(Math.min(layout.starts[rowAt(layout, scroller.top)], shownImages() - 1)) ?? 0 : 0;
  width = grid.clientWidth || 100;
  layout = layOut(shownShapes(), width, heightAt(width), columnsAt(width), linesBelow());
  for (const cell of cells.values()) dropCell(cell);
  cells = new Map();
  const kept = isNew ? model.active : before;
  const row = rowOf(layout, Math.max(0, positionOf(kept)));
  const isFirst = positionOf(kept) < layout.starts[1];
  scroller.setHeight(layout.height, isFirst ? 0 : layout.tops[row] - (isNew ? scroller.room / 3 : 0));
  document.getElementById("empty").hidden = shownImages() > 0;
  frame.hidden = shownImages() === 0;
  showCut();
  markActive();
}

function renderSoon() {
  if (!waiting) waiting = requestAnimationFrame(render);
}

function render() {
  waiting = 0;
  if (!layout.rows) return;
  const { room, top } = scroller;
  const now = performance.now();
  const speed = Math.abs(top - lastTop) / Math.max(1, now - lastTime); // px in a ms
  lastTop = top;
  lastTime = now;
  const first = rowAt(layout, top - OVERSCAN * room);
  const last = rowAt(layout, top + (1 + OVERSCAN) * room);
  const from = layout.starts[first];
  const to = layout.starts[last + 1];
  for (const [position, cell] of cells) {
    if (position >= from && position < to) continue;
    if (cell.contains(document.activeElement)) continue;
    dropCell(cell);
    cells.delete(position);
  }
  const missing = [];
  for (let row = first; row <= last; row++) {
    for (const [position, left, wide] of boxes(layout, row)) {
      let cell = cells.get(position);
      if (!cell) {
        cell = makeCell(position, placeOf(position));
        cell.style.left = `${left}px`;
        cell.style.width = `${wide}px`;
        cell.firstChild.style.height = `${layout.heights[row]}px`;
        cell.row = row;
        cells.set(position, cell);
        missing.push(cell);
      }
      cell.style.top = `${layout.tops[row] - scroller.offset}px`;
    }
  }
  grid.append(...missing);
  for (const cell of missing) {
    markKept(cell);
    markPicked(cell);
  }
  placeLine();
  markActive();
  clearTimeout(settling);
  if (speed > room / 100) settling = setTimeout(fill, SETTLE_MS); // flying past: no requests
  else fill();
}

// Fetch what the cells on screen stand for, and show it.
async function fill() {
  if (!cells.size) return;
  const wanted = [...cells.keys()];
  showKnown();
  if (wanted.every((position) => peek(placeOf(position)))) return;
  await fetchAround(Math.min(...wanted), Math.max(...wanted) + 1);
  showKnown();
}

function showKnown() {
  const { top, room } = scroller;
  const from = layout.tops[rowAt(layout, top)];
  // What is on screen comes first, from its upper edge; then what is below, then what is above.
  const turn = (cell) => layout.tops[cell.row] - from + (layout.tops[cell.row] < from ? 3 * room : 0);
  const sorted = [...cells.values()].sort((a, b) => turn(a) - turn(b) || a.place - b.place);
  for (const cell of sorted) {
    const picture = cell.picture ? null : peek(cell.place);
    if (picture) fillCell(cell, picture);
  }
  want(sorted.map((cell) => prepareImage(cell, layout.heights[cell.row])).filter(Boolean));
}

function markKept(cell) {
  cell.classList.toggle("kept", isKept(cell.place));
}

function markPicked(cell) {
  const isPicked = model.picked.size > 1 && model.picked.has(cell.place);
  cell.classList.toggle("picked", isPicked);
  cell.setAttribute("aria-selected", isPicked || cell === marked);
}

function showCut() {
  for (const cell of cells.values()) markKept(cell);
  placeLine();
}

// The line runs where kept ends: below a row up to the last kept picture, up beside it, and on above the rest of the row.
function placeLine() {
  const { images } = model.view;
  const { place, name } = model.cut;
  const boundary = model.order === "best" ? place : images - place; // first position on the other side
  line.hidden = !isByScore() || boundary <= 0 || boundary >= images || !layout.rows;
  if (line.hidden) return;
  const row = rowOf(layout, boundary);
  const isBetween = layout.starts[row] === boundary;
  const top = layout.tops[row] - scroller.offset - GAP / 2;
  const high = layout.heights[row] + layout.label + GAP;
  const box = isBetween ? null : boxes(layout, row).find(([position]) => position === boundary);
  const at = box ? box[1] - BESIDE / 2 : 0;
  line.style.transform = `translateY(${top}px)`;
  line.style.height = `${isBetween ? 0 : high}px`;
  line.style.setProperty("--at", `${at}px`);
  line.classList.toggle("stepped", !isBetween);
  line.classList.toggle("left", at > width - WORD);
  line.lastChild.textContent = `cut-off ${name}`;
}

let marked = null;

function markActive() {
  const cell = cells.get(positionOf(model.active));
  if (marked && marked !== cell) {
    marked.classList.remove("active");
    marked.setAttribute("aria-selected", marked.classList.contains("picked"));
  }
  marked = cell ?? null;
  if (!cell) {
    grid.removeAttribute("aria-activedescendant");
    return;
  }
  cell.classList.add("active");
  cell.setAttribute("aria-selected", "true");
  grid.setAttribute("aria-activedescendant", cell.id);
}

// Bring a place on screen.
export function reveal(place, isCentred = false) {
  if (!layout.rows) return;
  const row = rowOf(layout, positionOf(place));
  const top = layout.tops[row];
  const high = layout.heights[row] + layout.label + GAP;
  const { top: shown, room } = scroller;
  const wasFolded = document.body.classList.contains("folded");
  if (isCentred) scroller.moveTo(top - (room - high) / 2);
  else if (top < shown) scroller.moveTo(top - GAP / 2);
  else if (top + high > shown + room) scroller.moveTo(top + high - room);
  render();
  markActive();
  if (document.body.classList.contains("folded") !== wasFolded) reveal(place, isCentred); // there is another room now
}

export function moveActive(key) {
  const position = positionOf(model.active);
  const row = rowOf(layout, position);
  const last = shownImages() - 1;
  const screen = Math.max(1, rowAt(layout, scroller.top + scroller.room) - rowAt(layout, scroller.top) - 1);
  const target = {
    ArrowLeft: () => position - 1,
    ArrowRight: () => position + 1,
    ArrowUp: () => across(row, row - 1, position),
    ArrowDown: () => across(row, row + 1, position),
    PageUp: () => across(row, Math.max(0, row - screen), position),
    PageDown: () => across(row, Math.min(layout.rows - 1, row + screen), position),
    Home: () => 0,
    End: () => last,
  }[key]();
  const place = placeOf(Math.min(Math.max(target, 0), last));
  setActive(place);
  reveal(place);
  frame.scrollIntoView({ block: "nearest" }); // in a low window the page itself scrolls
}

// The picture of another row that lies under or over this one.
function across(from, to, position) {
  if (to < 0 || to >= layout.rows) return position;
  const [, left, wide] = boxes(layout, from).find(([p]) => p === position);
  const middle = left + wide / 2;
  const distance = ([, l, w]) => Math.abs(l + w / 2 - middle);
  return boxes(layout, to).reduce((best, box) => (distance(box) < distance(best) ? box : best))[0];
}

export const gridState = () => ({ top: scroller.top, cells: cells.size, height: layout.height, rows: layout.rows });
