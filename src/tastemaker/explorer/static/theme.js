// Light or dark: as the system has it, until the switch is used.

const button = document.getElementById("theme");
const system = window.matchMedia("(prefers-color-scheme: dark)");
const { dataset } = document.documentElement;
const KEY = "tastemaker-theme";

export function startTheme() {
  const chosen = localStorage.getItem(KEY);
  if (chosen) dataset.theme = chosen;
  show();
  system.addEventListener("change", show);
  button.addEventListener("click", toggleTheme);
}

export function toggleTheme() {
  dataset.theme = isDark() ? "light" : "dark";
  localStorage.setItem(KEY, dataset.theme);
  show();
}

const isDark = () => (dataset.theme ? dataset.theme === "dark" : system.matches);

function show() {
  button.textContent = isDark() ? "Light" : "Dark";
}
