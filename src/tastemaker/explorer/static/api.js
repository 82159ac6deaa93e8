// Questions to the server. Its refusals become errors with the sentence that it gave.

let stamp = "";

export function setStamp(value) {
  stamp = value;
}

export async function ask(path, parameters = {}, signal) {
  const response = await reach(address(path, parameters), { signal });
  if (!response.ok) throw new Error(await reason(response));
  return response.json();
}

export async function askBytes(path, parameters = {}, signal) {
  const response = await reach(address(path, parameters), { signal });
  if (!response.ok) throw new Error(await reason(response));
  return response.arrayBuffer();
}

export async function send(path, body = {}) {
  const response = await reach(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(await reason(response));
  return response.json();
}

const HEIGHTS = [160, 320, 640, 1280]; // of thumbnails, as the server has them
const VIEW_STEP = 400;
const LARGEST_VIEW = 3200;

export function thumbnail(row, height) {
  const pixels = Math.floor(height * window.devicePixelRatio);
  return `/thumbnail/${row}/${HEIGHTS.find((high) => high >= pixels) ?? HEIGHTS.at(-1)}?v=${stamp}`;
}

export function view(row, size) {
  const steps = Math.max(1, Math.ceil((size * window.devicePixelRatio) / VIEW_STEP - 0.01));
  return `/view/${row}/${Math.min(LARGEST_VIEW, steps * VIEW_STEP)}?v=${stamp}`;
}

// Why a picture did not come; the browser does not tell.
export async function whyNot(source) {
  try {
    const response = await reach(source);
    return response.ok ? "" : (await response.text()).trim();
  } catch (error) {
    return error.message;
  }
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer: is tastemaker still running?");
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
