// Questions to the server. Its refusals become errors with the sentence that it gave.

// An error that is told where nobody catches it.
export class Refusal extends Error {}

// A function that gives up what was asked with the last signal that it returned, and returns the next one.
export function turns() {
  let controller = null;
  return () => {
    controller?.abort();
    controller = new AbortController();
    return controller.signal;
  };
}

let stamp = "";
const gone = document.getElementById("gone");

export function setStamp(value) {
  stamp = value;
}

// Every question says which rows the page has seen: numbers of rows mean others once new ones are shown.
export const ask = (path, parameters = {}, signal) => reach(address(path, { ...parameters, v: stamp }), { signal });

// Every order as well; `parameters` is the filter, where its answer depends on it.
export function send(path, body = {}, parameters = {}) {
  return reach(address(path, { ...parameters, v: stamp }), { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

const HEIGHTS = [320, 640, 960, 1280, 1920, 2560]; // few, so that the browser finds most pictures in its cache

// The address of a picture that is shown this high, in CSS pixels.
export function pictureAt(row, height) {
  const pixels = Math.floor(height * window.devicePixelRatio);
  return `/picture/${row}/${HEIGHTS.find((high) => high >= pixels) ?? 65_500}?v=${stamp}`;
}

// Why a picture did not come; the browser does not tell.
export async function whyNot(source) {
  try {
    const response = await request(source);
    return response.ok ? "no picture" : (await response.text()).trim();
  } catch (error) {
    return error.message;
  }
}

async function reach(path, options) {
  const response = await request(path, options);
  if (!response.ok) throw new Refusal(await reason(response));
  return response.json();
}

// A server that was stopped, or started anew with another token, is told where one looks, until it answers again.
async function request(path, options) {
  try {
    const response = await fetch(path, options);
    gone.hidden = response.status !== 403;
    return response;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    gone.hidden = false;
    throw new Refusal("the server does not answer");
  }
}

function address(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value !== null && value !== undefined) query.set(name, value);
  }
  return query.size ? `${path}?${query}` : path;
}

async function reason(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text.trim() || `the server answered ${response.status}`;
  }
}
