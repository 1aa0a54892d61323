"""A new metric needs only a catalogue entry to appear in every output."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.runs import ScoredImage, write_archive, write_run
from support.trees import png

from uniad_ray import verbs
from uniad_ray.archive.stores.location import Location
from uniad_ray.cli.verbs.results.compare import as_text as compared_text
from uniad_ray.cli.verbs.results.evaluate import as_text as evaluated_text
from uniad_ray.metrics import catalogue
from uniad_ray.metrics.bootstrap import Resamples
from uniad_ray.metrics.catalogue import CatalogueEntry

NORMAL, ANOMALOUS = [0.1, 0.7, 0.3], [0.9, 0.6]


def clear_lead(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Fraction of the anomalous images that score above every normal one."""
    if labels.all() or not labels.any():
        return None
    return float((scores[labels] > scores[~labels].max()).mean())


def resampled_lead(drawn: Resamples) -> np.ndarray:
    return np.asarray((drawn.gained * (drawn.false == 0)).sum(axis=1) / drawn.anomalies)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two runs on one archive, the second with better scores, and a catalogue with an additional metric."""
    added = CatalogueEntry("clear_lead", "Clear lead", of_scores=clear_lead, resampled=resampled_lead)
    monkeypatch.setattr(catalogue, "CATALOGUE", (*catalogue.CATALOGUE, added))
    images = [ScoredImage(f"good{index}", png(index), score) for index, score in enumerate(NORMAL)]
    images += [
        ScoredImage(f"bad{index}", png(index, spot=True), score, label="anomalous", defect_kind="spot")
        for index, score in enumerate(ANOMALOUS)
    ]
    better = [replace(image, score=0.95 if image.label == "anomalous" else image.score) for image in images]
    archive = write_archive(tmp_path / "archive", images)
    return [write_run(tmp_path / f"run{index}", archive, scored).uri for index, scored in enumerate((images, better))]


def test_evaluate_prints_and_stores_a_new_metric(runs: list[str]) -> None:
    report = verbs.evaluate(runs[0], resamples=200)
    header, _, row, *_ = evaluated_text(report).splitlines()
    assert header.endswith("Clear lead")
    assert row.split()[-1] == "50.0"
    (entry,) = (entry for entry in report.metrics if entry.metric == "clear_lead" and entry.group == "all")
    # Resamples of two anomalous images can only have these fractions.
    assert (entry.value, entry.low, entry.high) == (0.5, 0.0, 1.0)
    stored = pq.read_table(f"{runs[0]}/evaluation/metrics.parquet").to_pylist()
    assert entry.model_dump() in stored


@pytest.mark.parametrize("kind", ["html", "markdown", "json", "parquet"])
def test_every_report_has_a_new_metric(runs: list[str], kind: str) -> None:
    path = verbs.report(runs[0], format=kind, resamples=0).path  # type: ignore[arg-type]
    if kind == "parquet":
        table = pq.read_table(path).to_pylist()
        assert {row["value"] for row in table if row["metric"] == "clear_lead"} == {0.5}
        return
    text = Location.parse(path).read_bytes().decode()
    if kind == "json":
        assert {row["value"] for row in json.loads(text)["metrics"] if row["metric"] == "clear_lead"} == {0.5}
        return
    assert "Clear lead" in text
    if kind == "markdown":
        assert any(line.endswith("| 50.0 |") for line in text.splitlines())
    else:
        assert '<td class="number">50.0<small></small></td>' in text


def test_compare_shows_a_new_metric(runs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "compare.html"
    report = verbs.compare(runs, out=str(out), resamples=0)
    (entry,) = (entry for entry in report.differences if entry.metric == "clear_lead" and entry.group == "all")
    assert (entry.baseline, entry.value, entry.difference) == (0.5, 1.0, 0.5)
    (line,) = (line for line in compared_text(report).splitlines() if "Clear lead" in line)
    assert line.split()[-3:] == ["50.0", "100.0", "+50.0"]
    page = out.read_text("utf-8")
    assert "Clear lead" in page
    assert "100.0<small>+50.0</small>" in page
