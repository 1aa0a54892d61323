"""Operating points of a small fitted bundle, with hand-written runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from support.fitted import CATEGORY, write_fitted
from support.runs import ScoredImage, write_archive, write_run
from support.trees import png

from uniad_ray.cli import cli
from uniad_ray.errors import BundleError, ConfigError
from uniad_ray.evaluation.operating_points import RATES, set_threshold
from uniad_ray.runs.plan import PlannedBundle
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.calibration import choose_threshold
from uniad_ray.scoring.tail import rate_above

SCORES = {"normal": (0.1, 0.2, 0.3, 1.4), "anomalous": (0.25, 1.0, 2.0, 3.0, 4.0)}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Root of the bundles, and the version of the fit."""
    folder = tmp_path_factory.mktemp("fitted")
    write_fitted(folder)
    root = str(folder / "bundles")
    return root, BundleStore(root).versions(CATEGORY).manifests[0].version


@pytest.fixture
def bundles(fitted: tuple[str, str]) -> str:
    """Root of the bundles with the version of the fit published."""
    root, version = fitted
    BundleStore(root).publish(CATEGORY, version)
    return root


def labelled_run(folder: Path, bundles: str, **changes: Any) -> str:
    pointer = BundleStore(bundles).pointer(CATEGORY)
    assert pointer is not None
    images = [
        ScoredImage(f"{label}-{score}", png(index), score, label=label, category=CATEGORY)
        for label, scores in SCORES.items()
        for index, score in enumerate(scores)
    ]
    archive = write_archive(folder / "archive", images)
    planned = PlannedBundle(**{"version": pointer.version, "digest": pointer.digest, **changes})
    return write_run(folder / "run", archive, images, bundle=planned).uri


def test_table_shows_rates_of_the_held_out_images(bundles: str) -> None:
    bundle = BundleStore(bundles).load(CATEGORY)
    scores = bundle.held_out_scores.fused
    report = set_threshold(bundles, CATEGORY)
    assert report.published is None
    assert report.held_out_images == len(scores)
    by_choice = {point.chosen_for: point for point in report.points if not point.is_current}
    for rate in RATES:
        threshold = choose_threshold(scores, rate).value
        point = next(point for point in report.points if point.threshold == threshold)
        assert point.expected_rate == rate_above(scores, threshold).expected
    (current,) = {point.threshold for point in report.points if point.is_current}
    assert current == bundle.manifest.calibration.threshold.value
    assert [point.threshold for point in report.points] == sorted(point.threshold for point in report.points)
    assert all(point.found is None for point in by_choice.values())
    assert BundleStore(bundles).pointer(CATEGORY) is not None


def test_published_threshold_changes_nothing_else(bundles: str) -> None:
    store = BundleStore(bundles)
    before = store.load(CATEGORY)
    report = set_threshold(bundles, CATEGORY, value=1.25)
    after = store.load(CATEGORY)
    assert after.manifest.version == report.published != before.manifest.version
    assert after.manifest.calibration.threshold.value == 1.25
    assert after.manifest.calibration.threshold.method == "set_by_hand"
    assert after.scorer().threshold == 1.25
    assert after.files == before.files
    assert after.manifest.lineage["earlier_threshold"]["version"] == before.manifest.version
    kept = {"version", "created_at", "calibration", "lineage"}
    assert after.manifest.model_dump(exclude=kept) == before.manifest.model_dump(exclude=kept)
    images, keys = before.reference.images, before.reference.scores.row_keys
    scored = [[verdict.score for verdict in each.scorer().score(keys, images)] for each in (before, after)]  # type: ignore[union-attr]
    assert scored[0] == scored[1]
    # A second one within the same second is another version.
    assert set_threshold(bundles, CATEGORY, value=1.5).published not in (report.published, before.manifest.version)


def test_rate_gives_the_threshold_of_a_fit_for_that_rate(bundles: str) -> None:
    expected = choose_threshold(BundleStore(bundles).load(CATEGORY).held_out_scores.fused, 0.2)
    set_threshold(bundles, CATEGORY, false_positive_rate=0.2)
    assert BundleStore(bundles).load(CATEGORY).manifest.calibration.threshold == expected


@pytest.mark.parametrize(
    ("misses", "threshold", "false_alarms", "found"), [(0, 0.225, 2, 5), (1, 0.65, 1, 4), (2, 1.7, 0, 3)]
)
def test_misses_of_a_labelled_run(
    bundles: str, tmp_path: Path, misses: int, threshold: float, false_alarms: int, found: int
) -> None:
    run = labelled_run(tmp_path, bundles)
    report = set_threshold(bundles, CATEGORY, from_run=run, misses=misses)
    (point,) = report.points
    assert point.threshold == pytest.approx(threshold)
    assert (point.false_alarms, point.found) == (false_alarms, found)
    assert (report.normal_images, report.anomalous_images) == (4, 5)
    published = BundleStore(bundles).load(CATEGORY).manifest
    assert published.calibration.threshold.method == "from_run"
    assert published.lineage["earlier_threshold"]["run"] == run
    # The run was scored with the earlier version; its scores still fit.
    table = set_threshold(bundles, CATEGORY, from_run=run).points
    assert next(point.found for point in table if point.is_current) == found
    assert sorted((point.found for point in table), reverse=True) == [point.found for point in table]


def test_review_threshold_lies_below_and_can_be_removed(bundles: str) -> None:
    before = BundleStore(bundles).load(CATEGORY)
    report = set_threshold(bundles, CATEGORY, value=5.0, review_rate=0.5)
    scorer = BundleStore(bundles).load(CATEGORY).scorer()
    assert (scorer.threshold, scorer.review_threshold) == (5.0, report.review_threshold)
    assert report.review_threshold == choose_threshold(before.held_out_scores.fused, 0.5).value
    # A threshold alone keeps it.
    assert set_threshold(bundles, CATEGORY, value=4.0).review_threshold == report.review_threshold
    with pytest.raises(ConfigError, match="not below the threshold"):
        set_threshold(bundles, CATEGORY, value=-9.0, review_rate=0.5)
    with pytest.raises(ConfigError, match=r"for review stays at .* not below the threshold -9\.000; give a larger"):
        set_threshold(bundles, CATEGORY, value=-9.0)
    assert set_threshold(bundles, CATEGORY, review_rate=0.0).review_threshold is None
    after = BundleStore(bundles).load(CATEGORY)
    assert (after.scorer().threshold, after.review_threshold()) == (4.0, None)


def test_run_of_another_fit_is_refused(bundles: str, tmp_path: Path) -> None:
    run = labelled_run(tmp_path, bundles, digest="0" * 64)
    with pytest.raises(BundleError, match="another fit than the published version"):
        set_threshold(bundles, CATEGORY, from_run=run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": 1.0, "false_positive_rate": 0.1}, "choose one of"),
        ({"misses": 1}, "--misses needs the labelled run"),
        ({"value": np.nan}, "not a finite number"),
        ({"false_positive_rate": 1.0}, "not between 0 and 1"),
        ({"review_rate": -0.1}, "not between 0 and 1"),
    ],
)
def test_wrong_options_are_refused(bundles: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        set_threshold(bundles, CATEGORY, **options)


def test_too_many_misses_are_refused(bundles: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--misses: 5 of 5 anomalous images of {CATEGORY}"):
        set_threshold(bundles, CATEGORY, from_run=labelled_run(tmp_path, bundles), misses=5)


def test_command_line(bundles: str, tmp_path: Path) -> None:
    run = labelled_run(tmp_path, bundles)
    shown = CliRunner().invoke(cli, ["threshold", bundles, CATEGORY, "--from-run", run], catch_exceptions=False).output
    assert "found in the run" in shown
    assert "5 of 5" in shown
    assert "--value THRESHOLD" in shown
    shown = CliRunner().invoke(cli, ["threshold", bundles, CATEGORY, "--value", "2.5"], catch_exceptions=False).output
    assert "2.500" in shown
    assert "undo with `uniad-ray bundles" in shown
