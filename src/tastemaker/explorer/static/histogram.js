// The histogram is the control: bars of what is kept and dropped, and a handle between them.

import { count, score, share } from "./format.js";
import { cutAt, digits, keptAt, model, moveCut, on } from "./model.js";

const AXIS = 24; // px below the bars
const PADDING = 12; // px beside them, so that the handle's ends are within reach
const NICE = [1, 2, 5];

const host = document.getElementById("histogram");
const canvas = host.querySelector("canvas");
const handle = document.getElementById("handle");
const body = document.querySelector("#histogram-table tbody");

let bars = { from: 0, width: 1, counts: [], most: 1 };
let colours = null;
let isDragging = false;
let waiting = 0;

export const range = () => {
  const { low, high, step } = model.view;
  const room = Math.max((high - low) * 0.02, 2 * step);
  return [low - room, high + room];
};

export function startHistogram() {
  on("view", () => {
    countBars();
    fillTable();
    paint();
  });
  on("cut", paintSoon);
  on("theme", () => {
    colours = null;
    paint();
  });
  new ResizeObserver(() => {
    countBars();
    paint();
  }).observe(host);
  host.addEventListener("pointerdown", startDrag);
  host.addEventListener("pointermove", drag);
  for (const end of ["pointerup", "pointercancel"]) host.addEventListener(end, endDrag);
  handle.addEventListener("keydown", pressKey);
}

// Bars as narrow as the number of pictures bears: a dozen pictures want a dozen bars, a million want two hundred.
function countBars() {
  const [low, high] = range();
  const { step, images } = model.view;
  const room = Math.max(1, host.clientWidth - 2 * PADDING);
  const wanted = Math.min(room / 5, Math.max(14, 2 * images ** 0.4));
  let width = step;
  for (let power = step; ; power *= 10) {
    const found = NICE.find((factor) => (high - low) / (factor * power) <= wanted);
    width = found ? found * power : width;
    if (found || power > 1e9) break;
  }
  const first = Math.floor(low / width + 1e-9);
  const last = Math.ceil(high / width - 1e-9);
  const counts = [];
  for (let n = first; n < last; n++) counts.push(keptAt(n * width) - keptAt((n + 1) * width));
  bars = { from: first * width, width, counts, most: Math.max(1, ...counts) };
}

function paintSoon() {
  if (!waiting) waiting = requestAnimationFrame(paint);
}

const x = (value) => {
  const [low, high] = range();
  return PADDING + ((value - low) / (high - low)) * (host.clientWidth - 2 * PADDING);
};

function paint() {
  cancelAnimationFrame(waiting);
  waiting = 0;
  const { clientWidth: width, clientHeight: height } = host;
  if (!width) return;
  const scale = window.devicePixelRatio;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  colours ??= readColours();
  const paper = canvas.getContext("2d");
  paper.setTransform(scale, 0, 0, scale, 0, 0);
  paper.clearRect(0, 0, width, height);
  const at = Math.min(Math.max(x(model.cut.score), PADDING), width - PADDING);
  paintBars(paper, PADDING, at, colours.dropped, height - AXIS);
  paintBars(paper, at, width - PADDING, colours.accent, height - AXIS);
  paintAxis(paper, width, height);
  placeHandle(at);
}

function paintBars(paper, from, to, colour, floor) {
  paper.save();
  paper.beginPath();
  paper.rect(from, 0, to - from, floor);
  paper.clip();
  paper.fillStyle = colour;
  for (const [number, size] of bars.counts.entries()) {
    if (!size) continue;
    const left = x(bars.from + number * bars.width);
    const right = x(bars.from + (number + 1) * bars.width);
    if (right < from || left > to) continue;
    const tall = Math.max(1, (size / bars.most) * (floor - 8));
    paper.fillRect(left + 0.5, floor - tall, Math.max(1, right - left - 1), tall);
  }
  paper.restore();
}

function paintAxis(paper, width, height) {
  const floor = height - AXIS;
  paper.fillStyle = colours.line;
  paper.fillRect(PADDING, floor, width - 2 * PADDING, 1);
  paper.fillStyle = colours.quiet;
  paper.font = colours.font;
  paper.textAlign = "center";
  paper.textBaseline = "middle";
  if (!model.view.images) return;
  const [low, high] = range();
  let tick = model.view.step;
  for (let power = tick; x(low + tick) - x(low) < 56; power *= 10) {
    tick = power * (NICE.find((factor) => x(low + factor * power) - x(low) >= 56) ?? 10);
  }
  const places = Math.max(0, Math.ceil(-Math.log10(tick) - 1e-9));
  for (let n = Math.ceil(low / tick); n * tick <= high; n++) {
    const left = x(n * tick);
    if (left < 20 || left > width - 20) continue;
    paper.fillRect(Math.round(left), floor + 1, 1, 4);
    paper.fillText((n * tick).toFixed(places), left, floor + 15);
  }
}

function placeHandle(at) {
  const [low, high] = range();
  handle.style.transform = `translateX(${at}px)`;
  handle.setAttribute("aria-valuemin", score(low, digits()));
  handle.setAttribute("aria-valuemax", score(high, digits()));
  handle.setAttribute("aria-valuenow", score(model.cut.score, 4));
  const { kept } = model.cut;
  const text = `${score(model.cut.score, digits())}, keeps ${count(kept)}, ${share(kept, model.view.images)}`;
  handle.setAttribute("aria-valuetext", text);
}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return {
    accent: read("--accent"),
    dropped: read("--dropped"),
    line: read("--line"),
    quiet: read("--quiet"),
    font: `13px ${getComputedStyle(document.body).fontFamily}`,
  };
}

function startDrag(event) {
  if (event.button || !model.view.images) return;
  isDragging = true;
  host.setPointerCapture(event.pointerId);
  host.classList.add("dragging");
  handle.focus({ preventScroll: true });
  drag(event);
  event.preventDefault();
}

function drag(event) {
  if (!isDragging) return;
  const [low, high] = range();
  const box = host.getBoundingClientRect();
  const part = (event.clientX - box.left - PADDING) / (box.width - 2 * PADDING);
  cutAt(low + part * (high - low));
}

function endDrag() {
  isDragging = false;
  host.classList.remove("dragging");
}

function pressKey(event) {
  const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
  const { low, high } = model.view;
  if (steps) moveCut(event.shiftKey ? 10 * steps : steps);
  else if (event.key === "Home") cutAt(low);
  else if (event.key === "End") cutAt(high);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

// The same for those who hear it: about twenty ranges.
function fillTable() {
  const [low, high] = range();
  const { step } = model.view;
  const width = Math.max(step, Math.ceil((high - low) / 20 / step) * step);
  const rows = [];
  for (let from = Math.floor(low / width) * width; from < high && rows.length < 60; from += width) {
    const size = keptAt(from) - keptAt(from + width);
    if (!size) continue;
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = `${score(from, digits())} to ${score(from + width, digits())}`;
    const cell = document.createElement("td");
    cell.textContent = count(size);
    row.append(name, cell);
    rows.push(row);
  }
  body.replaceChildren(...rows);
}
