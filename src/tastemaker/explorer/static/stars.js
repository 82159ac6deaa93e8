// Stars, a rejection and a colour to press, for one picture. A second press takes them away.

import { button, element } from "./format.js";
import { rate } from "./ratings.js";

export const LABELS = ["red", "yellow", "green", "blue", "purple"];

export function makeRating(pictureOf) {
  const group = element("div", { className: "rating", role: "group", "aria-label": "Rating" });
  const add = (className, properties, changes) => {
    const press = (event) => {
      event.stopPropagation();
      rate([pictureOf()], changes(pictureOf()));
    };
    (className === "colour" ? colours : group).append(button("", press, { className, ...properties }));
  };
  const colours = element("div", { className: "colours" });
  for (let number = 1; number <= 5; number++) {
    const names = { textContent: "★", title: `${number} stars (${number})`, "aria-label": `${number} stars` };
    add("star", names, ({ stars }) => ({ stars: stars === number ? 0 : number }));
  }
  add("reject", { textContent: "Reject", title: "Reject (X)" }, ({ rejected }) => ({ rejected: !rejected }));
  LABELS.forEach((name, n) => {
    const names = { title: `${name}${n < 4 ? ` (${6 + n})` : ""}`, "aria-label": `${name} label`, "data-colour": name };
    add("colour", names, ({ label }) => ({ label: label === name ? "" : name }));
  });
  group.append(element("span", { className: "quiet whose" }), colours);
  return group;
}

export function showRating(group, { stars, rejected, label, said_by: saidBy }) {
  const buttons = [...group.querySelectorAll("button")];
  buttons.slice(0, 5).forEach((star, n) => {
    star.classList.toggle("on", n < stars);
    star.setAttribute("aria-pressed", stars === n + 1);
  });
  buttons[5].setAttribute("aria-pressed", rejected);
  buttons.slice(6).forEach((colour, n) => colour.setAttribute("aria-pressed", label === LABELS[n]));
  group.querySelector(".whose").textContent = saidBy === "file" ? "in the file" : "";
}
