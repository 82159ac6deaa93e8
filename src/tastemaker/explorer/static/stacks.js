// Stacks: one cell for each group of pictures, its best frame. A key opens the one that is active, and closes it again.

import { changeFilter, emit, model, setActive } from "./model.js";

let opened = 0; // place of the stack that is open

export async function openStack(picture) {
  if (!model.table.groups) return;
  const { group } = model.filter;
  const isStack = group === "best" && picture?.stack > 1;
  if (group === "best" && !isStack) return;
  if (isStack) opened = model.active;
  try {
    await changeFilter({ group: isStack ? String(picture.row) : "best" });
    if (group && !isStack) setActive(Math.min(opened, model.view.images - 1));
  } catch (failure) {
    emit("trouble", failure);
  }
}
