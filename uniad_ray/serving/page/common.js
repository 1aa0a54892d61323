// What both pages share: the key, requests, and elements.

const STORED_KEY = "uniad_ray.key";

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}

export function say(text, isError = false) {
  const message = byId("message");
  message.textContent = text;
  message.className = isError ? "error" : "";
}

export class Problem extends Error {
  constructor(document_) {
    super(document_.detail || document_.title || "the endpoint failed");
    this.status = document_.status;
  }
}

export async function request(path, options = {}) {
  const key = sessionStorage.getItem(STORED_KEY);
  const headers = new Headers(options.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response;
  try {
    response = await fetch(path, {...options, headers});
  } catch {
    throw new Problem({detail: "the endpoint cannot be reached; is it running?"});
  }
  if (response.ok) return response;
  let problem = {status: response.status, detail: `the endpoint answered with ${response.status}`};
  try {
    problem = await response.json();
  } catch { /* not a problem document: a proxy answered */ }
  if (response.status === 401) {
    byId("key-button").hidden = false;
    askForKey();
  }
  throw new Problem(problem);
}

export function askForKey() {
  const dialog = byId("key-dialog");
  if (!dialog.open) dialog.showModal();
}

export function prepareKey(changed) {
  const dialog = byId("key-dialog");
  byId("key-button").addEventListener("click", askForKey);
  dialog.addEventListener("close", () => {
    const given = byId("key").value;
    byId("key").value = "";
    if (dialog.returnValue !== "save" || !given) return;
    sessionStorage.setItem(STORED_KEY, given);
    changed();
  });
}

export function number(value, digits = 2) {
  return value.toFixed(digits);
}

// A map as an image: transparent where nothing is wrong, then yellow to red.
export function paintMap(canvas, greys, width, height, low, high, threshold) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const from = Math.min(threshold, high);
  for (let index = 0; index < width * height; index++) {
    const value = low + (high - low) * greys[index] / 255;
    const strength = high > from ? Math.max(0, Math.min(1, (value - from) / (high - from))) : 0;
    pixels.data[4 * index] = 255;
    pixels.data[4 * index + 1] = Math.round(210 * (1 - strength));
    pixels.data[4 * index + 2] = 0;
    pixels.data[4 * index + 3] = value > from ? Math.round(90 + 165 * strength) : 0;
  }
  context.putImageData(pixels, 0, 0);
}
