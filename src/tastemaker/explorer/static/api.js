// Questions to the server. Its refusals become errors with the sentence that it gave.

let stamp = "";

export function setStamp(value) {
  stamp = value;
}

export async function ask(path, parameters = {}, signal) {
  const response = await fetch(address(path, parameters), { signal });
  if (!response.ok) throw new Error(await reason(response));
  return response.json();
}

export async function askBytes(path, parameters = {}, signal) {
  const response = await fetch(address(path, parameters), { signal });
  if (!response.ok) throw new Error(await reason(response));
  return response.arrayBuffer();
}

export async function send(path, body = {}) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(await reason(response));
  return response.json();
}

export const thumbnail = (row, height) => `/thumbnail/${row}/${inSteps(height, 40, 1280)}?v=${stamp}`;

export const view = (row, size) => `/view/${row}/${inSteps(size, 400, 3200)}?v=${stamp}`;

// Why a picture did not come; the browser does not tell.
export async function whyNot(source) {
  try {
    const response = await fetch(source);
    return response.ok ? "" : (await response.text()).trim();
  } catch {
    return "the server does not answer: is tastemaker still running?";
  }
}

function inSteps(pixels, step, most) {
  return Math.min(most, step * Math.max(1, Math.ceil((pixels * window.devicePixelRatio) / step - 0.01)));
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
