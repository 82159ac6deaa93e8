// Your taste: what to rate next, what was learned from the ratings, what it is worth, and where it is saved.

import { ask, send } from "./api.js";
import { apply } from "./filter.js";
import { button, count, element } from "./format.js";
import { focusGrid } from "./grid.js";
import { UNFILTERED, changeFilter, model, on, setPart, setShow } from "./model.js";

const host = document.getElementById("taste");
const bar = document.getElementById("proposal");
const tab = document.querySelector("[data-show=taste]");

const REST_MS = 300; // after a rating, before the ratings are counted again

let state = null; // what /api/taste said
let waiting = 0;
let isLearning = false;
let refused = ""; // why it was not learned
let saved = ""; // what came of saving it

export function startTaste() {
  on("show", () => {
    if (model.show === "taste") load();
    showBar();
  });
  on("view", showBar);
  on("ratings", () => {
    clearTimeout(waiting);
    waiting = setTimeout(load, REST_MS);
  });
  on("progress", showBar);
  load();
}

const isProposing = () => model.filter.rated === "next";
const isDue = () => state !== null && !state.refusal && state.ratings >= state.needed;

async function load() {
  state = await ask("/api/taste");
  showAll();
}

function showAll() {
  show();
  showBar();
  tab.classList.toggle("due", isDue());
  tab.title = isDue() ? `${count(state.ratings)} ratings: enough to learn${state.learned ? " again" : ""}` : "";
}

async function learn() {
  isLearning = true;
  refused = saved = "";
  setShow("taste");
  show();
  try {
    state = await send("/api/taste/learn");
    if (!model.table.ranked_by.includes(state.name)) model.table.ranked_by.push(state.name);
    await apply({});
  } catch (error) {
    refused = error.message;
  }
  isLearning = false;
  showAll();
}

const propose = (event) => look(event.currentTarget, { ...UNFILTERED, rated: "next" });

const rank = (event) => look(event.currentTarget, { by: state.name, like: "", rated: "" });

// In a large table the embeddings are read first, which takes seconds: the button says that it works.
async function look(pressed, filter) {
  Object.assign(pressed, { disabled: true, textContent: "Looking ...", ariaBusy: "true" });
  try {
    await changeFilter(filter);
    if (model.part) setPart("");
    setShow("pictures");
    focusGrid();
  } finally {
    showAll();
  }
}

function learnButton() {
  if (isLearning) return button("Learning ...", null, { disabled: true, "aria-busy": "true" });
  const isMore = state.learned && state.ratings > state.learned.examples;
  const name = isMore ? `Learn again from ${count(state.ratings)} ratings` : state.learned ? "Learn again" : "Learn from my ratings";
  return button(name, learn, { className: isDue() ? "strong" : "offer", disabled: !state.learned && !isDue() });
}

function show() {
  if (model.show !== "taste" || !state) return;
  const { learned, refusal } = state;
  if (refusal) return host.replaceChildren(element("p", { className: "empty", textContent: refusal }));
  const isBetter = Boolean(learned) && learned.difference.low > 0;
  const isFocused = document.activeElement?.id === "taste-to";
  host.replaceChildren(
    element("h2", { textContent: learned ? `Your taste, learned from ${count(learned.examples)} ratings` : "Your taste" }),
    element("p", { textContent: advice() }),
    ...(learned ? [] : [element("progress", { max: state.needed, value: Math.min(state.ratings, state.needed), ariaLabel: "Ratings" })]),
    ...(learned ? [figures(learned), element("p", { className: "verdict", textContent: learned.verdict })] : []),
    ...(refused ? [element("p", { className: "wrong", role: "alert", textContent: refused })] : []),
    element("div", { className: "actions" },
      ...(learned && !isLearning ? [button("Rank by your taste", rank, { className: isBetter && !isDue() ? "strong" : "offer" })] : []),
      learnButton(),
      button("Show a dozen to rate", propose, { className: isBetter || isDue() ? "offer" : "strong" })),
    ...(learned ? [saving()] : []),
  );
  if (isFocused) document.getElementById("taste-to").focus();
}

function advice() {
  const { learned, ratings, needed } = state;
  if (!learned && isDue()) return `${count(ratings)} pictures are rated. That is enough to learn which you like.`;
  if (!learned) return `Rate ${needed} pictures, with the keys 1 to 5, or X for what you reject. Then the page can learn which you like, and rank all pictures by it. ${ratings === 1 ? "One is" : `${count(ratings)} are`} rated.`;
  const day = new Date(learned.learned_at).toLocaleDateString("en-GB", { dateStyle: "long" });
  const now = ratings > learned.examples ? ` There are ${count(ratings)} now${isDue() ? ", enough to learn again" : ""}.` : "";
  return `On ${day}, from your ${learned.source}.${now}`;
}

// The figures with their intervals, all on one scale.
function figures({ measure, own, reference, difference, gain, scorer }) {
  const rows = [["your taste", own], [scorer, reference], ["difference", difference], ["gained since half of the ratings", gain]];
  const low = Math.min(0, ...rows.map(([, figure]) => figure.low));
  const high = Math.max(...rows.map(([, figure]) => figure.high));
  const percent = (value) => `${(100 * (value - low)) / (high - low)}%`;
  const caption = `The ${measure} with your ratings (0 is chance), of pictures that it was not learned from`;
  const lines = rows.map(([name, { value, low: from, high: to }]) => {
    const style = `--zero: ${percent(0)}; --from: ${percent(from)}; --to: ${percent(to)}; --at: ${percent(value)}`;
    const drawn = element("div", { className: "interval", style }, ...["zero", "reach", "dot"].map((className) => element("i", { className })));
    return element("tr", {}, element("th", { scope: "row", textContent: name }), element("td", { textContent: number(value) }),
      element("td", { className: "quiet", textContent: `${number(from)} to ${number(to)}` }), element("td", { className: "spread", "aria-hidden": "true" }, drawn));
  });
  const heads = ["", "value", "95% interval"].map((textContent) => element(textContent ? "th" : "td", { textContent }));
  return element("table", { className: "figures-of-taste" }, element("caption", { textContent: caption }),
    element("thead", {}, element("tr", {}, ...heads, element("td", { className: "spread" }))), element("tbody", {}, ...lines));
}

const number = (value) => value.toFixed(2).replace("-", "−");

function saving() {
  const to = element("input", { type: "text", id: "taste-to", value: "mine.safetensors", autocomplete: "off", spellcheck: false, required: true });
  const result = element("p", { className: "quiet", role: "status", textContent: saved || `For --scorer. A relative path is below ${model.table.folder}` });
  const form = element("form", { className: "save-taste" }, element("label", { htmlFor: to.id, textContent: "Save as" }), to, element("button", { type: "submit", textContent: "Save" }), result);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    result.classList.remove("wrong");
    try {
      const path = await send("/api/taste/save", { to: to.value });
      result.textContent = saved = `Saved. Use it with --scorer ${path}`;
    } catch (error) {
      result.classList.add("wrong");
      result.textContent = error.message;
    }
  });
  return form;
}

// Above the dozen: what it is for, how far one is, and what comes next.
function showBar() {
  bar.hidden = !isProposing() || model.show !== "pictures";
  document.body.classList.toggle("proposing", !bar.hidden);
  document.body.classList.toggle("without-cut", !bar.hidden || ["taste", "failures"].includes(model.show));
  if (bar.hidden) return;
  const { images, rated } = model.view;
  const isDone = images > 0 && rated.size >= images;
  const text = !images ? "All pictures are rated." : isDone ? "All of these are rated." : "These tell most about your taste. Press 1 to 5, or X; with Shift it goes on to the next.";
  bar.replaceChildren(
    element("p", {}, text, " ", element("span", { className: "quiet", textContent: images ? `${rated.size} of ${images} rated` : "" })),
    ...(images ? [button("Another dozen", propose, { className: isDone ? "strong" : "offer" })] : []),
    ...(isDue() ? [button(state.learned ? "Learn again" : "Learn from my ratings", learn, { className: "offer" })] : []),
    button("Show all pictures", () => apply({ rated: "" }), { className: "offer" }),
  );
}
