// The keyboard: every action of the page, wherever the focus is, but not while something is typed.

import { fetchPlaces, peek } from "./chunks.js";
import { goesOn, nextUnrated, survey, toggleGoesOn } from "./flow.js";
import { button, element } from "./format.js";
import { focusGrid, moveActive, reveal } from "./grid.js";
import { emit, model, moveCut, setActive, setOrder, setShow, shownImages } from "./model.js";
import { clearPicked, pickAll, pickTo, pickedPlaces } from "./picked.js";
import { isOpen, openedPicture, showBeside, walk } from "./picture.js";
import { rate, tell, undo } from "./ratings.js";
import { resize, toggleNames } from "./sizes.js";
import { zoom } from "./stage.js";
import { LABELS } from "./stars.js";
import { toggleTheme } from "./theme.js";

const help = document.getElementById("help");

const isGrid = () => !isOpen();

// Of each key: what it is called, what it does, its actions, and where only it has them.
const KEYS = [
  ["Pictures", [
    ["arrows", "move; Home, End, Page Up and Page Down as well"],
    ["Shift arrows", "pick several; a press with Ctrl, Cmd or Shift does, too"],
    ["Ctrl A, Cmd A", "pick all, up to 5,000"],
    ["Enter", "open what is picked, up to four side by side; Escape closes it", { Enter: () => emit("open", model.active), Escape: clearPicked }, isGrid],
    ["V", "side by side: one more with each press, after four one again", { v: showBeside }],
    ["Z", "100%; the next picture shows the same part", { z: () => zoom() }, isOpen],
    ["-  and  +", "smaller and larger in the grid", { "-": () => resize(-1), "+": () => resize(1), "=": () => resize(1) }, isGrid],
    ["I", "names of the files", { i: toggleNames }, isGrid],
    ["G", "stacks: one picture of each; on one, all of its pictures, and back", { g: () => emit("open-stack", current()) }, isGrid],
    ["J", "the next stack", { j: () => emit("next-stack") }, isGrid],
  ]],
  ["Rating", [
    ["1 to 5", "stars, for all that are picked"],
    ["0", "take the stars and the rejection away"],
    ["X", "reject, or take that back", { x: (event) => mark({ rejected: !current()?.rejected }, goesOn(event)) }],
    ["6 to 9", "red, yellow, green, blue, or take that back"],
    ["Shift, Caps Lock", "with these, go on to the next picture"],
    ["A", "always go on after a rating, or stay", { a: () => toggleGoesOn() }],
    ["N", "the next picture that is not rated", { n: nextUnrated }],
    ["Y", "only what has stars, and back", { y: survey }],
    ["U, Ctrl Z, Cmd Z", "undo the last rating", { u: undo }],
  ]],
  ["Cut-off", [
    ["[  and  ]", "move by a hundredth; { and } by a tenth", { "[": () => moveCut(-1), "]": () => moveCut(1), "{": () => moveCut(-10), "}": () => moveCut(10) }],
    ["C", "show where it crosses the pictures", { c: goToCut }, isGrid],
    ["K", "type a score, a share (20%), a number (100k) or varied 40", { k: focusCut }, isGrid],
  ]],
  ["Page", [
    ["/", "filter", { "/": () => emit("filter-open") }, isGrid],
    ["O", "best first, worst first; other orders beside Filter", { o: () => setOrder(model.order === "best" ? "worst" : "best") }, isGrid],
    ["P   S   L   F", "pictures, slices, your taste (learned), failures", { p: () => setShow("pictures"), s: () => setShow("slices"), l: () => setShow("taste"), f: () => setShow("failures") }, isGrid],
    ["E", "export what is kept", { e: () => emit("export-open") }, isGrid],
    ["T", "light, dark", { t: toggleTheme }],
    ["?", "this page", { "?": () => help.showModal() }],
  ]],
];

export function startKeys() {
  fillHelp();
  document.getElementById("help-open").addEventListener("click", () => help.showModal());
  document.addEventListener("keydown", press);
}

// Whether a key goes to one of these. A dialog that was just closed still gets the next key.
const isFor = (target, selector) => target.checkVisibility() && target.closest(selector) !== null;

const TYPED = "input:not([type=radio], [type=checkbox], [type=range]), textarea";
const DIGIT = /^(?:Digit|Numpad)([0-9])$/;
const SIGNS = "/=?[]{}"; // also where one holds Shift, AltGr or Option and a digit to type them
const HELD = /^(Arrow|Page|Home|End|[-+=[\]{}])/; // keys that act again while they are held
const MOVES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"];

function press(event) {
  const isSign = SIGNS.includes(event.key) && !event.metaKey && (event.altKey || !event.ctrlKey);
  if (event.defaultPrevented || (event.altKey && !isSign) || isFor(event.target, TYPED)) return;
  if (document.querySelector("dialog.sheet[open]") !== null || (event.repeat && !HELD.test(event.key))) return;
  if ((event.ctrlKey || event.metaKey) && !isSign) {
    const command = event.key.toLowerCase();
    if (command === "z") act(event, undo);
    if (command === "a" && isGrid() && model.show === "pictures") act(event, pickAll);
    return;
  }
  if (MOVES.includes(event.key)) return move(event);
  const digit = DIGIT.exec(event.code)?.[1] ?? (/^[0-9]$/.test(event.key) ? event.key : null);
  if (digit !== null && !isSign) return act(event, () => mark(changeOf(Number(digit)), goesOn(event)));
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "Enter" && isFor(event.target, "button, a, select, summary")) return;
  for (const [, , actions, isHere] of KEYS.flatMap(([, keys]) => keys)) {
    if (actions?.[key] && (!isHere || isHere())) act(event, () => actions[key](event));
  }
}

function changeOf(digit) {
  if (!digit) return { stars: 0, rejected: false };
  if (digit <= 5) return { stars: digit };
  const label = LABELS[digit - 6];
  return { label: current()?.label === label ? "" : label };
}

function focusCut() {
  document.body.classList.remove("folded");
  document.getElementById("cut").focus();
}

function act(event, action) {
  event.preventDefault();
  action();
}

function move(event) {
  if (isFor(event.target, "select, input:not([type=checkbox])")) return;
  if (isOpen()) {
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (steps) act(event, () => walk(steps));
    return;
  }
  if (model.show !== "pictures" || !shownImages()) return;
  act(event, () => {
    focusGrid();
    const from = model.active;
    moveActive(event.key);
    if (event.shiftKey) pickTo(model.active, from);
    else clearPicked();
  });
}

const isOutside = () => isOpen() && openedPicture().place < 0; // a picture that the filter does not let through
const current = () => (isOutside() ? openedPicture() : peek(model.active));

async function mark(changes, isLeft) {
  if (!isOpen() && model.show !== "pictures") return; // nobody sees which picture it would be
  const opened = isOutside() ? openedPicture() : null;
  const picked = isOpen() ? [] : pickedPlaces();
  const places = picked.length ? picked : [model.active];
  if (isLeft && isOpen()) walk(1);
  else if (isLeft && !picked.length) moveActive("ArrowRight"); // at once: the next key is for the next picture
  const pictures = opened ? [opened] : await fetchPlaces(places);
  if (pictures.length) rate(pictures, changes);
  else tell("not rated: other pictures are shown by now", true);
}

function goToCut() {
  const { place } = model.cut;
  if (!shownImages()) return;
  setShow("pictures");
  setActive(place - (model.order === "worst" || model.part === "kept" ? 1 : 0));
  reveal(model.active, true);
  focusGrid();
}

function fillHelp() {
  const title = element("h2", { id: "help-title", textContent: "Keys" });
  const groups = KEYS.map(([name, keys]) => {
    const list = element("dl");
    for (const [key, meaning] of keys) list.append(element("dt", { textContent: key }), element("dd", { textContent: meaning }));
    return element("section", {}, element("h3", { textContent: name }), list);
  });
  help.append(element("div", { className: "sheet-head" }, title, button("Close", () => help.close())), ...groups);
}

