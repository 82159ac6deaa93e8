// The histogram is the control: bars of what is kept and dropped, and a handle between them.

import { count, element, score, share } from "./format.js";
import { counted, cutAt, digits, model, moveCut, on, placeAt } from "./model.js";

const SVG = "http://www.w3.org/2000/svg";
const RANGES = 20; // of the table for those who hear it

const host = document.getElementById("histogram");
const axis = host.querySelector(".axis");
const flag = host.querySelector(".flag");
const handle = document.getElementById("handle");
const caption = document.querySelector("#histogram-table caption");
const body = document.querySelector("#histogram-table tbody");

// Bars as the server draws them, twice: the second ones in the colour of what passes, from --cut on. Behind them those of all.
export function makeBars(path, ghost = "") {
  const svgs = [...(ghost ? ["ghost"] : []), "", "passing"].map((name) => {
    const svg = document.createElementNS(SVG, "svg");
    const drawn = document.createElementNS(SVG, "path");
    for (const [key, value] of [["class", name], ["viewBox", "0 0 1000 100"], ["preserveAspectRatio", "none"]]) svg.setAttribute(key, value);
    drawn.setAttribute("d", name === "ghost" ? ghost : path);
    svg.append(drawn);
    return svg;
  });
  return element("div", { className: "bars", "aria-hidden": "true" }, ...svgs);
}

// Where the cut-off lies on the axis: at its end where pictures are kept for their variety.
export const cutPercent = () => {
  const { view: { low, high }, cut: { score: value, places } } = model;
  return `${places ? 100 : 100 * Math.min(Math.max((value - low) / (high - low), 0), 1)}%`;
};

export function startHistogram() {
  on("view", draw);
  on("cut", place);
  handle.addEventListener("input", () => cutAt(Number(handle.value) * model.view.step));
  handle.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 10, ArrowUp: 10, ArrowLeft: -10, ArrowDown: -10 }[event.key];
    if (!steps || !event.shiftKey) return;
    event.preventDefault();
    moveCut(steps);
  });
}

function draw() {
  const { bars, ghost, ticks, low, high, step, images } = model.view;
  host.querySelector(".bars").replaceWith(makeBars(bars, ghost));
  handle.min = Math.round(low / step);
  handle.max = Math.round(high / step);
  axis.replaceChildren(...(images || ghost ? ticks : []).map(([text, percent], n) => element("span", { className: n % 2 ? "odd" : "", style: `left: ${percent}%`, textContent: text })));
  axis.classList.toggle("long", ticks.some(([text]) => text.length > 4));
  fillTable();
  place();
}

function place() {
  const { score: value, kept, name, places } = model.cut;
  host.style.setProperty("--cut", cutPercent());
  handle.disabled = !model.view.images || Boolean(places);
  handle.value = Math.round(value / model.view.step);
  handle.setAttribute("aria-valuetext", `${name}, keeps ${count(kept)}, ${share(kept, counted())}`);
  flag.textContent = name;
  flag.style.setProperty("--letters", name.length);
}

function fillTable() {
  const { low, high, step } = model.view;
  const width = Math.max(step, Math.ceil((high - low) / RANGES / step) * step);
  const rows = [];
  for (let from = low; from < high; from += width) {
    const size = placeAt(from) - placeAt(from + width);
    if (!size) continue;
    const name = `${score(from, digits())} to ${score(from + width, digits())}`;
    rows.push(element("tr", {}, element("th", { scope: "row", textContent: name }), element("td", { textContent: count(size) })));
  }
  caption.textContent = `How many images lie in which range of ${model.view.like ? "likeness to the words" : "scores"}`;
  body.replaceChildren(...rows);
}
