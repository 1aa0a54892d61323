// The page that scores one image.

import {
  bars, byId, clearMap, connectOpacity, description, drawMap, element, fileName, guarded, number, prepareKey,
  requestJson, say,
} from "./common.js";

let chosen = null;
let asking = null;

async function loadCategories() {
  const {categories} = await requestJson("/v1/categories");
  const select = byId("category");
  const before = select.value;
  select.replaceChildren(...categories.map(({category}) => element("option", {value: category}, category)));
  if (categories.some(({category}) => category === before)) select.value = before;
  say(categories.length ? "" : "No categories to score. Publish a bundle with uniad-ray fit.", !categories.length);
}

async function scoreFile(file) {
  chosen = file;
  const category = byId("category").value;
  if (!category) return say("Choose a category first.", true);
  // Only the latest image counts: abort the previous request.
  asking?.abort();
  asking = new AbortController();
  const {signal} = asking;
  say(`Scoring ${file.name}…`);
  byId("result").hidden = true;
  const path = `/v1/categories/${encodeURIComponent(category)}/score?map=png&nearest=3`;
  const body = new FormData();
  body.append("image", file, file.name || "image");
  const response = await requestJson(path, {method: "POST", body, signal});
  const image = response.images[0];
  // A browser shows 16-bit values unscaled, those of a 12-bit camera as black, and no TIFF.
  showImage(image.picture ? `data:image/jpeg;base64,${image.picture}` : URL.createObjectURL(file));
  await showMap(image);
  showRegion(image);
  showVerdict(image);
  if (signal.aborted) return undefined;
  byId("result").hidden = false;
  say("");
  byId("verdict").focus();
  return undefined;
}

function showImage(source) {
  const picture = byId("image");
  if (picture.src) URL.revokeObjectURL(picture.src);
  byId("no-image").hidden = true;
  picture.hidden = false;
  picture.src = source;
}

async function showMap(image) {
  const canvas = byId("map");
  clearMap(canvas);
  byId("opacity").disabled = !image.map;
  byId("map-note").textContent = image.map
    ? await drawMap(canvas, image.map, image.threshold, image.decision === "anomalous")
    : "The response has no map.";
}

function showRegion(image) {
  const line = byId("region");
  line.hidden = !image.region;
  if (image.region) line.src = `data:image/png;base64,${image.region}`;
}

function showVerdict(image) {
  const verdict = byId("verdict");
  verdict.textContent = {anomalous: "Anomalous", review: "Review"}[image.decision] ?? "Normal";
  verdict.className = image.decision;
  byId("score").textContent = `Score ${number(image.score)}, threshold ${number(image.threshold)} · ${image.image}`;
  const reasons = image.reasons.length ? image.reasons : ["None"];
  byId("reasons").replaceChildren(...reasons.map((reason) => element("li", {}, reason)));
  byId("experts").replaceChildren(...bars(image.experts, image.threshold));
  byId("left-out").replaceChildren(...(image.left_out || []).map(({expert, reason}) =>
    element("p", {class: "note"}, `${expert.replaceAll("_", " ")}: left out, ${reason}`)));
  const nearest = image.nearest || [];
  byId("nearest-title").hidden = !nearest.length;
  byId("nearest").replaceChildren(...nearest.map((normal) => element("figure", {},
    element("img", {src: `data:image/jpeg;base64,${normal.thumbnail}`, alt: `Similar normal image: ${normal.image}`}),
    element("figcaption", {}, fileName(normal.image)))));
  byId("lineage").replaceChildren(...description(image.lineage));
}

const score = guarded(scoreFile);
const load = guarded(async () => {
  await loadCategories();
  // The user has just entered a key: score the image that was waiting.
  if (chosen && byId("result").hidden) await scoreFile(chosen);
});

byId("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) score(file);
});
// Choosing the same file again scores it again.
byId("file").addEventListener("click", (event) => { event.target.value = ""; });
byId("category").addEventListener("change", () => chosen && score(chosen));
byId("form").addEventListener("submit", (event) => event.preventDefault());
byId("image").addEventListener("error", () => {
  byId("image").hidden = true;
  byId("region").hidden = true;
  byId("no-image").hidden = false;
});
connectOpacity(byId("opacity"), byId("opacity-value"), byId("map"));
const drop = byId("drop");
for (const name of ["dragover", "dragenter"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) score(file);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData?.files ?? []].find(({type}) => type.startsWith("image/"));
  if (file) score(file);
});
prepareKey(load);
load();
