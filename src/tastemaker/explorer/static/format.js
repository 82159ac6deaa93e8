// Numbers and words for people.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });

export const count = (n) => whole.format(n);

export const compact = (n) => (n < 10_000 ? count(n) : short.format(n));

export function share(part, all) {
  if (!all) return "0.0%";
  const percent = (100 * part) / all;
  if (part && percent < 0.05) return "< 0.1%";
  return `${percent.toFixed(1)}%`;
}

export const range = (from, to) => Array.from({ length: Math.max(0, to - from) }, (_, n) => from + n);

export const images = (n) => `${count(n)} ${n === 1 ? "image" : "images"}`;

export function score(value, digits = 2) {
  return value === null || value === undefined ? "" : value.toFixed(digits);
}

export const stars = (n) => "★".repeat(n);

export const columnName = (name) => name.replaceAll("_", " ");

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name in made && !name.includes("-")) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const button = (textContent, onclick, properties = {}) => element("button", { type: "button", textContent, onclick, ...properties });
