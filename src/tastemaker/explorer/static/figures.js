// The figures beside the histogram: the field that takes a score, a share or a number, and both counts.

import { apply } from "./filter.js";
import { columnName, compact, count, element, share } from "./format.js";
import { counted, cutByText, cutVaried, model, moveCut, on } from "./model.js";

const field = document.getElementById("cut");
const note = document.getElementById("cut-note");
const ranking = document.getElementById("ranking");
const back = document.getElementById("back-to-score");
const parts = Object.fromEntries(
  ["keep", "keep-share", "drop", "drop-share", "rejected", "export-count", "folded"].map((id) => [id, document.getElementById(id)]),
);

export function startFigures() {
  on("cut", show);
  on("view", showRanking);
  back.addEventListener("click", () => apply({ like: "" }));
  field.addEventListener("keydown", async (event) => {
    const steps = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (steps) {
      event.preventDefault();
      moveCut(event.shiftKey ? 10 * steps : steps);
      field.value = asText();
    } else if (event.key === "Enter") {
      await take();
      if (document.activeElement === field) field.select(); // which would take the focus back
    } else if (event.key === "Escape") {
      settle();
      field.blur();
    }
  });
  field.addEventListener("change", take);
  field.addEventListener("focus", () => field.select());
}

async function take() {
  const typed = field.value;
  const isNumber = model.cut.places && /^\s*\d+\s*$/.test(typed);
  try {
    if (typed !== asText()) await (isNumber ? cutVaried(Number(typed)) : cutByText(typed));
    settle();
  } catch (error) {
    if (field.value !== typed) return; // another text stands there now
    note.textContent = error.message;
    note.classList.add("wrong");
  }
}

// The field shows the cut-off that is in force, whatever was typed before.
function settle() {
  field.value = asText();
  showNote();
}

function showNote() {
  note.textContent = noteText();
  note.classList.remove("wrong");
}

const asText = () => model.cut.name;

const noteText = () => {
  const { text, places } = model.cut;
  const number = /\d+$/.exec(text);
  return places ? "" : number ? `top ${compact(Number(number))}` : text && `top ${text}`;
};

// What is cut by, where that is not the column: the words.
function showRanking() {
  const { like, by } = model.view;
  ranking.parentNode.hidden = !like;
  ranking.textContent = ranking.title = like && `likeness to “${like}”`;
  back.textContent = `back to the ${columnName(by)}`;
}

const cutName = () => model.cut.places ? `${asText()} unlike each other` : `cut-off ${model.view.like ? "by likeness " : ""}${asText()}`;

const spare = (textContent) => element("span", { className: "spare", textContent }); // where there is room

function show() {
  const { kept } = model.cut;
  const all = counted();
  const rejected = model.view.rejected.size;
  if (document.activeElement !== field || !field.matches(":focus-visible")) field.value = asText();
  showNote();
  parts.keep.textContent = count(kept);
  parts.drop.textContent = count(all - kept);
  parts["keep-share"].textContent = share(kept, all);
  parts["drop-share"].textContent = share(all - kept, all);
  parts.rejected.textContent = rejected ? `${count(rejected)} rejected, in no count` : "";
  parts["export-count"].textContent = count(kept);
  parts["export-count"].parentNode.disabled = !kept;
  parts.folded.replaceChildren(cutName(), " · keep", spare(` ${count(kept)},`), ` ${share(kept, all)}`, spare(` · drop ${count(all - kept)}`));
}
