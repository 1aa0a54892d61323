"""Text output of the verbs, from hand-written reports."""

from __future__ import annotations

from typing import Any

import pytest
from support.reports import make_metric

from uniad_ray.archive.manifest import RejectedFile
from uniad_ray.cli.verbs.data import caption, ingest
from uniad_ray.cli.verbs.endpoint import serve, serve_key
from uniad_ray.cli.verbs.models import bundles, fit, tune_clip
from uniad_ray.cli.verbs.results import compare, evaluate, report, score
from uniad_ray.evaluation.run import EvaluationReport
from uniad_ray.metrics.metric import Metric
from uniad_ray.pipelines.caption.job import CaptionReport
from uniad_ray.pipelines.fit.report import FitReport, FittedBundle
from uniad_ray.pipelines.ingest.job import IngestReport
from uniad_ray.pipelines.score.job import ScoreReport
from uniad_ray.pipelines.tune_clip.job import TunedClip, TuneReport
from uniad_ray.reporting.build import ReportResult
from uniad_ray.reporting.comparison.model import ComparedRun, ComparisonReport, DecisionChanges, Difference
from uniad_ray.runs.plan import CategoryCounts
from uniad_ray.runs.timings import StageSeconds
from uniad_ray.scoring.bundles.versions import BundleList, BundleVersion
from uniad_ray.serving.auth.key_file import MadeKey, RevokedKey
from uniad_ray.serving.command import Served


def words(line: str) -> str:
    """A line of a table without alignment."""
    return " ".join(line.split())


def ingested(**changes: Any) -> IngestReport:
    values: dict[str, Any] = {
        "archive": "a",
        "ingest_id": "i",
        "new_images": 5,
        "taken": 4,
        "known": 2,
        "changed": ("s/1.png",),
        "attached": 3,
        "rejected": (),
        "warnings": (),
        "skipped_shards": 0,
        "images": 7,
        "digest": "d" * 64,
    }
    return IngestReport.model_validate(values | changes)


def test_ingest_counts_every_file() -> None:
    assert ingest.as_text(ingested(warnings=("part: dark",))).splitlines() == [
        "a: 5 new images, 7 in all, digest dddddddddddd",
        "files: 4 taken, 2 known, 1 changed, 0 rejected, 3 masks and tables",
        "1 files have other content than before, which became new rows:",
        "  s/1.png",
        "warning: part: dark",
    ]


def test_ingest_lists_ten_changed_and_rejected_files() -> None:
    rejected = tuple(RejectedFile(source_uri=f"{index}.txt", reason="no image") for index in range(12))
    changed = tuple(f"{index}.png" for index in range(13))
    found = ingested(skipped_shards=2, rejected=rejected, changed=changed)
    assert ingest.as_text(found).splitlines()[2:] == [
        "2 shards were already done",
        "13 files have other content than before, which became new rows:",
        *(f"  {index}.png" for index in range(10)),
        "  ... and 3 more; --json lists them",
        "12 files were rejected:",
        *(f"  {index}.txt: no image" for index in range(10)),
        "  ... and 2 more; the manifest lists them",
    ]


@pytest.mark.parametrize(("known", "new", "fails"), [(0, 0, True), (1, 0, False), (0, 1, False)])
def test_ingest_says_if_all_files_were_rejected(known: int, new: int, fails: bool) -> None:
    found = ingested(known=known, new_images=new, rejected=(RejectedFile(source_uri="a", reason="no image"),))
    assert found.is_all_rejected == fails
    assert ("all files were rejected" in ingest.as_text(found)) == fails


def fitted(**changes: Any) -> FittedBundle:
    values: dict[str, Any] = {
        "category": "lids",
        "version": "7",
        "digest": "d",
        "method": "holdout",
        "fit_images": 8,
        "held_out_images": 2,
        "threshold": 1.23456,
        "skipped": {},
        "unusual": {},
        "published": True,
    }
    return FittedBundle(**{**values, **changes})


def test_fit_says_how_to_publish_unusual_images() -> None:
    found = FitReport(
        bundles="b",
        fitted=(fitted(unusual={"x.png": "unlike the others"}, published=False),),
        failed={"pins": "no normal images"},
    )
    assert fit.as_text(found).splitlines() == [
        "category  version  calibration  fitted on  held out  threshold",
        "--------  -------  -----------  ---------  --------  ---------",
        "lids      7        holdout              8         2  1.235",
        "not published: lids",
        "lids: x.png: unlike the others",
        "lids: check these images; if they are normal, publish with `uniad-ray bundles b --publish lids 7`",
        "failed: pins: no normal images",
    ]


def test_fit_lists_excluded_and_highest_images() -> None:
    entry = fitted(twins=2, excluded={"a/7.png": "scratched"}, highest={"a/3.png": 1.2, "a/1.png": 0.5})
    lines = fit.as_text(FitReport(bundles="b", fitted=(entry,), failed={})).splitlines()
    assert "lids: excluded a/7.png: scratched" in lines
    assert "lids: copies of other images: 2; each picture counts once" in lines
    assert lines[-2:] == ["  1.200  a/3.png", "  0.500  a/1.png"]
    assert "uniad-ray archive exclude" in lines[-3]


def test_fit_says_which_rate_the_images_support() -> None:
    entry = fitted(
        held_out_images=80,
        false_positive_rate=0.01,
        threshold_method="generalised_pareto",
        rate_interval=(0.0012, 0.031),
    )
    text = fit.as_text(FitReport(bundles="b", fitted=(entry,), failed={}))
    assert text.splitlines()[-1] == (
        "lids: threshold for 1 % false alarms, extrapolated from them (generalised pareto); expect 0.1 to 3.1 % of new "
        "normal images above it (90 % interval). 80 held-out images resolve rates from 1.2 % on."
    )


def test_fit_warns_of_a_threshold_from_one_image() -> None:
    text = fit.as_text(FitReport(bundles="b", fitted=(fitted(method="altered_copies"),), failed={}))
    assert "lids: calibrated on altered copies of its only normal image; the threshold is a guess" in text


def test_caption_counts_errors_and_says_how_to_retry() -> None:
    report = CaptionReport(
        sidecar="/c", model="m", images=9, errors={"cut": 2}, prompt_tokens=70, tokens=30, skipped_chunks=1
    )
    assert caption.as_text(report).splitlines() == [
        "1 chunks were already done",
        "2 images without a caption: cut",
        "ask again with --retry-errors",
        "/c: 7 of 9 images captioned, 70 tokens read, 30 written",
    ]


def test_score_counts_by_category() -> None:
    counts = CategoryCounts(images=9, errors=1, anomalous=3)
    found = ScoreReport(
        run="r",
        run_id="0a",
        images=9,
        errors=1,
        anomalous=3,
        categories={"lids": counts},
        skipped_chunks=4,
        seconds=StageSeconds(),
    )
    assert score.as_text(found).splitlines() == [
        "category  images  anomalous  errors",
        "--------  ------  ---------  ------",
        "lids           9          3       1",
        "4 chunks were already done",
        "r: run 0a, 9 rows",
    ]
    with_parts = found.model_copy(update={"parts": 5, "anomalous_parts": 2, "undecided_parts": 1})
    assert "5 parts by serial: 2 anomalous, 1 undecided because of errors" in score.as_text(with_parts)


def evaluation(*metrics: Metric, **changes: Any) -> EvaluationReport:
    values: dict[str, Any] = {
        "run": "r",
        "run_id": "0a",
        "splits": {"part": "test"},
        "metrics": metrics,
        "notes": (),
        "unlabelled_images": 0,
        "error_images": 0,
        "marked_images": 0,
        "random_weights": False,
        "confidence": 0.95,
        "resamples": 10,
    }
    return EvaluationReport(**{**values, **changes})


def test_evaluate_shows_metrics_decisions_and_experts() -> None:
    found = evaluation(
        make_metric("image_auroc", 0.9),
        make_metric("image_f1_max", 0.8),
        make_metric("recall", 0.75),
        make_metric("false_positive_rate", 0.1),
        make_metric("pixel_aupro", 0.5, limit=0.3),
        make_metric("image_auroc", 0.7, group="anomaly_type", name="logical"),
        make_metric("image_auroc", 0.6, expert="patch"),
        make_metric("image_auroc", 0.85, expert="text"),
        notes=("something is left out",),
        random_weights=True,
    )
    lines = evaluate.as_text(found).splitlines()
    assert words(lines[0]) == (
        "category anomalies normal anomalous image AUROC AP F1-max pixel AUROC AUPRO@0.3 sPRO@0.05"
    )
    assert words(lines[2]) == "part all anomalies 40 20 90.0 (85.0-95.0) - 80.0 - 50.0 -"
    assert words(lines[3]) == "part logical anomalies 40 20 70.0 (65.0-75.0) - - - - -"
    assert lines[4] == (
        "part: at the threshold, 4 of 40 normal images are false alarms and 5 of 20 anomalous images are missed"
    )
    assert lines[5] == "image AUROC of each expert alone:"
    assert words(lines[6]) == "category anomalies patch text"
    assert words(lines[8]) == "part all 60.0 85.0"
    assert lines[9:] == [
        "note: something is left out",
        "WARNING: a network had random weights; the metrics are meaningless",
        "r: run 0a, intervals 95 %",
    ]


def test_evaluate_without_labels_has_only_notes() -> None:
    text = evaluate.as_text(evaluation(notes=("no image has a label",)))
    assert text.splitlines() == ["note: no image has a label", "r: run 0a, intervals 95 %"]


def difference(metric: str, value: float, group: str = "all") -> Difference:
    return Difference(
        run="s",
        category="*",
        group=group,
        name="all",
        metric=metric,
        limit=None,
        baseline=0.5,
        value=value,
        difference=value - 0.5,
        low=-0.25,
        high=0.5,
        normal_images=4,
        anomalous_images=2,
    )


def test_compare_shows_metrics_and_changed_decisions() -> None:
    runs = tuple(
        ComparedRun(run=run, run_id="0a", code_version="1", bundles={}, images=6, called_anomalous=1, errors=0)
        for run in ("r", "s")
    )
    found = ComparisonReport(
        archive="a",
        archive_digest="d",
        runs=runs,
        differences=(
            difference("recall", 0.75),
            difference("image_f1_max", 0.75),
            difference("recall", 0.75, group="defect_kind"),
        ),
        changes=(
            DecisionChanges(run="s", images=6, changed=2, to_anomalous=1, to_normal=1, labelled=2, mended=1, broken=1),
        ),
        changed_images=(),
        notes=("a note",),
        confidence=0.95,
        resamples=10,
        path="page.html",
    )
    lines = compare.as_text(found).splitlines()
    assert lines[:2] == ["run 1: r (run 0a)", "run 2: s (run 0a)"]
    assert words(lines[4]) == "run 2 mean of categories all anomalies recall 50.0 75.0 +25.0 (-25.0 to +50.0)"
    assert lines[5:] == [
        "run 2: 2 of 6 decisions differ from run 1: 1 became anomalous, 1 became normal; "
        "by their labels, 1 became right, 1 became wrong",
        "note: a note",
        "page.html: comparison with pictures of the changed images",
    ]


def test_report_shows_path_and_size() -> None:
    found = ReportResult(
        run="r",
        run_id="0a",
        path="r/report.html",
        format="html",
        bytes=3 * 2**19,
        images=9,
        detailed=(),
        pictures=0,
        missing_pictures=0,
    )
    assert report.as_text(found) == "r/report.html: report of run 0a, 1.5 MiB"


def test_bundles_mark_the_published_version() -> None:
    versions = [
        BundleVersion(
            category="lids",
            version=str(number),
            published=number == 2,
            created_at="",
            code_version="1",
            profile="embedded",
            experts=("patch", "text"),
            fit_images=8,
            calibration="holdout",
            threshold=1.5,
            digest="d",
            bytes=2**20,
        )
        for number in (1, 2)
    ]
    lines = bundles.as_text(BundleList(root="b", bundles=tuple(versions))).splitlines()
    assert words(lines[2]) == "lids 1 embedded patch+text holdout 8 1.500 1.0 MiB"
    assert words(lines[3]) == "* lids 2 embedded patch+text holdout 8 1.500 1.0 MiB"


def test_tune_clip_shows_accuracy_and_omissions() -> None:
    tuned = TunedClip(
        category=None,
        folder="f",
        uri="file:f",
        sha256="5e",
        crops=30,
        held_out=10,
        accuracy_before=0.5,
        accuracy_after=0.9,
        epoch=0,
        epochs=4,
        classes={},
        left_out={"too small": 3},
    )
    found = TuneReport(namer="objects", labels="a folder", tuned=(tuned,), failed={"pins": "no objects"})
    lines = tune_clip.as_text(found).splitlines()
    assert lines[0] == "CLIP of objects, labels of a folder"
    assert words(lines[3]) == "all 30 10 50.0 90.0 0 of 4"
    assert lines[4:] == [
        "all: objects left out: 3 too small",
        "all: no epoch was better on held-out crops; the CLIP is unchanged",
        "file:f, sha256 5e",
        "failed: pins: no objects",
    ]


def test_serve_shows_a_command_to_try() -> None:
    found = Served(url="http://h:1/", categories=("lids", "pins"), is_open=False)
    assert serve.as_text(found).splitlines() == [
        "http://h:1/: serving lids, pins; press Ctrl-C to stop",
        "try: curl -H 'Authorization: Bearer KEY' -H 'Content-Type: image/png' --data-binary @IMAGE.png "
        "http://h:1/v1/categories/lids/score",
    ]


def test_key_is_shown_once() -> None:
    made = MadeKey(name="line", key="secret", keys="k.yaml")
    assert serve_key.made_as_text(made).splitlines() == [
        "secret",
        "k.yaml: key 'line', stored as a hash; the key is not shown again",
    ]
    assert serve_key.revoked_as_text(RevokedKey(name="line", keys="k.yaml")) == "k.yaml: revoked key 'line'"
