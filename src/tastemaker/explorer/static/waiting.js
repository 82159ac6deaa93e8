// Before the first row: how far the scoring is. The page of the pictures takes its place.

import { ask, send } from "./api.js";

const EVERY_MS = 500;

history.replaceState(null, "", `/${location.hash}`); // the token is in a cookie now
if (localStorage.getItem("tastemaker-theme")) document.documentElement.dataset.theme = localStorage.getItem("tastemaker-theme");

async function look() {
  try {
    const { stamp, scoring } = await ask("/api/news");
    document.getElementById("scoring").textContent = scoring?.text || "no pictures yet";
    document.getElementById("problem").textContent = scoring?.problem ?? "";
    if (stamp) {
      await send("/api/news/show");
      location.reload();
      return;
    }
  } catch (error) {
    document.getElementById("problem").textContent = error.message;
  }
  setTimeout(look, EVERY_MS);
}

look();
