// What the browser remembers of how one uses the page: theme, sizes, and what was said once.

const KEY = "tastemaker";

export const settings = JSON.parse(localStorage.getItem(KEY) ?? "{}");

export function keep(changes) {
  Object.assign(settings, changes);
  localStorage.setItem(KEY, JSON.stringify(settings));
}
