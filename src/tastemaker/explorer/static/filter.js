// The filter: a part of the text, words to rank by, a condition in SQL, and chips that write conditions.

import { element } from "./format.js";
import { changeFilter, emit, model, on } from "./model.js";

const form = document.getElementById("filter");
const toggle = document.getElementById("filter-toggle");
const text = document.getElementById("filter-text");
const like = document.getElementById("filter-like");
const where = document.getElementById("filter-where");
const error = document.getElementById("filter-error");
const chips = document.getElementById("filter-chips");
const groups = document.getElementById("group-label");
const groupBox = document.getElementById("group");

const PAUSE_MS = 900; // in typing words, before they are searched for
let pausing = 0;

const SIZES = [
  ["from 512 px", "least(width, height) >= 512"],
  ["from 1024 px", "least(width, height) >= 1024"],
];
const RATED = [["unrated", "unrated"], ["rejected", "rejected"], ["★", "1"], ["★★", "2"], ["★★★", "3"], ["★★★★", "4"], ["★★★★★", "5"]];

export function startFilter() {
  toggle.addEventListener("click", () => show(form.hidden));
  on("filter-open", () => show(true));
  on("view", reflect);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    apply(typed());
  });
  for (const field of [text, like, where]) {
    field.addEventListener("search", () => field.value || apply(typed()));
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      if (field !== like || !like.value) return show(false);
      event.preventDefault();
      like.value = ""; // the next one closes
      apply({ like: "" });
    });
  }
  like.addEventListener("input", () => {
    clearTimeout(pausing);
    pausing = setTimeout(() => apply({ like: like.value }), PAUSE_MS);
  });
  const { embeddings } = model.table;
  like.hidden = document.querySelector("label[for=filter-like]").hidden = !embeddings;
  document.getElementById("filter-no-words").hidden = embeddings;
  document.getElementById("filter-clear").addEventListener("click", clear);
  groups.hidden = !model.table.groups;
  groupBox.addEventListener("change", changeGroups);
  fillChips();
}

const typed = () => ({ text: text.value, like: like.value, where: where.value });

export const clear = () => apply({ text: "", like: "", where: "", rated: "", group: "" });

export async function apply(changes) {
  clearTimeout(pausing);
  error.textContent = "";
  form.classList.add("working");
  try {
    await changeFilter(changes);
  } catch (failure) {
    error.textContent = failure.message.split("\n")[0];
  } finally {
    form.classList.remove("working");
  }
}

// The first time groups are looked for, which takes a while in a large table; the page goes on meanwhile.
async function changeGroups() {
  const saying = setTimeout(() => groups.setAttribute("aria-busy", "true"), 150);
  try {
    await changeFilter({ group: groupBox.checked ? "best" : "" });
  } catch (failure) {
    emit("trouble", failure);
  } finally {
    clearTimeout(saying);
    groups.removeAttribute("aria-busy");
    groupBox.checked = model.filter.group === "best";
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

function show(isShown) {
  form.hidden = !isShown;
  toggle.setAttribute("aria-expanded", isShown);
  if (isShown) text.focus();
  else toggle.focus();
}

function fillChips() {
  const have = new Set(model.table.columns.map(([name]) => name));
  const known = [...(have.has("width") ? [...model.table.shapes, ...SIZES] : []), ...(have.has("caption") ? [["captioned", "caption IS NOT NULL"]] : [])];
  const conditions = known.map(([name, condition]) => chip(name, () => toggleCondition(condition), { condition }));
  const rated = RATED.map(([name, choice]) => {
    const label = /^\d$/.test(choice) ? `${choice} stars` : name;
    return chip(name, () => apply({ rated: toggled(choice).join() }), { rated: choice }, label);
  });
  chips.append(
    element("span", { className: "quiet", textContent: "only" }), ...conditions,
    element("span", { className: "quiet", textContent: "rating" }), ...rated,
  );
  const columns = model.table.columns.map(([name, kind]) => {
    const button = element("button", { type: "button", textContent: name, title: kind, className: "plain" });
    button.addEventListener("click", () => {
      where.value = `${where.value.trim()}${where.value.trim() ? " AND " : ""}${name} `;
      where.focus();
    });
    return element("li", {}, button, " ", element("span", { className: "quiet", textContent: plainKind(kind) }));
  });
  document.getElementById("filter-columns").append(...columns);
}

const plainKind = (kind) => (/string/.test(kind) && !/list|struct/.test(kind) ? "text" : /^(u?int|float|double|half)/.test(kind) ? "number" : kind.split("<")[0]);

function toggled(choice) {
  const chosen = model.filter.rated.split(",").filter(Boolean);
  return chosen.includes(choice) ? chosen.filter((other) => other !== choice) : [...chosen, choice];
}

function chip(name, action, data, label = name) {
  const button = element("button", { type: "button", textContent: name, className: "chip", "aria-label": label, "aria-pressed": "false" });
  Object.assign(button.dataset, data);
  button.addEventListener("click", action);
  return button;
}

function reflect() {
  const { filter } = model;
  groupBox.checked = filter.group === "best";
  if (document.activeElement !== text) text.value = filter.text;
  if (document.activeElement !== like) like.value = filter.like;
  if (document.activeElement !== where) where.value = filter.where;
  for (const button of chips.querySelectorAll("button")) {
    const isOn = button.dataset.rated ? filter.rated.split(",").includes(button.dataset.rated) : filter.where.includes(button.dataset.condition);
    button.setAttribute("aria-pressed", isOn);
  }
  const isFiltered = Boolean(filter.text || filter.like || filter.where || filter.rated || filter.group);
  toggle.classList.toggle("on", isFiltered);
  document.getElementById("filter-clear").disabled = !isFiltered;
}

