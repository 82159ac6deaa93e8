// Moves the cut-off over the histogram. Without it the page says the same of the cut that it was made for.
"use strict";
const root = document.documentElement;
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
});

const chart = document.querySelector(".chart");
if (chart) {
  const [low, high, first, step, decimals, scored, cutoff] = ["low", "high", "first", "step", "decimals", "scored", "cut"].map((name) => Number(chart.dataset[name]));
  const reaching = chart.dataset.reaching.split(" ").map(Number);
  const live = [...document.querySelectorAll("[data-live]")];
  const before = live.map((element) => element.textContent);
  const cut = chart.style.getPropertyValue("--cut");
  const moved = document.querySelector(".moved");

  const handle = document.createElement("input");
  Object.assign(handle, { type: "range", className: "handle", min: Math.round(low / step), max: Math.round(high / step) });
  handle.setAttribute("aria-label", "cut-off");
  chart.querySelector(".plot").removeAttribute("aria-hidden");
  chart.querySelector(".bars").after(handle);

  const show = () => {
    const number = Number(handle.value);
    const kept = number <= first ? scored : (reaching[number - first] ?? 0);
    const texts = {
      score: (number * step).toFixed(decimals),
      kept: kept.toLocaleString("en"),
      share: `${((100 * kept) / scored).toFixed(1)}%`,
      dropped: (scored - kept).toLocaleString("en"),
    };
    for (const element of live) element.textContent = texts[element.dataset.live];
    chart.style.setProperty("--cut", `${(100 * (number - handle.min)) / (handle.max - handle.min)}%`);
    handle.setAttribute("aria-valuetext", `${texts.score}, keeps ${texts.share}`);
    moved.hidden = false;
  };
  const reset = () => {
    live.forEach((element, number) => (element.textContent = before[number]));
    chart.style.setProperty("--cut", cut);
    handle.value = Math.round(cutoff / step);
    handle.setAttribute("aria-valuetext", `${before[0]}, keeps ${before[3]}`);
    moved.hidden = true;
  };
  handle.addEventListener("input", show);
  handle.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (direction && event.shiftKey) {
      event.preventDefault();
      handle.value = Number(handle.value) + 10 * direction;
      show();
    }
  });
  document.getElementById("back").addEventListener("click", () => {
    reset();
    handle.focus();
  });
  reset();
}
