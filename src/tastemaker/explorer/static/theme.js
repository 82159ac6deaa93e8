// Light or dark: as the system has it, until the switch is used.

import { keep, settings } from "./settings.js";

const button = document.getElementById("theme");
const system = window.matchMedia("(prefers-color-scheme: dark)");
const { dataset } = document.documentElement;

export function startTheme() {
  if (settings.theme) dataset.theme = settings.theme;
  show();
  system.addEventListener("change", show);
  button.addEventListener("click", toggleTheme);
}

export function toggleTheme() {
  dataset.theme = isDark() ? "light" : "dark";
  keep({ theme: dataset.theme });
  show();
}

const isDark = () => (dataset.theme ? dataset.theme === "dark" : system.matches);

function show() {
  button.textContent = isDark() ? "Light" : "Dark";
}
