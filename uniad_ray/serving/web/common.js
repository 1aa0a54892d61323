// Shared by both pages: access key, requests, elements, maps and bars.

const STORED_KEY = "uniad_ray.key";
const SVG = "http://www.w3.org/2000/svg";

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
    super(document_.detail || document_.title || "Internal error of the endpoint.");
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
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({detail: "Cannot reach the endpoint. Check that it is running."});
  }
  if (response.ok) return response;
  let problem = {status: response.status, detail: `The endpoint returned status ${response.status}.`};
  try {
    problem = await response.json();
  } catch { /* not a problem document: the response is a proxy's */ }
  if (response.status === 401) {
    byId("key-button").hidden = false;
    askForKey();
  }
  throw new Problem(problem);
}

export async function requestJson(path, options = {}) {
  return (await request(path, options)).json();
}

export async function requestPicture(path, options = {}) {
  return URL.createObjectURL(await (await request(path, options)).blob());
}

// Shows errors to the user, except those of aborted requests.
export function guarded(action) {
  return async (...given) => {
    try {
      return await action(...given);
    } catch (error) {
      if (error.name !== "AbortError") say(error.message, true);
      return undefined;
    }
  };
}

// Both pages use the same key dialog: it is built here and not in their HTML.
const keyInput = element("input", {type: "password", id: "key", autocomplete: "off", spellcheck: "false"});
const keyCancel = element("button", {type: "button", class: "quiet"}, "Cancel");
const keyForm = element("form", {},
  element("h2", {id: "key-title"}, "Access key"),
  element("p", {}, "Stored in this tab only, until you close it."),
  element("label", {for: "key"}, "Key"), " ", keyInput,
  element("p", {}, element("button", {}, "Use key"), " ", keyCancel));
const keyDialog = element("dialog", {id: "key-dialog", "aria-labelledby": "key-title"}, keyForm);

export function askForKey() {
  if (!keyDialog.open) keyDialog.showModal();
}

export function prepareKey(changed) {
  document.body.append(keyDialog);
  if (sessionStorage.getItem(STORED_KEY)) byId("key-button").hidden = false;
  byId("key-button").addEventListener("click", askForKey);
  keyCancel.addEventListener("click", () => keyDialog.close());
  keyForm.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = keyInput.value.trim();
    keyDialog.close();
    if (!given) return;
    sessionStorage.setItem(STORED_KEY, given);
    changed();
  });
  keyDialog.addEventListener("close", () => { keyInput.value = ""; });
}

export function number(value, digits = 2) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text;
}

export function count(value, unit) {
  return `${value.toLocaleString("en")} ${value === 1 ? unit : `${unit}s`}`;
}

export function fileName(path) {
  return path.split("/").slice(-2).join("/");
}

export function description(facts) {
  return Object.entries(facts).flatMap(([name, value]) =>
    [element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, String(value))]);
}

// One bar per expert, on a shared scale; the line marks the image threshold.
export function bars(experts, threshold) {
  const most = Math.max(threshold * 1.5, ...experts.map(({calibrated}) => calibrated), 1);
  const place = (value) => `${Math.max(0, Math.min(100, 100 * value / most))}%`;
  return experts.map(({expert, calibrated}) => {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("aria-hidden", "true");
    const bar = document.createElementNS(SVG, "rect");
    bar.setAttribute("height", "100%");
    bar.setAttribute("width", place(calibrated));
    const line = document.createElementNS(SVG, "line");
    for (const name of ["x1", "x2"]) line.setAttribute(name, place(threshold));
    line.setAttribute("y2", "100%");
    svg.append(bar, line);
    return element("div", {class: "bar", role: "listitem"},
      element("span", {}, expert.replaceAll("_", " ")), svg, element("span", {}, number(calibrated, 1)));
  });
}

export function connectOpacity(slider, output, canvas) {
  const apply = () => {
    canvas.style.opacity = slider.value / 100;
    output.textContent = `${slider.value} %`;
  };
  slider.addEventListener("input", apply);
  apply();
}

export function clearMap(canvas) {
  canvas.width = canvas.height = 1;
}

// Position (0 at the mean of normal images, 0.5 at the threshold, 1 at the top), then red, green, blue and opacity.
// The colours match those of the report.
const HEAT = [
  [0.25, 255, 236, 140, 0], [0.5, 255, 190, 60, 110], [0.75, 238, 70, 40, 150], [1, 128, 0, 90, 175],
];

// Draws the map of a response and describes it in words. An anomalous image can have a low map if no single region
// exceeds the threshold; the map is then coloured relative to its own maximum.
export async function drawMap(canvas, map, threshold, isAnomalous) {
  const {width, height, low, high, data} = map;
  const loaded = new Image();
  loaded.src = `data:image/png;base64,${data}`;
  await loaded.decode();
  const scratch = element("canvas", {width, height}).getContext("2d");
  scratch.drawImage(loaded, 0, 0);
  const isRelative = isAnomalous && high > 0 && high < threshold;
  const middle = isRelative ? high : threshold;
  const start = Math.min(0, middle - 1);
  const top = Math.max(high, 2 * middle - start);
  // A map has 256 levels: compute the colour of each once.
  const colours = Array.from({length: 256}, (_, grey) => {
    const value = low + (high - low) * grey / 255;
    return heat(value <= middle ? 0.5 * (value - start) / (middle - start) : 0.5 + 0.5 * (value - middle) / (top - middle));
  });
  const pixels = scratch.getImageData(0, 0, width, height);
  for (let index = 0; index < pixels.data.length; index += 4) pixels.data.set(colours[pixels.data[index]], index);
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  if (isRelative) return "No single region exceeds the threshold; the highest regions are yellow.";
  if (colours[255][3] === 0) return "All map values are low.";
  return "Yellow: near the threshold. Red and purple: above it.";
}

function heat(position) {
  const place = Math.max(HEAT[0][0], Math.min(1, position));
  const next = Math.max(1, HEAT.findIndex(([stop]) => place <= stop));
  const [from, to] = [HEAT[next - 1], HEAT[next]];
  const part = (place - from[0]) / (to[0] - from[0]);
  return from.slice(1).map((value, channel) => Math.round(value + part * (to[channel + 1] - value)));
}
