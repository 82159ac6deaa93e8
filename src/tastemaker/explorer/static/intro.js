// Three sentences for whoever is here for the first time.

import { focusGrid } from "./grid.js";

const KEY = "tastemaker-introduced";

export function startIntro() {
  const intro = document.getElementById("intro");
  intro.hidden = Boolean(localStorage.getItem(KEY));
  intro.querySelector("button").addEventListener("click", () => {
    localStorage.setItem(KEY, "yes");
    intro.hidden = true;
    focusGrid();
  });
}
