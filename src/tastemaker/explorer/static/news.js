// What there is beside what is shown: rows that are new or gone, how far their scoring is. Told below the header.

import { ask, send } from "./api.js";
import { button, count, element } from "./format.js";
import { model } from "./model.js";
import { tell } from "./ratings.js";

const EVERY_MS = 2000;

const bar = document.getElementById("news");
let told = "";

export function startNews() {
  look();
}

async function look() {
  try {
    if (!document.hidden) await show(await ask("/api/news"));
  } catch {
    // a server that does not answer is told by api.js
  }
  setTimeout(look, EVERY_MS);
}

async function show({ stamp, more, scoring }) {
  const isNew = stamp !== model.table.stamp;
  if (isNew && isIdle() && more >= model.table.images + model.table.deleted) return showNew(); // twice as many, or the first
  const parts = [scoring?.text && `Scoring: ${scoring.text}.`, scoring?.problem, isNew && what(more)].filter(Boolean);
  if (parts.join() === told) return; // a button that one is about to press stays
  told = parts.join();
  bar.hidden = !parts.length;
  bar.replaceChildren(...parts.map((text) => element("span", { textContent: text })));
  if (isNew) bar.append(button("Show them", showNew, { className: "offer" }));
}

function what(more) {
  if (!more) return "The rows have changed.";
  const rows = Math.abs(more) === 1 ? "row" : "rows";
  return more > 0 ? `${count(more)} new ${rows}.` : `${count(-more)} ${rows} gone.`;
}

// Nobody has begun to work with what is shown.
const isIdle = () =>
  !model.active && model.picture === null && !document.querySelector("dialog[open]") && !document.body.classList.contains("folded") && model.show === "pictures";

// The state is in the address, so that the page is the same but for the rows.
async function showNew() {
  try {
    const { stamp } = await send("/api/news/show");
    if (stamp !== model.table.stamp) location.reload();
  } catch (error) {
    tell(error.message, true);
  }
}
