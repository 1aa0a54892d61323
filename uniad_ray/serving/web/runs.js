// The page that browses the images of runs. The URL holds the current view, which makes it shareable.

import {byId, count, element, fileName, guarded, number, prepareKey, requestJson, say} from "./common.js";
import {Detail, KEYS} from "./detail.js";
import {MARKS, Tile, fits, neighbour} from "./tiles.js";

const PAGE = 24;
const FILTERS = ["run", "category", "decision", "mark", "min_score", "max_score", "order"];
const WHAT_IF_PAUSE = 60;
const RELOAD_PAUSE = 250;
const READING_PAUSE = 2000;

let runs = [];
let mayReview = false;
let tiles = [];
let total = 0;
let offset = 0;
let stored = null;
let threshold = null;
let listing = null;
let asking = null;

const currentRun = () => runs.find(({name}) => name === byId("run").value);
const currentCategory = () => currentRun()?.categories.find(({category}) => category === byId("category").value);
const base = () => `/v1/runs/${encodeURIComponent(byId("run").value)}`;

// URL and filter form.

function readAddress() {
  const asked = new URLSearchParams(location.search);
  fillOptions(byId("run"), runs.map(({name}) => name), asked.get("run"));
  fillOptions(byId("category"), (currentRun()?.categories ?? []).map(({category}) => category), asked.get("category"));
  for (const name of FILTERS.slice(2)) {
    const field = byId(name);
    field.value = asked.get(name) ?? "";
    if (field.selectedIndex === -1) field.selectedIndex = 0;
  }
  offset = Math.max(0, Number.parseInt(asked.get("offset"), 10) || 0);
  const moved = Number.parseFloat(asked.get("threshold"));
  threshold = Number.isFinite(moved) ? moved : null;
  stored = null;
}

function fillOptions(select, names, wanted) {
  select.replaceChildren(...names.map((name) => element("option", {value: name}, name)));
  if (names.includes(wanted)) select.value = wanted;
}

function address() {
  const asked = new URLSearchParams();
  for (const name of FILTERS) {
    const {value} = byId(name);
    if (value && !(name === "order" && value === "highest")) asked.set(name, value);
  }
  if (isMoved()) asked.set("threshold", String(threshold));
  if (offset) asked.set("offset", String(offset));
  return `/runs?${asked}`;
}

function writeAddress(isNewStep) {
  if (address() === location.pathname + location.search) return;
  history[isNewStep ? "pushState" : "replaceState"](null, "", address());
}

const isMoved = () => threshold !== null && threshold !== stored;

// List of images.

async function loadTiles() {
  listing?.abort();
  listing = new AbortController();
  const {signal} = listing;
  const asked = new URLSearchParams({category: byId("category").value, offset, limit: PAGE, order: byId("order").value});
  for (const name of ["mark", "min_score", "max_score"]) if (byId(name).value) asked.set(name, byId(name).value);
  const decision = byId("decision").value;
  if (decision === "error") asked.set("status", "error");
  else if (decision) asked.set("decision", decision);
  if (threshold !== null) asked.set("threshold", threshold);
  const page = await requestJson(`${base()}/images?${asked}`, {signal});
  if (offset && !page.images.length && page.total) {
    offset = PAGE * Math.floor((page.total - 1) / PAGE);
    return loadTiles();
  }
  stored = page.threshold;
  threshold ??= stored;
  total = page.total;
  tiles.forEach((tile) => tile.close());
  tiles = page.images.map((row) => new Tile(row, open));
  tiles.forEach((tile) => tile.show(threshold));
  byId("tiles").replaceChildren(...tiles.map((tile) => tile.element));
  byId("place").textContent = total
    ? `${(offset + 1).toLocaleString("en")} to ${(offset + tiles.length).toLocaleString("en")} of ${count(total, "image")}`
    : "No images match the filters.";
  for (const button of document.querySelectorAll(".previous")) button.disabled = offset === 0;
  for (const button of document.querySelectorAll(".next")) button.disabled = offset + tiles.length >= total;
  byId("found").hidden = false;
  // Pictures load in the background.
  for (const tile of tiles) tile.load(byId("run").value, signal);
  return undefined;
}

async function turn(pages) {
  const to = offset + pages * PAGE;
  if (to < 0 || to >= total) return false;
  offset = to;
  writeAddress(true);
  await loadTiles();
  return true;
}

// Threshold.

async function askWhatIf() {
  asking?.abort();
  asking = new AbortController();
  const asked = new URLSearchParams({category: byId("category").value});
  if (threshold !== null) asked.set("threshold", threshold);
  const change = await requestJson(`${base()}/threshold?${asked}`, {signal: asking.signal});
  stored = change.stored_threshold;
  threshold ??= stored;
  showThreshold(change);
  byId("change").textContent = changeText(change);
}

function showThreshold({lowest_score: lowest, highest_score: highest}) {
  const slider = byId("threshold");
  const low = Math.floor(Math.min(lowest ?? 0, stored, threshold));
  const high = Math.ceil(Math.max(highest ?? 1, stored, threshold));
  slider.min = low;
  slider.max = high;
  slider.step = (high - low) / 1000;
  if (document.activeElement !== slider) slider.value = threshold;
  if (document.activeElement !== byId("threshold-number")) byId("threshold-number").value = shortNumber(threshold);
  byId("threshold-reset").textContent = `Reset to ${number(stored)}`;
  byId("threshold-reset").disabled = !isMoved();
  byId("threshold-panel").hidden = false;
  showPublish();
}

// The root of the bundles is not known here; a reader of runs need not know it.
function showPublish() {
  const category = byId("category").value;
  const quoted = /^[\w.-]+$/.test(category) ? category : `'${category.replaceAll("'", "'\\''")}'`;
  byId("publish-command").textContent = `uniad-ray threshold BUNDLES ${quoted} --value ${threshold}`;
  byId("publish").hidden = !isMoved();
}

const shortNumber = (value) => String(Number(value.toFixed(3)));

function changeText(change) {
  const now = change.errors_after;
  const wrong = ({false_alarms: alarms, misses}) => `${count(alarms, "false alarm")}, ${misses === 1 ? "1 miss" : `${misses.toLocaleString("en")} misses`}`;
  const known = now ? ` ${count(change.labelled_normal + change.labelled_anomalous, "image")} with label or mark: ` : "";
  if (!isMoved()) {
    return `Stored threshold: ${change.anomalous_before.toLocaleString("en")} of ${count(change.images, "image")} anomalous.`
      + (now ? `${known}${wrong(now)}.` : "");
  }
  const one = change.changed === 1;
  return `${count(change.changed, "decision")} ${one ? "changes" : "change"}: ${change.to_anomalous.toLocaleString("en")} to anomalous, `
    + `${change.to_normal.toLocaleString("en")} to normal. ${change.anomalous_after.toLocaleString("en")} of ${count(change.images, "image")} anomalous `
    + `(stored: ${change.anomalous_before.toLocaleString("en")}).`
    + (now ? `${known}${wrong(now)} (stored: ${wrong(change.errors_before)}).` : "");
}

function later(action, pause) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, pause);
  };
}

const whatIfSoon = later(guarded(askWhatIf), WHAT_IF_PAUSE);
const reloadSoon = later(guarded(async () => {
  offset = 0;
  writeAddress(false);
  await loadTiles();
}), RELOAD_PAUSE);
const writeSoon = later(() => writeAddress(false), RELOAD_PAUSE);

function moveThreshold(value) {
  if (!Number.isFinite(value)) return;
  threshold = value;
  byId("threshold-reset").disabled = !isMoved();
  tiles.forEach((tile) => tile.show(threshold));
  whatIfSoon();
  if (byId("decision").value || byId("order").value === "threshold") reloadSoon();
  else writeSoon();
}

// Detail view.

function open(row) {
  const index = tiles.findIndex((tile) => tile.row === row);
  const place = {hasPrevious: offset + index > 0, hasNext: offset + index + 1 < total};
  return detail.show(currentRun(), currentCategory(), row, threshold, mayReview, place);
}

const detail = new Detail({
  step: guarded(async (by) => {
    const index = tiles.findIndex((tile) => tile.row === detail.row) + by;
    if (index >= 0 && index < tiles.length) return open(tiles[index].row);
    return await turn(by) ? open(tiles.at(by > 0 ? 0 : -1).row) : undefined;
  }),
  mark: setMark,
  closed: (row) => tiles.find((tile) => tile.row === row)?.button.focus(),
});

async function setMark(row, mark, note = "") {
  const entry = {row_key: row.row_key, category: row.category, mark};
  if (isMoved()) entry.threshold = threshold;
  if (note.trim() && mark !== "none") entry.note = note.trim();
  let text = "";
  try {
    const {marks} = await requestJson(`${base()}/marks`, {
      method: "POST", body: JSON.stringify({marks: [entry]}), headers: {"Content-Type": "application/json"},
    });
    row.mark = mark === "none" ? null : marks[0];
    text = `${mark === "none" ? "Mark withdrawn" : MARKS[mark]}: ${fileName(row.source_uri)}`;
    say(text);
    whatIfSoon();
  } catch (error) {
    text = error.message;
    say(text, true);
  }
  tiles.find((tile) => tile.row === row)?.show(threshold);
  if (detail.row === row) detail.showMark(threshold, mayReview);
  return text;
}

// User actions.

// Reading a large run can take longer than the time limit of a request.
async function patiently(action) {
  for (;;) {
    try {
      return await action();
    } catch (error) {
      if (error.status !== 504) throw error;
      say("Still reading the run. Large runs take a while…");
      await new Promise((done) => setTimeout(done, READING_PAUSE));
    }
  }
}

async function show() {
  const run = currentRun();
  byId("found").hidden = byId("threshold-panel").hidden = true;
  if (!runs.length) return say("No runs. Start the endpoint with --runs RUN to browse one.");
  if (run.problem) return say(run.problem, true);
  say("Loading the run…");
  await patiently(() => Promise.all([loadTiles(), askWhatIf()]));
  const when = run.created_at ? `, scored ${new Date(run.created_at).toLocaleString()}` : "";
  const category = currentCategory();
  return say(`Run ${run.run_id}${when}, bundle ${category.bundle_version}${category.errors ? `; ${count(category.errors, "image")} not scored` : ""}.`);
}

const start = guarded(async () => {
  say("Loading runs…");
  ({runs, may_review: mayReview} = await requestJson("/v1/runs"));
  readAddress();
  await show();
});

const filter = guarded(async (event) => {
  if (event.target.id === "run") fillOptions(byId("category"), (currentRun().categories).map(({category}) => category), byId("category").value);
  if (["run", "category"].includes(event.target.id)) stored = threshold = null;
  offset = 0;
  writeAddress(true);
  await (stored === null ? show() : loadTiles());
});

byId("filters").addEventListener("change", filter);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("threshold").addEventListener("input", (event) => {
  byId("threshold-number").value = shortNumber(event.target.valueAsNumber);
  moveThreshold(event.target.valueAsNumber);
});
byId("threshold-number").addEventListener("input", (event) => {
  byId("threshold").value = event.target.value;
  moveThreshold(event.target.valueAsNumber);
});
byId("threshold-reset").addEventListener("click", () => {
  byId("threshold").value = stored;
  byId("threshold-number").value = shortNumber(stored);
  moveThreshold(stored);
  byId("threshold").focus();
});
for (const [name, by] of [["previous", -1], ["next", 1]]) {
  const go = guarded(async () => {
    if (await turn(by)) byId("found").scrollIntoView();
  });
  for (const button of document.querySelectorAll(`.${name}`)) button.addEventListener("click", go);
}
byId("tiles").addEventListener("keydown", guarded(async (event) => {
  const index = tiles.findIndex((tile) => tile.button === event.target);
  if (index === -1 || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const {row} = tiles[index];
  const next = neighbour(tiles, index, key);
  if (next) next.button.focus();
  else if (key === "n" || key === "p") {
    if (await turn(key === "n" ? 1 : -1)) tiles[0]?.button.focus();
  } else if (key in KEYS) {
    if (mayReview && fits(KEYS[key], row, threshold)) await setMark(row, KEYS[key]);
    else say(mayReview ? "This mark does not fit the decision." : "This access key cannot set marks.", true);
  } else return;
  event.preventDefault();
}));
window.addEventListener("popstate", guarded(async () => {
  readAddress();
  await show();
}));
prepareKey(start);
start();
