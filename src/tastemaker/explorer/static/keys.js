// The keyboard: every action of the page, wherever the focus is, but not while something is typed.

import { fetchPlaces, peek } from "./chunks.js";
import { element } from "./format.js";
import { moveActive, reveal } from "./grid.js";
import { emit, model, moveCut, setActive, setOrder, setShow } from "./model.js";
import { isOpen, openedPicture, walk } from "./picture.js";
import { rate, undo } from "./ratings.js";
import { zoom } from "./stage.js";
import { toggleTheme } from "./theme.js";

const help = document.getElementById("help");

const KEYS = [
  ["Pictures", [
    ["arrows", "move; Home, End, Page Up and Page Down as well"],
    ["Enter", "open the picture; Escape closes it"],
    ["Z", "an opened picture at 100%; the next one shows the same part"],
    ["1 to 5", "rate; with Shift, go on to the next"],
    ["0", "take the stars and the rejection away"],
    ["X", "reject, or take that back; with Shift, go on"],
    ["U, Ctrl Z, Cmd Z", "undo the last rating"],
  ]],
  ["Cut-off", [
    ["[  and  ]", "move by a hundredth; { and } by a tenth"],
    ["C", "show where it crosses the pictures"],
    ["K", "type a score, a share (20%) or a number (100k)"],
  ]],
  ["Page", [
    ["/", "filter"],
    ["O", "best first, worst first"],
    ["P   S   F", "pictures, slices, failures"],
    ["E", "export what is kept"],
    ["T", "light, dark"],
    ["?", "this page"],
  ]],
];

export function startKeys() {
  fillHelp();
  document.getElementById("help-open").addEventListener("click", () => help.showModal());
  document.addEventListener("keydown", press);
}

const isTyping = (target) => target.closest("input:not([type=radio], [type=checkbox], [type=range]), textarea") !== null;

const MOVES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"];

function press(event) {
  if (event.defaultPrevented || event.altKey || isTyping(event.target)) return;
  if (document.querySelector("dialog.sheet[open]") !== null) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() === "z") act(event, undo);
    return;
  }
  if (MOVES.includes(event.key)) return move(event);
  const digit = /^Digit([0-5])$/.exec(event.code)?.[1] ?? (/^[0-5]$/.test(event.key) ? event.key : null);
  if (digit !== null) return act(event, () => mark(digit === "0" ? { stars: 0, rejected: false } : { stars: Number(digit) }, event.shiftKey));
  const action = actions()[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action) act(event, () => action(event));
}

function actions() {
  const shared = {
    x: (event) => mark({ rejected: !current()?.rejected }, event.shiftKey),
    u: () => undo(),
    "[": () => moveCut(-1),
    "]": () => moveCut(1),
    "{": () => moveCut(-10),
    "}": () => moveCut(10),
    t: () => toggleTheme(),
    "?": () => help.showModal(),
  };
  if (isOpen()) return { ...shared, z: () => zoom() };
  return {
    ...shared,
    "/": () => emit("filter-open"),
    k: () => focusCut(),
    c: () => goToCut(),
    o: () => setOrder(model.order === "best" ? "worst" : "best"),
    p: () => setShow("pictures"),
    s: () => setShow("slices"),
    f: () => setShow("failures"),
    e: () => emit("export-open"),
    ...(isOnControl() ? {} : { Enter: () => emit("open", model.active) }),
  };
}

function focusCut() {
  document.body.classList.remove("folded");
  document.getElementById("cut").focus();
}

const isOnControl = () => document.activeElement?.closest("button, a, select, summary");

function act(event, action) {
  event.preventDefault();
  action();
}

function move(event) {
  if (event.target.closest("select, input")) return;
  if (isOpen()) {
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (steps) act(event, () => walk(steps));
    return;
  }
  if (model.show !== "pictures" || !model.view.images) return;
  act(event, () => {
    document.getElementById("grid").focus({ preventScroll: true });
    moveActive(event.key);
  });
}

const isOutside = () => isOpen() && openedPicture().place < 0; // a picture that the filter does not let through
const current = () => (isOutside() ? openedPicture() : peek(model.active));

async function mark(changes, goesOn) {
  if (!isOpen() && model.show !== "pictures") return; // nobody sees which picture it would be
  const place = model.active;
  const opened = isOutside() ? openedPicture() : null;
  if (goesOn && isOpen()) walk(1);
  else if (goesOn) moveActive("ArrowRight"); // at once: the next key is for the next picture
  try {
    const [picture] = opened ? [opened] : await fetchPlaces(place, place + 1);
    if (picture) rate(picture, changes);
  } catch (error) {
    emit("trouble", error);
  }
}

export function goToCut() {
  const { place } = model.cut;
  const { images } = model.view;
  if (!images) return;
  setShow("pictures");
  setActive(Math.min(Math.max(place - (model.order === "best" ? 0 : 1), 0), images - 1));
  reveal(model.active, true);
  document.getElementById("grid").focus({ preventScroll: true });
}

function fillHelp() {
  const title = element("h2", { id: "help-title", textContent: "Keys" });
  const close = element("button", { type: "button", textContent: "Close" });
  close.addEventListener("click", () => help.close());
  const groups = KEYS.map(([name, keys]) => {
    const list = element("dl");
    for (const [key, meaning] of keys) list.append(element("dt", { textContent: key }), element("dd", { textContent: meaning }));
    return element("section", {}, element("h3", { textContent: name }), list);
  });
  help.append(element("div", { className: "sheet-head" }, title, close), ...groups);
}

