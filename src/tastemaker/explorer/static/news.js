// What there is beside what is shown: rows that are new or gone, how far their scoring is. Told below the header, and in
// the place of the pictures before there are any.

import { ask, send } from "./api.js";
import { button, count, element } from "./format.js";
import { model } from "./model.js";
import { allSaved, hasRated, tell } from "./ratings.js";

const EVERY_MS = 2000;
const SOON_MS = 500; // before the first row

const bar = document.getElementById("news");
let told = "";

// Wait until there are rows.
export async function firstRows() {
  const empty = document.getElementById("empty");
  const [state, problem] = [element("span", { className: "large", role: "status" }), element("span")];
  document.body.classList.add("waiting");
  empty.hidden = false;
  empty.replaceChildren(state, "\n\nThe best pictures stand here as soon as the first are scored. You may close the page meanwhile.\n\n", problem);
  for (let news = { scoring: { text: "looking for pictures" } }; ; news = await ask("/api/news").catch(({ message }) => ({ scoring: { problem: message } }))) {
    state.textContent = news.scoring?.text || "no pictures yet";
    problem.textContent = news.scoring?.problem ?? "";
    if (news.stamp) break;
    await new Promise((done) => setTimeout(done, SOON_MS));
  }
  await send("/api/news/show");
  document.body.classList.remove("waiting");
}

export async function startNews() {
  try {
    if (!document.hidden) await show(await ask("/api/news"));
  } catch {
    // a server that does not answer is told by api.js
  }
  setTimeout(startNews, EVERY_MS);
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
  !model.active && !hasRated() && model.picture === null && !document.querySelector("dialog[open]") && !document.body.classList.contains("folded") && model.show === "pictures";

// The state is in the address, so that the page is the same but for the rows.
async function showNew() {
  try {
    const { stamp } = await send("/api/news/show");
    await allSaved();
    if (stamp !== model.table.stamp) location.reload();
  } catch (error) {
    tell(error.message, true);
  }
}
