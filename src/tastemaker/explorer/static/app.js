// Puts the page together.

import { ask, setStamp } from "./api.js";
import { startChunks } from "./chunks.js";
import { startExports } from "./exports.js";
import { startFacets } from "./facets.js";
import { startFailures } from "./failures.js";
import { startFigures } from "./figures.js";
import { apply, clear, startFilter } from "./filter.js";
import { button, columnName, count, element, images } from "./format.js";
import { focusGrid, gridState, reveal, startGrid } from "./grid.js";
import { startFlow } from "./flow.js";
import { startHistogram } from "./histogram.js";
import { startKeys } from "./keys.js";
import { allImages, emit, fromHash, isFiltered, loadView, measure, model, on, setOrder, setShow, shownImages, UNFILTERED } from "./model.js";
import { firstRows, startNews } from "./news.js";
import { startPicked } from "./picked.js";
import { openRow, startPicture } from "./picture.js";
import { startRatings, tell } from "./ratings.js";
import { keep, settings } from "./settings.js";
import { startSizes } from "./sizes.js";
import { startSlices } from "./slices.js";
import { startStacks } from "./stacks.js";
import { startStrip } from "./strip.js";
import { startTaste } from "./taste.js";
import { startTheme } from "./theme.js";
import { startVaried } from "./varied.js";

const about = document.getElementById("about");
const order = document.getElementById("order");
const by = document.getElementById("by");

async function start() {
  history.replaceState(null, "", `/${location.hash}`); // the token is in a cookie now
  startRatings();
  fromHash();
  startTheme();
  model.table = await ask("/api/table").catch(() => firstRows().then(() => ask("/api/table")));
  setStamp(model.table.stamp);
  document.title = `${model.table.name} - tastemaker`;
  for (const part of [startChunks, startPicked, startHistogram, startFigures, startVaried, startSizes, startGrid, startStrip, startFilter, startFacets]) part();
  for (const part of [startSlices, startTaste, startFailures, startPicture, startFlow, startStacks, startExports, startKeys]) part();
  startHeader();
  const { picture } = model;
  try {
    await loadView();
  } catch (error) {
    tell(error.message, true);
    Object.assign(model.filter, { by: "", ...UNFILTERED });
    await loadView();
  }
  if (!model.view.images && model.view.unscored && !isFiltered()) model.show = "failures"; // there is nothing else to look at
  emit("show");
  if (model.active) reveal(model.active, true);
  if (picture !== null) openRow(picture);
  document.body.classList.add("ready");
  startNews();
}

const ORDERS = { oldest: "oldest first", newest: "newest first", stars: "most stars first", name: "by file name" };

function startHeader() {
  on("view", showAbout);
  on("show", showView);
  order.append(...model.table.orders.map((name) => element("option", { value: name, textContent: ORDERS[name] })));
  if (![...order.options].some(({ value }) => value === model.order)) model.order = "best"; // a mangled address
  order.value = model.order;
  order.addEventListener("change", () => setOrder(order.value));
  for (const event of ["view", "order"]) on(event, showOrder);
  by.addEventListener("change", () => apply({ by: by.value }));
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => setShow(button.dataset.show));
  }
  const intro = document.getElementById("intro");
  intro.hidden = Boolean(settings.isIntroduced);
  intro.querySelector("button").addEventListener("click", () => {
    keep({ isIntroduced: true });
    intro.hidden = true;
    focusGrid();
  });
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    focusGrid();
  });
}

function showAbout() {
  const { name, images: all, deleted, ranked_by: columns } = model.table;
  const { images: shown, unscored, by: ranked, like } = model.view;
  about.replaceChildren(element("span", { textContent: name }), " · ", isFiltered() ? `${count(shown)} of ` : "", count(allImages()), element("span", { className: "spare", textContent: allImages() === 1 ? " image" : " images" }));
  if (deleted) about.append(` · ${count(deleted)} gone`);
  by.replaceChildren(...columns.map((name) => element("option", { value: name, textContent: columnName(name).replace(/ score$/, "") })));
  by.value = ranked;
  document.getElementById("by-label").hidden = columns.length < 2 || Boolean(like);
  document.getElementById("grid").setAttribute("aria-label", `Pictures by ${measure()}`);
  document.body.classList.toggle("nothing", !shown && !isFiltered());
  const empty = document.getElementById("empty");
  const offer = (name, action) => button(name, action, { className: "offer" });
  if (!all) empty.textContent = "There are no rows in this table yet.";
  else if (isFiltered() && !shown) empty.replaceChildren("No picture passes the filter. ", offer("Clear the filter", clear));
  else if (!shown) empty.replaceChildren(`None of ${images(unscored)} has a score. `, offer("Show why", () => setShow("failures")));
}

function showOrder() {
  order.value = model.order;
  if (model.view.images && !shownImages()) document.getElementById("empty").textContent = `Nothing is ${model.part} at this cut-off.`;
}

function showView() {
  for (const name of ["pictures", "slices", "taste", "failures"]) document.getElementById(name).hidden = model.show !== name;
  for (const button of document.querySelectorAll("[data-show]")) {
    button.setAttribute("aria-pressed", button.dataset.show === model.show);
  }
}

window.tastemaker = { model, gridState }; // for the console, and for tests

start().catch((error) => {
  about.textContent = `The page cannot start: ${error.message}`;
  about.classList.add("wrong");
});
