// The page that scores one image.

import {byId, element, number, paintMap, prepareKey, request, say} from "./common.js";

let shown = null;

async function loadCategories() {
  const {categories} = await (await request("/v1/categories")).json();
  const select = byId("category");
  const before = select.value;
  select.replaceChildren(...categories.map(({category}) => element("option", {value: category}, category)));
  if (categories.some(({category}) => category === before)) select.value = before;
  say(categories.length ? "" : "There is no category that can be scored.", !categories.length);
}

async function scoreFile(file) {
  const category = byId("category").value;
  if (!category) return say("Choose a category first.", true);
  say(`Scoring ${file.name}…`);
  byId("result").hidden = true;
  const path = `/v1/categories/${encodeURIComponent(category)}/score?map=png&nearest=3`;
  const body = new FormData();
  body.append("image", file, file.name || "image");
  const answer = await (await request(path, {method: "POST", body})).json();
  const image = answer.images[0];
  shown = {file, image};
  await showImage(file, image);
  showVerdict(image);
  byId("result").hidden = false;
  say("");
  byId("verdict").focus();
}

async function showImage(file, image) {
  const picture = byId("image");
  if (picture.src) URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  const canvas = byId("map");
  if (!image.map) {
    canvas.width = canvas.height = 1;
    return;
  }
  const {width, height, low, high, data} = image.map;
  const loaded = new Image();
  loaded.src = `data:image/png;base64,${data}`;
  await loaded.decode();
  const scratch = element("canvas", {width, height}).getContext("2d");
  scratch.drawImage(loaded, 0, 0);
  const rgba = scratch.getImageData(0, 0, width, height).data;
  const greys = new Uint8Array(width * height);
  for (let index = 0; index < greys.length; index++) greys[index] = rgba[4 * index];
  paintMap(canvas, greys, width, height, low, high, image.threshold);
}

function showVerdict(image) {
  const verdict = byId("verdict");
  verdict.textContent = image.decision === "anomalous" ? "Anomalous" : "Normal";
  verdict.className = image.decision;
  byId("score").textContent = `Score ${number(image.score)}, threshold ${number(image.threshold)}`;
  const reasons = image.reasons.length ? image.reasons : ["Nothing to say."];
  byId("reasons").replaceChildren(...reasons.map((reason) => element("li", {}, reason)));
  showExperts(image);
  byId("left-out").replaceChildren(...(image.left_out || []).map(({expert, reason}) =>
    element("p", {class: "note"}, `${expert} was left out: ${reason}`)));
  const nearest = image.nearest || [];
  byId("nearest-title").hidden = !nearest.length;
  byId("nearest").replaceChildren(...nearest.map((normal) => element("figure", {},
    element("img", {src: `data:image/jpeg;base64,${normal.thumbnail}`, alt: `A normal image like it: ${normal.image}`}),
    element("figcaption", {}, normal.image.split("/").slice(-2).join("/")))));
  const rows = Object.entries(image.lineage).flatMap(([name, value]) =>
    [element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, value)]);
  byId("lineage").replaceChildren(...rows);
}

function showExperts(image) {
  const most = Math.max(image.threshold * 1.5, ...image.experts.map(({calibrated}) => calibrated), 1);
  const place = (value) => `${Math.max(0, Math.min(100, 100 * value / most))}%`;
  byId("experts").replaceChildren(...image.experts.map(({expert, calibrated}) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("aria-hidden", "true");
    const bar = document.createElementNS(svg.namespaceURI, "rect");
    bar.setAttribute("height", "100%");
    bar.setAttribute("width", place(calibrated));
    const line = document.createElementNS(svg.namespaceURI, "line");
    for (const name of ["x1", "x2"]) line.setAttribute(name, place(image.threshold));
    line.setAttribute("y2", "100%");
    svg.append(bar, line);
    return element("div", {class: "bar", role: "listitem"},
      element("span", {}, expert.replaceAll("_", " ")), svg, element("span", {}, number(calibrated, 1)));
  }));
}

function guarded(action) {
  return async (...given) => {
    try {
      await action(...given);
    } catch (error) {
      say(error.message, true);
    }
  };
}

const load = guarded(loadCategories);
const score = guarded(scoreFile);

byId("file").addEventListener("change", (event) => event.target.files[0] && score(event.target.files[0]));
byId("category").addEventListener("change", () => shown && score(shown.file));
byId("form").addEventListener("submit", (event) => event.preventDefault());
byId("opacity").addEventListener("input", (event) => {
  byId("map").style.opacity = event.target.value / 100;
  byId("opacity-value").textContent = `${event.target.value} %`;
});
byId("map").style.opacity = 0.6;
const drop = byId("drop");
for (const name of ["dragover", "dragenter"]) {
  drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files[0]) score(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find(({type}) => type.startsWith("image/"));
  if (file) score(file);
});
prepareKey(load);
load();
