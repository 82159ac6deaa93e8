// The switch beside the cut-off: of pictures that look alike, only the best.

import { changeFilter, model, on } from "./model.js";
import { tell } from "./ratings.js";

const label = document.getElementById("group-label");
const box = document.getElementById("group");
const words = label.querySelector("span");
const MEANING = words.textContent;

export function startGroups() {
  label.hidden = !model.table.groups;
  on("view", () => (box.checked = model.filter.group === "best"));
  box.addEventListener("change", change);
}

// The first time groups are looked for, which takes a while in a large table; the page goes on meanwhile.
async function change() {
  const wanted = box.checked ? "best" : "";
  const saying = setTimeout(() => (words.textContent = "looking for groups ..."), 150);
  label.setAttribute("aria-busy", "true");
  try {
    await changeFilter({ group: wanted });
  } catch (error) {
    tell(error.message, true);
  } finally {
    clearTimeout(saying);
    words.textContent = MEANING;
    label.removeAttribute("aria-busy");
    box.checked = model.filter.group === "best";
  }
}
