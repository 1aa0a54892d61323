// The tiles of a page of images, with their decisions and marks.

import {bars, element, fileName, number, requestPicture} from "./common.js";

export const MARKS = {false_alarm: "False alarm", miss: "Miss", confirmed: "Right"};
const MOST_EXPERTS = 4;

export function decisionAt(row, threshold) {
  if (row.score === null) return null;
  return row.score > threshold ? "anomalous" : "normal";
}

export function decisionText(row, threshold) {
  const decision = decisionAt(row, threshold);
  if (decision === null) return "Not scored";
  if (decision === "normal" && row.decision === "review") return "Review";
  return decision === "anomalous" ? "Anomalous" : "Normal";
}

// Whether a mark is valid for the decision that the reviewer sees.
export function fits(mark, row, threshold) {
  const decision = decisionAt(row, threshold);
  if (mark === "false_alarm") return decision === "anomalous";
  if (mark === "miss") return decision === "normal";
  if (mark === "none") return row.mark !== null;
  return decision !== null;
}

export function picturePath(run, row, what) {
  const path = `/v1/runs/${encodeURIComponent(run)}/images/${encodeURIComponent(row.row_key)}/${what}`;
  return `${path}?category=${encodeURIComponent(row.category)}`;
}

// Allow a line break after a folder, but not inside a file name.
function breakable(name) {
  return name.split("/").flatMap((part, index) => index ? ["/", element("wbr"), part] : [part]);
}

export class Tile {
  constructor(row, open) {
    this.row = row;
    this.picture = element("span", {class: "picture"});
    this.decision = element("strong");
    this.mark = element("span", {class: "mark"});
    this.stored = element("span", {class: "stored"}, `stored: ${row.decision}`);
    this.button = element("button", {type: "button", "data-key": row.row_key},
      this.picture,
      element("span", {class: "headline"}, this.decision, element("span", {class: "score"}, row.score === null ? "" : number(row.score))));
    this.button.addEventListener("click", () => open(row));
    const reason = row.error ? row.error.detail : row.reasons[0] ?? "";
    const strongest = [...row.experts].sort((a, b) => b.calibrated - a.calibrated).slice(0, MOST_EXPERTS);
    this.element = element("li", {class: "tile"}, this.button,
      element("div", {class: "facts"},
        element("p", {class: "signs"}, this.mark, this.stored),
        element("p", {class: "reason"}, reason),
        element("div", {class: "bars", role: "list", "aria-label": "Experts"}, ...bars(strongest, row.threshold)),
        element("p", {class: "note"}, ...breakable(fileName(row.source_uri)))));
  }

  show(threshold) {
    const decision = decisionAt(this.row, threshold);
    this.element.className = `tile ${decision ?? "unscored"}${decision === this.row.decision ? "" : " changed"}`;
    this.decision.textContent = decisionText(this.row, threshold);
    this.mark.textContent = this.row.mark ? MARKS[this.row.mark.mark] : "";
    this.mark.hidden = !this.row.mark;
    this.stored.hidden = decision === this.row.decision;
  }

  async load(run, signal) {
    if (this.row.status === "error") {
      this.picture.append("No picture");
      return;
    }
    try {
      const source = await requestPicture(picturePath(run, this.row, "thumbnail"), {signal});
      if (signal.aborted) URL.revokeObjectURL(source);
      else this.picture.replaceChildren(element("img", {src: source, alt: fileName(this.row.source_uri)}));
    } catch (error) {
      if (error.name !== "AbortError") this.picture.replaceChildren("No picture");
    }
  }

  close() {
    const image = this.picture.querySelector("img");
    if (image) URL.revokeObjectURL(image.src);
  }
}

// The neighbour of a tile in the direction of an arrow key, in the current layout.
export function neighbour(tiles, index, key) {
  const top = tiles[0].element.offsetTop;
  const columns = tiles.filter((tile) => tile.element.offsetTop === top).length;
  const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns}[key];
  return step === undefined ? undefined : tiles[index + step];
}
