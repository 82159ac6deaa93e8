// The histogram is the control: bars of what is kept and dropped, and a handle between them.

import { makeBars, setBars } from "./bars.js";
import { count, element, score, share } from "./format.js";
import { cutAt, digits, keptAt, model, moveCut, on } from "./model.js";

const NICE = [1, 2, 5];

const host = document.getElementById("histogram");
const plot = host.querySelector(".plot");
const axis = host.querySelector(".axis");
const handle = document.getElementById("handle");
const body = document.querySelector("#histogram-table tbody");
const bars = makeBars();

let isDragging = false;

export const range = () => {
  const { low, high, step } = model.view;
  const room = Math.max((high - low) * 0.02, 2 * step);
  return [low - room, high + room];
};

export const percentOf = (value) => {
  const [low, high] = range();
  return `${100 * Math.min(Math.max((value - low) / (high - low), 0), 1)}%`;
};

export function startHistogram() {
  plot.prepend(bars);
  on("view", () => {
    draw();
    fillTable();
  });
  on("cut", place);
  new ResizeObserver(draw).observe(host);
  host.addEventListener("pointerdown", startDrag);
  host.addEventListener("pointermove", drag);
  for (const end of ["pointerup", "pointercancel"]) host.addEventListener(end, endDrag);
  handle.addEventListener("keydown", pressKey);
}

// Bars as narrow as the number of pictures bears: a dozen pictures want a dozen bars, a million want two hundred.
function draw() {
  const room = plot.clientWidth;
  if (!room) return;
  const [low, high] = range();
  const { step, images } = model.view;
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
  setBars(bars, counts, room, low / width - first, high / width - first);
  drawAxis(images ? room : 0);
  place();
}

function drawAxis(room) {
  const [low, high] = range();
  const wide = (tick) => (tick / (high - low)) * room >= 56; // px
  let tick = model.view.step;
  for (let power = tick; room && !wide(tick); power *= 10) tick = power * (NICE.find((factor) => wide(factor * power)) ?? 10);
  const places = Math.max(0, Math.ceil(-Math.log10(tick) - 1e-9));
  const ticks = [];
  for (let n = Math.ceil(low / tick); room && n * tick <= high; n++) {
    ticks.push(element("span", { style: `left: ${percentOf(n * tick)}`, textContent: (n * tick).toFixed(places) }));
  }
  axis.replaceChildren(...ticks);
}

function place() {
  const [low, high] = range();
  host.style.setProperty("--cut", percentOf(model.cut.score));
  handle.setAttribute("aria-valuemin", score(low, digits()));
  handle.setAttribute("aria-valuemax", score(high, digits()));
  handle.setAttribute("aria-valuenow", score(model.cut.score, 4));
  const { kept } = model.cut;
  const text = `${score(model.cut.score, digits())}, keeps ${count(kept)}, ${share(kept, model.view.images)}`;
  handle.setAttribute("aria-valuetext", text);
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
  const box = plot.getBoundingClientRect();
  cutAt(low + ((event.clientX - box.left) / box.width) * (high - low));
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
    const name = `${score(from, digits())} to ${score(from + width, digits())}`;
    rows.push(element("tr", {}, element("th", { scope: "row", textContent: name }), element("td", { textContent: count(size) })));
  }
  body.replaceChildren(...rows);
}
