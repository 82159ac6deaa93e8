// A small picture to press: in the strip, and beside an opened picture.

import { pictureAt } from "./api.js";
import { element, score } from "./format.js";
import { digits, measure } from "./model.js";

export const altText = (picture) => picture.alt || `${picture.name}, ${measure()} ${score(picture.score, digits())}`;

export function makeThumb(picture, high, onPress) {
  const image = element("img", { alt: altText(picture), decoding: "async", draggable: false, fetchPriority: "high" });
  const likeness = picture.similarity === undefined ? "" : `, similarity ${picture.similarity.toFixed(3)}`;
  const button = element("button", { type: "button", className: "thumb", title: `${picture.name}: ${score(picture.score, digits()) || `no ${measure()}`}${likeness}` }, image);
  const aspect = picture.width && picture.height ? picture.width / picture.height : 1;
  Object.assign(button.style, { width: `${Math.round(high * Math.min(Math.max(aspect, 0.3), 3.5))}px`, height: `${high}px` });
  image.addEventListener("load", () => button.classList.add("here"));
  image.addEventListener("error", () => button.classList.add("gone"));
  button.addEventListener("click", onPress);
  image.src = pictureAt(picture.row, high);
  return button;
}

export function giveUpThumb({ isConnected, firstChild: image }) {
  if (!isConnected && !image.complete) image.removeAttribute("src");
}

export const hasLoaded = ({ firstChild: image }) =>
  new Promise((done) => {
    if (image.complete) done();
    for (const event of ["load", "error"]) image.addEventListener(event, done);
  });
