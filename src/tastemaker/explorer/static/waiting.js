// Before the first row: how far the scoring is. The page of the pictures takes its place.

import { ask, send } from "./api.js";

const EVERY_MS = 500;

history.replaceState(null, "", `/${location.hash}`); // the token is in a cookie now
if (localStorage.getItem("tastemaker-theme")) document.documentElement.dataset.theme = localStorage.getItem("tastemaker-theme");

async function look() {
  try {
    const { more, scoring } = await ask("/api/news");
    if (more) {
      await send("/api/news/show");
      location.reload();
      return;
    }
    document.getElementById("scoring").textContent = scoring?.text || "no pictures yet";
    document.getElementById("problem").textContent = scoring?.problem ?? "";
  } catch {
    // told where one looks, and asked again
  }
  setTimeout(look, EVERY_MS);
}

look();
