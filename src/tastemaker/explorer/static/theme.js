// Light or dark: as the system has it, until the switch is used.

const button = document.getElementById("theme");
const system = window.matchMedia("(prefers-color-scheme: dark)");

export const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

export function startTheme() {
  const chosen = localStorage.getItem("tastemaker-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  show();
  system.addEventListener("change", show);
  button.addEventListener("click", toggleTheme);
}

export function toggleTheme() {
  const wanted = isDark() ? "light" : "dark";
  if (wanted === (system.matches ? "dark" : "light")) {
    delete document.documentElement.dataset.theme; // follows the system again
    localStorage.removeItem("tastemaker-theme");
  } else {
    document.documentElement.dataset.theme = wanted;
    localStorage.setItem("tastemaker-theme", wanted);
  }
  show();
}

function show() {
  button.textContent = isDark() ? "Light" : "Dark";
  button.setAttribute("aria-label", isDark() ? "Switch to light" : "Switch to dark");
}
