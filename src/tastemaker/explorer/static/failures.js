// Failures: the rows without a score, by reason.

import { ask } from "./api.js";
import { button, count, element } from "./format.js";
import { model, on } from "./model.js";

const host = document.getElementById("failures");
let loaded = null;

export function startFailures() {
  on("view", () => {
    const { unscored } = model.view;
    document.getElementById("failure-count").textContent = count(unscored);
    document.querySelector("[data-show=failures]").hidden = !unscored;
  });
  for (const event of ["show", "view"]) on(event, () => model.show === "failures" && load());
}

async function load() {
  const { by } = model.view;
  if (loaded === by) return;
  loaded = by;
  try {
    const groups = await ask("/api/failures", { by });
    if (!groups.length) {
      host.replaceChildren(element("p", { className: "empty", textContent: "Every picture has a score." }));
      return;
    }
    const most = Math.max(...groups.map((group) => group.images));
    host.replaceChildren(
      element("p", { className: "page-head quiet", textContent: "Pictures without a score, by reason. Each of them is a row of the table." }),
      ...groups.map((group) => makeGroup(group, most, by)),
    );
  } catch (error) {
    loaded = null;
    host.replaceChildren(element("p", { className: "empty wrong", textContent: error.message }));
  }
}

function makeGroup(group, most, by) {
  const bar = element("span", { className: "bar" }, element("i", { style: `width: ${Math.max(1, (100 * group.images) / most)}%` }));
  const kind = group.status === "failed" ? "" : ` (${group.status})`;
  const summary = element("summary", {},
    element("span", { className: "number", textContent: count(group.images) }), bar, element("span", { textContent: group.reason + kind }));
  const list = element("ul", { className: "rows" });
  const more = button("Show more", () => fetchMore());
  const box = element("details", { className: "group" }, summary, list, more);
  more.hidden = true;
  const fetchMore = async () => {
    const rows = await ask("/api/failures/rows", { by, kind: group.kind, start: list.children.length });
    list.append(...rows.map(makeRow));
    more.hidden = list.children.length >= group.images || !rows.length;
  };
  box.addEventListener("toggle", () => box.open && !list.firstChild && fetchMore());
  return box;
}

function makeRow(row) {
  return element("li", {},
    element("span", { className: "name", dir: "auto", textContent: row.image_id || "(the shard itself)", title: row.image_path }),
    element("span", { className: "quiet path", textContent: row.image_path }),
    element("span", { textContent: row.reason ?? "" }));
}

