// "Export this selection": where to, in which form, and how far it is.

import { ask, send } from "./api.js";
import { describeFacets } from "./facets.js";
import { button, columnName, count, element, images, share } from "./format.js";
import { counted, cutText, model, on } from "./model.js";

const dialog = document.getElementById("export");
const POLL_MS = 250;

const FORMS = [
  ["folder", "Files in a folder", "originals with their sidecars"],
  ["webdataset", "Tar shards", "WebDataset, 1,000 samples each"],
  ["links", "Links", "symbolic links to loose originals"],
  ["pdf", "Contact sheet", "pages of A4 to print: .pdf"],
  ["manifest", "Manifest", "all columns: .parquet, .csv or .jsonl"],
  ["uids", "Identifiers", "keys, one a line: .txt, or .npy"],
];

let isRunning = false;

export function startExports() {
  document.getElementById("export-open").addEventListener("click", open);
  on("export-open", open);
}

const said = element("p", { className: "said" });
const form = element("form", { method: "dialog", className: "export-form" });
const progress = element("progress", { max: 1, value: 0 });
const progressText = element("p", { className: "progress-text", role: "status" });
const stop = button("Stop", () => isRunning && send("/api/export/stop"));
const running_ = element("div", { className: "running", hidden: true }, progress, progressText, stop);
const result = element("p", { className: "result", role: "status" });

function build() {
  const title = element("h2", { id: "export-title" });
  const choices = FORMS.map(([value, name, note], n) => {
    const input = element("input", { type: "radio", name: "form", value, checked: n === 0, id: `form-${value}` });
    return element("label", { className: "choice" }, input, element("span", { textContent: name }), element("span", { className: "quiet", textContent: note }));
  });
  const to = element("input", { type: "text", id: "export-to", autocomplete: "off", spellcheck: false, required: true });
  form.append(
    element("fieldset", {}, element("legend", { textContent: "As" }), ...choices),
    element("label", { htmlFor: "export-to", className: "to-label", textContent: "To" }), to,
    element("p", { className: "quiet", id: "export-note" }),
    element("button", { type: "submit", textContent: "Export", className: "strong" }),
  );
  to.setAttribute("aria-describedby", "export-note");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start(to.value, form.elements.form.value);
  });
  dialog.append(element("div", { className: "sheet-head" }, title, button("Close", () => dialog.close())), said, form, running_, result);
}

function open() {
  if (!model.cut.kept) return;
  if (!dialog.firstChild) build();
  const { kept } = model.cut;
  document.getElementById("export-title").textContent = `Export ${images(kept)}`;
  said.textContent = describe();
  document.getElementById("export-note").textContent = `A path on this machine; a relative one is below ${model.table.folder}`;
  if (!isRunning) result.textContent = "";
  dialog.showModal();
  if (!isRunning) document.getElementById("export-to").focus();
}

function describe() {
  const { cut, filter, view } = model;
  const by = view.like ? `likeness to “${view.like}”` : columnName(view.by);
  const number = cut.text.endsWith("%") ? cut.text : count(Number(cut.text.split(" ").pop()));
  const best = cut.places ? `${number} unlike each other` : `the top ${number}`;
  const what = cut.text ? `${best}${view.like ? ` by ${by}` : ""}` : `${by} from ${cut.name}`;
  const parts = [filter.where, filter.text && `containing “${filter.text}”`, ...describeFacets()].filter(Boolean);
  const rejected = view.rejected.size ? ". What is rejected is left out" : "";
  return `${what}, ${share(cut.kept, counted())} of ${images(counted())}${parts.length ? ` where ${parts.join(" and ")}` : ""}${filter.group === "best" ? ", only the best of each group" : filter.group ? ", of one stack" : ""}${rejected}.`;
}

async function start(to, as) {
  const body = { to, as, cut: cutText() };
  result.classList.remove("wrong");
  result.textContent = "";
  try {
    await send("/api/export", body, model.view.filter);
    isRunning = true;
    form.hidden = true;
    running_.hidden = false;
    stop.focus();
    await follow();
  } catch (error) {
    result.classList.add("wrong");
    result.textContent = error.message;
  }
  isRunning = false;
  form.hidden = false;
  running_.hidden = true;
}

async function follow() {
  for (;;) {
    const state = await ask("/api/export");
    progress.max = Math.max(1, state.images);
    progress.value = state.done;
    progressText.textContent = `${count(state.done)} of ${images(state.images)}`;
    if (state.state !== "running") {
      result.classList.toggle("wrong", state.state === "failed");
      result.textContent = state.message;
      return;
    }
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}
