// Bars as the report draws them (chart.py): an SVG path, and the same once more in the colour of what passes, from --cut on.

import { element } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

export function makeBars() {
  const paths = ["", "passing"].map((name) => {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", name);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.append(document.createElementNS(SVG, "path"));
    return svg;
  });
  return element("div", { className: "bars", "aria-hidden": "true" }, ...paths);
}

// Shows the bars from one place to another, counted in bars: a place may lie within one.
export function setBars(host, counts, width, from = 0, to = counts.length) {
  const most = Math.max(1, ...counts);
  const gap = Math.min((to - from) / width, 0.5); // a pixel
  const bar = (size, n) => (size ? `M${n + gap / 2} 100V${100 - Math.max((100 * size) / most, 1)}h${1 - gap}V100z` : "");
  const drawn = counts.map(bar).join("");
  for (const svg of host.children) {
    svg.setAttribute("viewBox", `${from} 0 ${to - from} 100`);
    svg.firstChild.setAttribute("d", drawn);
  }
}
