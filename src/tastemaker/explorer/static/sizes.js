// How large the pictures of the grid are, and whether the names of their files stand below them. The browser remembers it.

import { emit } from "./model.js";
import { keep, settings } from "./settings.js";

const SIZES = [0.5, 0.7, 1, 1.4, 2, 2.8];
const USUAL = 2; // its number
const NARROW = 560; // px of a grid that has columns

const slider = document.getElementById("size");
const names = document.getElementById("names");

settings.size ??= USUAL;

export const heightAt = (width) => SIZES[settings.size] * (width < NARROW ? 180 : width < 1000 ? 160 : 190);
export const columnsAt = (width) => (width < NARROW ? [4, 3, 2, 2, 1, 1][settings.size] : 0);
export const linesBelow = () => (settings.areNamed ? 2 : 1);

export function startSizes() {
  Object.assign(slider, { min: 0, max: SIZES.length - 1 });
  slider.addEventListener("input", () => change({ size: Number(slider.value) }));
  names.addEventListener("click", toggleNames);
  show();
}

export const resize = (steps) => change({ size: Math.min(Math.max(settings.size + steps, 0), SIZES.length - 1) });
export const toggleNames = () => change({ areNamed: !settings.areNamed });

function change(changes) {
  keep(changes);
  show();
  emit("sizes");
}

function show() {
  slider.value = settings.size;
  names.setAttribute("aria-pressed", Boolean(settings.areNamed));
  document.body.classList.toggle("named", Boolean(settings.areNamed));
}
