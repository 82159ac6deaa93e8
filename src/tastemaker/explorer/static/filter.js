// The filter's drawer: a part of the text, words to rank by, and a condition in SQL. Facets are in facets.js.

import { button, count, element } from "./format.js";
import { focusGrid } from "./grid.js";
import { allImages, changeFilter, emit, isFiltered, model, on, setPart, UNFILTERED } from "./model.js";

const form = document.getElementById("filter");
const toggle = document.getElementById("filter-toggle");
const text = document.getElementById("filter-text");
const like = document.getElementById("filter-like");
const where = document.getElementById("filter-where");
const error = document.getElementById("filter-error");
const groups = document.getElementById("group-label");
const groupBox = document.getElementById("group");

const WORDS_PAUSE_MS = 900; // in typing words, before they are searched for
let pausing = 0;

export function startFilter() {
  toggle.addEventListener("click", () => show(form.hidden));
  document.getElementById("filter-close").addEventListener("click", () => show(false));
  form.addEventListener("keydown", (event) => event.key === "Escape" && !event.defaultPrevented && show(false));
  on("filter-open", () => show(true));
  on("view", reflect);
  on("order", showState);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    apply(typed());
  });
  like.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !like.value) return;
    event.preventDefault();
    like.value = ""; // the next one closes
    apply({ like: "" });
  });
  where.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    apply(typed());
  });
  for (const [field, pause, changes] of [[text, 250, () => ({ text: text.value })], [like, WORDS_PAUSE_MS, () => ({ like: like.value })]]) {
    field.addEventListener("input", () => {
      clearTimeout(pausing);
      pausing = setTimeout(() => apply(changes()), pause);
    });
  }
  const { embeddings } = model.table;
  like.hidden = document.querySelector("label[for=filter-like]").hidden = !embeddings;
  document.getElementById("filter-no-words").hidden = embeddings;
  document.getElementById("filter-clear").addEventListener("click", clear);
  groups.hidden = !model.table.groups;
  groupBox.addEventListener("change", async () => {
    groups.setAttribute("aria-busy", "true"); // the first time groups are looked for, which takes a while in a large table
    await apply({ group: groupBox.checked ? "best" : "" }).finally(() => {
      groups.removeAttribute("aria-busy");
      groupBox.checked = model.filter.group === "best";
    });
  });
  fillColumns();
}

const typed = () => ({ text: text.value, like: like.value, where: where.value });

export function clear() {
  text.value = like.value = where.value = "";
  if (model.part) setPart("");
  return apply(UNFILTERED);
}

export async function apply(changes) {
  clearTimeout(pausing);
  error.textContent = "";
  form.classList.add("working");
  try {
    await changeFilter(changes);
  } catch (failure) {
    if (form.hidden) throw failure; // nobody would see it here
    error.textContent = failure.message.split("\n")[0];
  } finally {
    form.classList.remove("working");
  }
}

// Add a condition to the filter, or take it out where it is there.
export function toggleCondition(condition) {
  const parts = where.value.trim() ? where.value.split(/\s+AND\s+(?![^']*'(?:[^']*'[^']*')*[^']*$)/i).map((part) => part.trim()) : [];
  const kept = parts.filter((part) => part !== condition);
  if (kept.length === parts.length) kept.push(condition);
  where.value = kept.join(" AND ");
  return apply({ where: where.value });
}

let opener = null; // what had the focus

function show(isShown) {
  if (isShown) opener = document.activeElement;
  form.hidden = !isShown;
  toggle.setAttribute("aria-expanded", isShown);
  if (isShown) emit("filter-shown");
  if (isShown) text.focus();
  else if (opener === toggle) toggle.focus();
  else focusGrid();
}

function fillColumns() {
  const columns = model.table.columns.map(([name, kind]) => {
    const add = () => {
      where.value = `${where.value.trim()}${where.value.trim() ? " AND " : ""}${name} `;
      where.focus();
    };
    return element("li", {}, button(name, add, { title: kind, className: "plain" }), " ", element("span", { className: "quiet", textContent: plainKind(kind) }));
  });
  document.getElementById("filter-columns").append(...columns);
}

const plainKind = (kind) => (/string/.test(kind) && !/list|struct/.test(kind) ? "text" : /^(u?int|float|double|half)/.test(kind) ? "number" : kind.split("<")[0]);

function reflect() {
  const { filter } = model;
  groupBox.checked = filter.group === "best";
  if (document.activeElement !== text) text.value = filter.text;
  if (document.activeElement !== like) like.value = filter.like;
  if (document.activeElement !== where) where.value = filter.where;
  document.getElementById("filter-count").textContent = isFiltered() ? `${count(model.view.images)} of ${count(allImages())}` : "";
  showState();
}

// How many ways of filtering are in use, also where the drawer is closed.
function showState() {
  const number = Object.keys(UNFILTERED).filter((name) => model.filter[name]).length + Number(Boolean(model.part));
  toggle.textContent = number ? `Filter (${number})` : "Filter";
  toggle.classList.toggle("on", number > 0);
  document.getElementById("filter-clear").disabled = !number;
}
