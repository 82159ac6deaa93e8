// Facets: what pictures are told apart by, to be clicked. Values of one facet are alternatives, facets are combined.

import { ask, turns } from "./api.js";
import { apply } from "./filter.js";
import { button, compact, count, element } from "./format.js";
import { counted, model, on, setPart } from "./model.js";

const FEW = 8; // values that are shown before one asks for more
const SEARCHED = 12; // values from which there is a search
const PAUSE_MS = 200; // in typing a search, before it is made
const TITLES = { rated: "Stars", date: "Taken", camera: "Camera", lens: "Lens", folder: "Folder or shard" };

const form = document.getElementById("filter");
const host = document.getElementById("facets");
const unfolded = new Set(); // names of facets of which more is shown
const searches = new Map(); // name -> what is searched for

const turn = turns();
let pausing = 0;

export function startFacets() {
  for (const event of ["view", "filter-shown"]) on(event, load);
  on("cut", showParts);
  on("order", showParts);
}

// The values of a facet that are chosen; null stands for pictures of which it is not known.
const chosenOf = (name) => {
  const text = model.filter[name];
  if (!text || text === "next") return [];
  return name === "rated" ? text.split(",") : JSON.parse(text);
};

// What is chosen, in words.
export const describeFacets = () =>
  Object.entries(TITLES).flatMap(([name, title]) => {
    const chosen = model.filter[name] === "next" ? ["next"] : chosenOf(name);
    return chosen.length ? [`${title.toLowerCase()}: ${chosen.map((value) => value ?? "not known").join(" or ")}`] : [];
  });

async function load() {
  if (form.hidden) return;
  if (!host.firstChild) host.append(element("p", { className: "quiet", textContent: "counting ..." })); // the first time, seconds for a million
  show(await ask("/api/facets", { ...model.filter, searches: JSON.stringify(Object.fromEntries(searches)) }, turn()));
}

function show(facets) {
  const focused = document.activeElement?.closest("#facets [data-key]")?.dataset.key;
  const { scrollTop } = form;
  host.replaceChildren(parts, ...facets.map(section));
  showParts();
  form.scrollTop = scrollTop;
  if (focused) host.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function section({ name, values, others }) {
  const isUnfolded = unfolded.has(name);
  const shown = values.filter((value, n) => isUnfolded || n < FEW || value.is_on);
  const parts = [element("h3", { textContent: TITLES[name] })];
  if (isUnfolded && (values.length + others > SEARCHED || searches.get(name))) parts.push(searchField(name));
  parts.push(element("div", { className: "values" }, ...shown.map((value) => facetButton(name, value))));
  if (isUnfolded && others) parts.push(element("p", { className: "quiet", textContent: `and ${count(others)} more: search for them` }));
  const hidden = values.length - shown.length + (isUnfolded ? 0 : others);
  if (hidden || isUnfolded) {
    const fold = () => {
      if (!unfolded.delete(name)) unfolded.add(name);
      searches.delete(name);
      load();
    };
    parts.push(button(isUnfolded ? "fewer" : `${compact(hidden)} more`, fold, { className: "more", "data-key": `${name} more`, "aria-expanded": isUnfolded }));
  }
  return element("section", { className: isUnfolded ? "facet unfolded" : "facet", "aria-label": TITLES[name] }, ...parts);
}

function searchField(name) {
  const said = `Search in ${TITLES[name].toLowerCase()}`;
  const field = element("input", { type: "search", value: searches.get(name) ?? "", placeholder: said, "aria-label": said, autocomplete: "off", spellcheck: false, "data-key": `${name} search` });
  field.addEventListener("input", () => {
    searches.set(name, field.value);
    clearTimeout(pausing);
    pausing = setTimeout(load, PAUSE_MS);
  });
  return field;
}

function facetButton(facet, { value, name, images, is_on: isOn }) {
  const shown = facet === "rated" && /^\d$/.test(name) ? "★".repeat(Number(name)) : name || "(top folder)";
  const label = facet === "rated" && /^\d$/.test(name) ? `${name} ${name === "1" ? "star" : "stars"}` : shown;
  return valueButton(`${facet} ${JSON.stringify(value)}`, shown, label, images, isOn, () => toggle(facet, value));
}

function valueButton(key, shown, label, images, isOn, action) {
  const made = button("", action, { className: "value", title: shown, "aria-pressed": isOn, "aria-label": `${label}, ${count(images)}`, "data-key": key });
  made.append(element("span", { className: "called", dir: "auto", textContent: shown }), element("span", { className: "images", textContent: count(images) }));
  return made;
}

function toggle(name, value) {
  const chosen = chosenOf(name);
  const values = chosen.includes(value) ? chosen.filter((other) => other !== value) : [...chosen, value];
  return apply({ [name]: name === "rated" ? values.join() : values.length ? JSON.stringify(values) : "" });
}

// What lies on one side of the cut-off. It follows the handle, so it is no filter: counts and exports stay.
const parts = element("section", { className: "facet", "aria-label": "Side of the cut-off" });

function showParts() {
  if (form.hidden) return;
  const focused = parts.contains(document.activeElement) ? document.activeElement.dataset.key : "";
  const { kept } = model.cut;
  const buttons = [["kept", kept], ["dropped", counted() - kept]].map(([part, images]) => {
    const isOn = model.part === part;
    return valueButton(part, part, part, images, isOn, () => setPart(isOn ? "" : part));
  });
  parts.replaceChildren(element("h3", { textContent: "Cut-off" }), element("div", { className: "values" }, ...buttons));
  if (focused) parts.querySelector(`[data-key=${focused}]`)?.focus({ preventScroll: true });
}
