// Slices: what the cut-off does to parts of the table, those furthest from the whole first.

import { ask } from "./api.js";
import { columnName, count, element, share } from "./format.js";
import { model, on, remember } from "./model.js";
import { toggleCondition } from "./filter.js";
import { makeBars, setBars } from "./bars.js";
import { percentOf, range } from "./histogram.js";

const host = document.getElementById("slices");
const WIDTH = 168; // px
const BARS = 42;

let dimensions = null;
let slices = [];
let found = null;
let sorting = 0;
let turn = 0;
let table = null;
let note = null;

export function startSlices() {
  on("show", () => model.show === "slices" && load());
  on("view", () => model.show === "slices" && load());
  on("cut", follow);
}

async function load() {
  const mine = ++turn;
  host.setAttribute("aria-busy", "true");
  if (!host.firstChild) host.append(element("p", { className: "quiet", textContent: "counting ..." }));
  try {
    dimensions ??= await ask("/api/dimensions");
    if (!table) build();
    if (!dimensions.length) return;
    if (!dimensions.includes(model.dimension)) model.dimension = dimensions[0];
    host.querySelector("select").value = model.dimension;
    const { first, kept } = model.view;
    const parameters = { ...model.filter, dimension: model.dimension, first, number: kept.length, kept: model.cut.kept };
    const answer = await ask("/api/slices", parameters);
    if (mine !== turn) return;
    found = answer;
    slices = answer.slices.map(makeSlice);
    follow();
    sort();
  } catch (error) {
    if (mine === turn) (note ?? host).textContent = error.message;
  } finally {
    if (mine === turn) host.removeAttribute("aria-busy");
  }
}

function build() {
  const choice = element("select", { id: "dimension" });
  choice.append(...dimensions.map((name) => element("option", { value: name, textContent: columnName(name) })));
  choice.addEventListener("change", () => {
    model.dimension = choice.value;
    remember();
    load();
  });
  note = element("p", { className: "quiet" });
  const head = ["Slice", "Images", "Scores", "Kept", "Off the whole"].map((name) => element("th", { scope: "col", textContent: name }));
  table = element("table", { className: "slices" }, element("thead", {}, element("tr", {}, ...head)), element("tbody"));
  if (!dimensions.length) {
    host.replaceChildren(element("p", { className: "empty", textContent: "There is nothing to slice by: all pictures are alike." }));
    return;
  }
  host.replaceChildren(
    element("div", { className: "page-head" }, element("label", { htmlFor: "dimension", textContent: "by" }), element("span", { className: "choose" }, choice), note),
    table,
  );
}

function makeSlice(slice) {
  const bars = makeBars();
  const name = element("button", { type: "button", className: "plain", dir: "auto", textContent: slice.name || "(empty)", title: `Filter by ${slice.name}` });
  name.addEventListener("click", () => toggleCondition(slice.where));
  const rate = element("td", { className: "number" });
  const bar = element("i");
  const words = element("span", { className: "lean-words" });
  const row = element("tr", {},
    element("th", { scope: "row" }, name), element("td", { className: "number", textContent: count(slice.images) }),
    element("td", {}, bars), rate, element("td", { className: "lean" }, words, element("span", { className: "lean-bar" }, bar)));
  const [low, high] = range();
  const { first, step } = model.view;
  const at = (score) => Math.min(Math.max(Math.round(score / step) - first, 0), slice.kept.length - 1);
  const edges = Array.from({ length: BARS + 1 }, (_, n) => slice.kept[at(low + (n / BARS) * (high - low))]);
  setBars(bars, edges.slice(1).map((size, n) => edges[n] - size), WIDTH);
  return { ...slice, row, rate, bar, words };
}

const keptOf = (slice) => {
  const { first, step } = model.view;
  const number = Math.round(model.cut.score / step) - first;
  if (number >= slice.kept.length) return 0;
  return slice.kept[Math.max(0, number)];
};

function follow() {
  if (model.show !== "slices" || !found) return;
  const whole = model.view.images ? model.cut.kept / model.view.images : 0;
  host.style.setProperty("--cut", percentOf(model.cut.score));
  for (const slice of slices) {
    const kept = keptOf(slice);
    const lean = kept / slice.images - whole;
    slice.distance = Math.abs(lean);
    slice.sure = sureDistance(kept, slice.images, whole);
    slice.rate.textContent = share(kept, slice.images);
    const points = Math.round(1000 * lean) / 10;
    slice.words.textContent = points ? `${points > 0 ? "+" : "−"}${Math.abs(points).toFixed(1)}` : "0.0";
    slice.bar.style.left = `${50 + Math.min(0, 50 * lean)}%`;
    slice.bar.style.width = `${50 * slice.distance}%`;
  }
  const others = found.others ? ` ${count(found.others)} more slices differ less.` : "";
  note.textContent = `The whole keeps ${share(model.cut.kept, model.view.images)}. Largest differences first; grey ones may be chance.${others}`;
  clearTimeout(sorting);
  sorting = setTimeout(sort, 500); // once the handle rests
}

// How far a share is from the whole's at least; 0 where chance may explain it. As the report has it: Wilson's interval, 99.9%.
function sureDistance(kept, images, share) {
  const z = 3.290527;
  const middle = (kept + (z * z) / 2) / (images + z * z);
  const half = (z / (images + z * z)) * Math.sqrt((kept * (images - kept)) / images + (z * z) / 4);
  return Math.max(middle - half - share, share - middle - half, 0);
}

function sort() {
  slices.sort((a, b) => b.sure - a.sure || b.distance - a.distance || b.images - a.images);
  const rows = slices.map((slice) => {
    slice.row.classList.toggle("chance", slice.sure === 0);
    return slice.row;
  });
  const body = table.tBodies[0];
  if (rows.length !== body.rows.length || rows.some((row, n) => body.rows[n] !== row)) body.replaceChildren(...rows);
}
