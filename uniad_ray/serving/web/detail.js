// Detail view of one image of a run: map, reasons, experts, lineage and mark.

import {
  bars, byId, clearMap, connectOpacity, description, drawMap, element, fileName, number, requestJson, requestPicture,
} from "./common.js";
import {MARKS, decisionAt, decisionText, fits, picturePath} from "./tiles.js";

export const KEYS = {f: "false_alarm", m: "miss", r: "confirmed", w: "none"};

export class Detail {
  // `step` shows a neighbour, `mark` stores a mark, `closed` receives the last row shown.
  constructor({step, mark, closed}) {
    this.row = null;
    this.dialog = byId("detail");
    this.loading = null;
    this.mark = mark;
    connectOpacity(byId("detail-opacity"), byId("detail-opacity-value"), byId("detail-map"));
    byId("detail-previous").addEventListener("click", () => step(-1));
    byId("detail-next").addEventListener("click", () => step(1));
    byId("detail-close").addEventListener("click", () => this.dialog.close());
    for (const button of byId("detail-marks").children) {
      button.addEventListener("click", () => this.markAs(button.dataset.mark));
    }
    this.dialog.addEventListener("close", () => {
      this.loading?.abort();
      closed(this.row);
    });
    this.dialog.addEventListener("keydown", (event) => {
      if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "ArrowLeft") step(-1);
      else if (event.key === "ArrowRight") step(1);
      else if (event.key.toLowerCase() in KEYS) this.markAs(KEYS[event.key.toLowerCase()]);
      else return;
      event.preventDefault();
    });
  }

  async show(run, category, row, threshold, mayReview, place) {
    this.row = row;
    this.loading?.abort();
    this.loading = new AbortController();
    byId("detail-title").textContent = fileName(row.source_uri);
    byId("detail-previous").disabled = !place.hasPrevious;
    byId("detail-next").disabled = !place.hasNext;
    byId("detail-message").textContent = "";
    byId("detail-note").value = row.mark?.note ?? "";
    byId("detail-label").textContent = row.label ? `Label: ${row.label}${row.defect_kind ? `, ${row.defect_kind}` : ""}` : "No label";
    const reasons = row.error ? [row.error.detail] : row.reasons.length ? row.reasons : ["None"];
    byId("detail-reasons").replaceChildren(...reasons.map((reason) => element("li", {}, reason)));
    byId("detail-experts").replaceChildren(...bars(row.experts, row.threshold));
    byId("detail-lineage").replaceChildren(...description({
      ...row.metadata, image: row.source_uri, split: row.split, row_key: row.row_key, run: `${run.name}, ${run.run_id}`,
      bundle_version: category.bundle_version, bundle_digest: category.bundle_digest, code_version: run.code_version,
    }));
    this.showMark(threshold, mayReview);
    if (!this.dialog.open) this.dialog.showModal();
    if (!this.dialog.contains(document.activeElement) || document.activeElement.disabled) byId("detail-title").focus();
    await Promise.all([this.loadImage(run, row), this.loadMap(run, row)]);
  }

  showMark(threshold, mayReview) {
    const {row} = this;
    const decision = byId("detail-decision");
    decision.className = `decision ${decisionAt(row, threshold) ?? "error"}`;
    const isOther = decisionAt(row, threshold) !== (row.decision === "review" ? "normal" : row.decision);
    decision.textContent = decisionText(row, threshold) + (isOther ? ` (stored: ${row.decision})` : "")
      + (row.score === null ? "" : ` · score ${number(row.score)}, threshold ${number(threshold)}`);
    for (const button of byId("detail-marks").children) {
      const isSet = row.mark?.mark === button.dataset.mark;
      button.disabled = !mayReview || !fits(button.dataset.mark, row, threshold);
      button.classList.toggle("quiet", !isSet);
      if (button.dataset.mark !== "none") button.setAttribute("aria-pressed", String(isSet));
    }
    byId("detail-note").disabled = !mayReview;
    byId("detail-marked").textContent = row.mark
      ? `${MARKS[row.mark.mark]}, by ${row.mark.reviewer}, ${new Date(row.mark.marked_at).toLocaleString()}`
      : mayReview ? "Not marked" : "Not marked. This access key cannot set marks.";
  }

  async markAs(mark) {
    const button = byId("detail-marks").querySelector(`[data-mark=${mark}]`);
    if (button.disabled) return;
    byId("detail-message").textContent = await this.mark(this.row, mark, byId("detail-note").value);
  }

  async loadImage(run, row) {
    const {signal} = this.loading;
    const image = byId("detail-image");
    const missing = byId("detail-no-image");
    if (image.src) URL.revokeObjectURL(image.src);
    image.removeAttribute("src");
    image.alt = `Image ${fileName(row.source_uri)}`;
    image.hidden = false;
    missing.hidden = true;
    try {
      const source = await requestPicture(picturePath(run.name, row, "image"), {signal});
      if (signal.aborted) URL.revokeObjectURL(source);
      else image.src = source;
    } catch (error) {
      if (signal.aborted) return;
      image.hidden = true;
      missing.textContent = error.message;
      missing.hidden = false;
    }
  }

  async loadMap(run, row) {
    const {signal} = this.loading;
    const canvas = byId("detail-map");
    const note = byId("detail-map-note");
    clearMap(canvas);
    byId("detail-opacity").disabled = true;
    note.textContent = "";
    if (run.maps === "none" || row.status === "error") {
      note.textContent = "No map is stored for this image.";
      return;
    }
    try {
      const map = await requestJson(picturePath(run.name, row, "map"), {signal});
      if (signal.aborted) return;
      note.textContent = await drawMap(canvas, map, row.threshold, row.decision === "anomalous");
      byId("detail-opacity").disabled = false;
    } catch (error) {
      if (!signal.aborted) note.textContent = error.message;
    }
  }
}
