// A cut that keeps pictures which are unlike each other, as many as the slider says: not forty of one sunset.

import { element } from "./format.js";
import { counted, cutByText, cutText, cutVaried, model, on, setPart } from "./model.js";

const MOST = 200; // with the slider; more can be typed
const USUAL = 40;

const host = document.getElementById("varied");
const box = element("input", { type: "checkbox" });
const name = element("span");
const slider = element("input", { type: "range", min: 1, ariaLabel: "How many" });

let before = ""; // the cut-off that it took the place of

export function startVaried() {
  host.append(element("label", { className: "switch" }, box, " ", name), slider);
  host.hidden = !model.table.embeddings;
  box.addEventListener("change", () => change(box.checked).finally(show));
  slider.addEventListener("input", () => cutVaried(Number(slider.value)));
  on("cut", show);
  on("choosing", () => (name.textContent = "choosing ..."));
}

// What is kept is shown alone: it lies all over the others.
async function change(isOn) {
  if (isOn) before = cutText();
  await (isOn ? cutVaried(Math.min(Number(slider.value), counted())) : cutByText(before || "20%"));
  setPart(isOn ? "kept" : "");
}

function show() {
  const { places, name: number } = model.cut;
  const isOn = Boolean(places);
  box.checked = isOn;
  slider.hidden = !isOn;
  slider.max = Math.max(1, Math.min(MOST, counted()));
  if (document.activeElement !== slider) slider.value = isOn ? number : Math.min(USUAL, Math.ceil(counted() / 4));
  name.textContent = isOn ? "unlike each other" : `only ${slider.value} unlike each other`;
  document.body.classList.toggle("varied", isOn);
}
