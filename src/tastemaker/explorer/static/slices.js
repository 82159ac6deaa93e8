// Slices: what the cut-off does to parts of the table, the largest differences first, as the report has them.

import { ask, turns } from "./api.js";
import { toggleCondition } from "./filter.js";
import { button, columnName, count, element, share } from "./format.js";
import { cutPercent, makeBars } from "./histogram.js";
import { counted, cutText, model, on, remember } from "./model.js";

const host = document.getElementById("slices");
const REST_MS = 120; // of the handle, before they are counted again

let waiting = 0;
const turn = turns();

export function startSlices() {
  for (const event of ["show", "view"]) on(event, load);
  on("cut", () => {
    clearTimeout(waiting);
    waiting = setTimeout(load, REST_MS);
  });
}

async function load() {
  if (model.show !== "slices") return;
  const signal = turn();
  host.setAttribute("aria-busy", "true");
  if (!host.firstChild) host.append(element("p", { className: "quiet", textContent: "counting ..." }));
  try {
    show(await ask("/api/slices", { ...model.filter, dimension: model.dimension, cut: cutText() }, signal));
  } catch (error) {
    if (!signal.aborted) host.replaceChildren(element("p", { className: "empty wrong", textContent: error.message }));
  } finally {
    if (!signal.aborted) host.removeAttribute("aria-busy");
  }
}

function show({ dimensions, title, slices, others }) {
  if (!dimensions.length) {
    host.replaceChildren(element("p", { className: "empty", textContent: "There is nothing to slice by: all pictures are alike." }));
    return;
  }
  const hadFocus = document.activeElement?.id === "dimension";
  const choice = element("select", { id: "dimension" }, ...dimensions.map((name) => element("option", { value: name, textContent: columnName(name) })));
  choice.value = title;
  choice.addEventListener("change", () => {
    model.dimension = choice.value;
    remember();
    load();
  });
  const more = others ? ` ${count(others)} more slices differ less.` : "";
  const note = `The cut keeps ${share(model.cut.kept, counted())} of all. Largest differences first; grey ones may be chance.${more}`;
  const head = [["slice"], ["images"], [model.view.like ? "likeness" : "scores", "histogram"], ["keeps"], ["", "drawn"], ["difference"]];
  const heads = head.map(([name, kind]) => element(name ? "th" : "td", { className: kind, textContent: name }));
  const farthest = Math.max(0.05, ...slices.map((slice) => Math.abs(slice.difference)));
  host.style.setProperty("--cut", cutPercent());
  host.replaceChildren(
    element("div", { className: "page-head" }, element("label", { htmlFor: "dimension", textContent: "by" }),
      element("span", { className: "choose" }, choice), element("p", { className: "quiet", textContent: note })),
    element("table", { className: "slices" }, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...slices.map((slice) => makeRow(slice, farthest)))),
  );
  if (hadFocus) choice.focus();
}

function makeRow(slice, farthest) {
  const name = button(slice.name || "(empty)", () => toggleCondition(slice.where), { className: "plain", dir: "auto", title: `Filter by ${slice.name}` });
  const length = (50 * Math.abs(slice.difference)) / farthest;
  const drawn = element("div", { style: `--left: ${slice.difference > 0 ? 50 : 50 - length}%; --width: ${length}%` });
  const points = `${slice.difference > 0 ? "+" : ""}${(100 * slice.difference).toFixed(1)}`.replace(/^[+-]0\.0$/, "0.0").replace("-", "−");
  return element("tr", { className: slice.is_chance ? "chance" : "" },
    element("th", { scope: "row" }, name), element("td", { textContent: count(slice.scored) }),
    element("td", { className: "histogram" }, makeBars(slice.bars)), element("td", { textContent: share(slice.kept, slice.scored) }),
    element("td", { className: "drawn", "aria-hidden": "true" }, drawn), element("td", { className: "difference", textContent: points }));
}
