// How large the pictures of the grid are, and whether the names of their files stand below them. The browser remembers it.

import { emit } from "./model.js";

const KEY = "tastemaker-sizes";
const SIZES = [0.5, 0.7, 1, 1.4, 2, 2.8];
const USUAL = 2; // its number
const NARROW = 560; // px of a grid that has columns

const slider = document.getElementById("size");
const names = document.getElementById("names");

let { size = USUAL, areNamed = false } = JSON.parse(localStorage.getItem(KEY) ?? "{}");

export const heightAt = (width) => SIZES[size] * (width < NARROW ? 180 : width < 1000 ? 160 : 190);
export const columnsAt = (width) => (width < NARROW ? [4, 3, 2, 2, 1, 1][size] : 0);
export const linesBelow = () => (areNamed ? 2 : 1);

export function startSizes() {
  Object.assign(slider, { min: 0, max: SIZES.length - 1, value: size });
  slider.addEventListener("input", () => change(Number(slider.value), areNamed));
  names.addEventListener("click", toggleNames);
  show();
}

export const resize = (steps) => change(Math.min(Math.max(size + steps, 0), SIZES.length - 1), areNamed);

export function toggleNames() {
  change(size, !areNamed);
}

function change(newSize, isNamed) {
  [size, areNamed] = [newSize, isNamed];
  localStorage.setItem(KEY, JSON.stringify({ size, areNamed }));
  show();
  emit("sizes");
}

function show() {
  slider.value = size;
  names.setAttribute("aria-pressed", areNamed);
  document.body.classList.toggle("named", areNamed);
}
