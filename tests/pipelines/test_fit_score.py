"""Fit, score and evaluate on a tree of images, with the real networks at a small size."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.profiles import small_config
from support.trees import mvtec_tree, png, write

from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ArchiveError, BundleError, RunError
from uniad_ray.evaluation.run import evaluate
from uniad_ray.pipelines.cluster.sizing import Workers
from uniad_ray.pipelines.fit.job import fit
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.pipelines.score.job import ScoreReport, score
from uniad_ray.runs.maps import decode_map
from uniad_ray.runs.plan import ScoreOptions, read_run
from uniad_ray.runs.timings import read_timings
from uniad_ray.scoring.bundles.versions import list_bundles, publish_bundle

pytestmark = pytest.mark.usefixtures("ray_cluster")
SMALL = ShardLimits(rows=6, row_group_rows=3)
ONE = Workers(count=1)


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:  # noqa: ARG001
    """An archive of two categories, one with corrupt files, and a bundle for each."""
    root = tmp_path_factory.mktemp("factory")
    bottle = mvtec_tree(root / "source/bottle", train=8, good=4, bad=4)
    write(bottle / "test/good/900.png", png(1)[:300])
    write(bottle / "train/good/900.png", png(2)[:300])
    mvtec_tree(root / "source/nut", train=8, good=3, bad=3, seed=1, size=64)
    ingest(str(root / "source"), str(root / "archive"), limits=SMALL)
    report = fit(str(root / "archive"), str(root / "bundles"), small_config())
    assert report.failed == {}
    return root


@pytest.fixture(scope="module")
def whole(factory: Path) -> tuple[str, ScoreReport]:
    """A run of all images with two actors, and its report; no test changes it."""
    run = str(factory / "whole")
    return run, score(str(factory / "archive"), str(factory / "bundles"), run, workers=Workers(count=2))


def run_rows(run: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for info in Location.parse(run).list(suffix=".parquet"):
        if info.relative.startswith("scores/"):
            found += pq.read_table(io.BytesIO(info.location.read_bytes())).to_pylist()
    return found


def run_bytes(run: str) -> dict[str, bytes]:
    """All files of a run except the timings, the only files that depend on the clock."""
    every = {info.relative: info.location.read_bytes() for info in Location.parse(run).list()}
    return {name: data for name, data in every.items() if not name.startswith("timings/")}


def test_every_image_gets_a_row_and_defects_are_found(factory: Path, whole: tuple[str, ScoreReport]) -> None:
    run, report = whole
    manifest = read_manifest(Location.parse(factory / "archive"))
    rows = run_rows(run)
    assert report.images == manifest.images == len(rows)
    assert len({row["row_key"] for row in rows}) == len(rows)
    errors = [row for row in rows if row["status"] == "error"]
    assert {Path(row["source_uri"]).name for row in errors} == {"900.png"}
    for row in errors:
        assert row["error_kind"] == "truncated"
        assert row["score"] is None
        assert row["decision"] is None
        assert row["error"]
    good = [row for row in rows if row["status"] == "ok"]
    bundles = {entry.category: entry for entry in list_bundles(str(factory / "bundles")).bundles}
    for row in good:
        assert row["bundle_digest"] == bundles[row["category"]].digest
        assert row["run_id"] == report.run_id
        assert row["decision"] == ("anomalous" if row["score"] > row["threshold"] else "normal")
        assert [entry["expert"] for entry in row["experts"]] == ["patch"]
        assert row["score"] == pytest.approx(row["experts"][0]["calibrated"])
    assert all(row["decision"] == "anomalous" for row in good if row["label"] == "anomalous")
    places = {(row["shard"], row["row_group"], row["row"]) for row in rows}
    expected = {(c.shard, c.row_group, index) for c in chunks(manifest) for index in range(c.rows)}
    assert places == expected
    finished = read_run(Location.parse(run))
    assert finished.weights["bottle"]["pyramid"]["weights"]["sha256"]
    assert not finished.random_weights


def test_metrics_are_computed_per_kind_and_stored(whole: tuple[str, ScoreReport], tmp_path: Path) -> None:
    run = shutil.copytree(whole[0], tmp_path / "evaluated")
    report = evaluate(str(run))
    values = {(entry.category, entry.name, entry.metric): entry for entry in report.metrics if entry.expert is None}
    assert values["bottle", "all", "image_auroc"].value == 1.0
    assert values["bottle", "spot", "image_auroc"].anomalous_images == 4
    assert values["bottle", "all", "image_auroc"].normal_images == 4
    pixel = values["bottle", "all", "pixel_auroc"].value
    assert pixel is not None
    assert pixel > 0.9
    assert values["*", "all", "image_auroc"].value == 1.0
    assert report.error_images == 1
    stored = pq.read_table(io.BytesIO((Location.parse(run) / "evaluation/metrics.parquet").read_bytes()))
    assert stored.num_rows == len(report.metrics)


def test_maps_option_selects_stored_maps(factory: Path, whole: tuple[str, ScoreReport]) -> None:
    archive, bundles = str(factory / "archive"), str(factory / "bundles")
    options = ScoreOptions(splits=("test",), maps="top", top_maps=2)
    score(archive, bundles, str(factory / "maps-top"), options=options, workers=ONE)
    options = ScoreOptions(splits=("test",), maps="none")
    score(archive, bundles, str(factory / "maps-none"), options=options, workers=ONE)

    def maps(run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for info in (Location.parse(factory / run) / "maps").list(suffix=".parquet"):
            found += pq.read_table(io.BytesIO(info.location.read_bytes())).to_pylist()
        return found

    rows = [row for row in run_rows(whole[0]) if row["status"] == "ok"]
    every = {row["row_key"]: row for row in maps("whole")}
    assert set(every) == {row["row_key"] for row in rows}
    for row in every.values():
        anomaly_map = decode_map(row["map"], row["height"], row["width"])
        assert anomaly_map.shape == (16, 16)
        assert np.isfinite(anomaly_map).all()
    expected = set()
    for category in ("bottle", "nut"):
        scored = [row for row in rows if (row["category"], row["split"]) == (category, "test")]
        own = sorted(scored, key=lambda row: -row["score"])
        expected |= {row["row_key"] for row in own[:2]}
    top = {row["row_key"]: row for row in maps("maps-top")}
    assert set(top) == expected
    assert all(top[key]["map"] == every[key]["map"] for key in top)
    assert maps("maps-none") == []
    assert not (Location.parse(factory / "maps-top") / "_map_candidates").has_children()


def test_interrupted_run_resumes_to_the_same_bytes(factory: Path, whole: tuple[str, ScoreReport]) -> None:
    archive, bundles = str(factory / "archive"), str(factory / "bundles")
    # With one actor; the uninterrupted run had two.
    score(archive, bundles, str(factory / "broken"), workers=ONE)
    broken = Location.parse(factory / "broken")
    names = [info.relative for info in (broken / "scores").list()]
    (broken / "manifest.json").delete()
    (broken / "chunks.parquet").delete()
    for name in names[1::2]:
        (broken / "scores" / name).delete()
    (broken / "maps" / names[1]).delete()
    report = score(archive, bundles, str(factory / "broken"))
    assert report.skipped_chunks == len(names[::2])
    first, second = read_timings(broken)
    assert (first.chunks, second.chunks) == (len(names), len(names[1::2]))
    assert min(second.seconds.decode, second.seconds.score, second.seconds.write, second.seconds.wall) > 0
    assert run_bytes(str(factory / "broken")) == run_bytes(whole[0])


def test_repeating_a_finished_run_does_nothing(factory: Path, whole: tuple[str, ScoreReport]) -> None:
    run, first = whole
    archive, bundles = str(factory / "archive"), str(factory / "bundles")
    before = run_bytes(run)
    again = score(archive, bundles, run)
    assert again.skipped_chunks > 0
    assert len(read_timings(Location.parse(run))) == 1
    assert (again.images, again.errors, again.run_id) == (first.images, first.errors, first.run_id)
    assert run_bytes(run) == before


def test_run_refuses_another_plan(factory: Path, tmp_path: Path) -> None:
    archive, bundles, run = str(factory / "archive"), str(tmp_path / "bundles"), str(tmp_path / "run")
    fit(archive, bundles, small_config(), categories=["nut"])
    options = ScoreOptions(categories=("nut",))
    score(archive, bundles, run, options=options, workers=ONE)
    (Location.parse(run) / "manifest.json").delete()
    with pytest.raises(RunError, match="option maps was all, is none"):
        score(archive, bundles, run, options=ScoreOptions(categories=("nut",), maps="none"))
    old = list_bundles(bundles).bundles[0].version
    fit(archive, bundles, small_config("experts.patch.config.memory_size=50"), categories=["nut"])
    with pytest.raises(RunError, match="bundle of nut was"):
        score(archive, bundles, run, options=options)
    publish_bundle(bundles, "nut", old)
    assert score(archive, bundles, run, options=options).images == 14


def test_all_steps_work_on_s3(s3_prefix: str, tmp_path: Path) -> None:
    tree = mvtec_tree(tmp_path / "cap", train=5, good=2, bad=2)
    ingest(str(tree), f"{s3_prefix}/archive", limits=SMALL)
    fit(f"{s3_prefix}/archive", f"{s3_prefix}/bundles", small_config())
    report = score(f"{s3_prefix}/archive", f"{s3_prefix}/bundles", f"{s3_prefix}/run", workers=ONE)
    assert report.images == 9
    values = {(entry.name, entry.metric): entry.value for entry in evaluate(f"{s3_prefix}/run").metrics}
    assert values["spot", "image_auroc"] == 1.0


def test_missing_bundle_is_reported_before_scoring(factory: Path, tmp_path: Path) -> None:
    bundles = str(tmp_path / "bundles")
    fit(str(factory / "archive"), bundles, small_config(), categories=["nut"])
    with pytest.raises(BundleError, match="no published bundle for bottle"):
        score(str(factory / "archive"), bundles, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_failed_categories_do_not_stop_the_others(tmp_path: Path) -> None:
    mvtec_tree(tmp_path / "source/good", train=4, good=1, bad=1)
    same = png(7)
    for index in range(4):
        write(tmp_path / f"source/same/train/good/{index}.png", same)
    write(tmp_path / "source/bare/test/spot/0.png", png(1, spot=True))
    ingest(str(tmp_path / "source"), str(tmp_path / "archive"))
    report = fit(str(tmp_path / "archive"), str(tmp_path / "bundles"), small_config())
    assert [entry.category for entry in report.fitted] == ["good"]
    assert "no normal images to fit on" in report.failed["bare"]
    assert "1 distinct normal images of 4" in report.failed["same"]
    assert [entry.category for entry in list_bundles(str(tmp_path / "bundles")).bundles] == ["good"]
    with pytest.raises(ArchiveError, match="no category gone; the archive has bare, good, same"):
        fit(str(tmp_path / "archive"), str(tmp_path / "bundles"), small_config(), categories=["gone"])


def test_corrupt_training_images_are_skipped_and_named(factory: Path) -> None:
    report = fit(str(factory / "archive"), str(factory / "bundles"), small_config(), categories=["bottle"])
    skipped = report.fitted[0].skipped
    assert [Path(uri).name for uri in skipped] == ["900.png"]
    assert next(iter(skipped.values())).startswith("truncated")


def test_identical_fit_makes_no_new_version(factory: Path) -> None:
    before = list_bundles(str(factory / "bundles")).bundles
    fit(str(factory / "archive"), str(factory / "bundles"), small_config(), categories=["nut"])
    assert list_bundles(str(factory / "bundles")).bundles == before


def test_fits_and_scores_plain_folders(tmp_path: Path) -> None:
    for index in range(6):
        write(tmp_path / f"known/{index}.png", png(index))
        write(tmp_path / f"night/{index}.png", png(50 + index, spot=index == 0))
    archive, bundles, run = (str(tmp_path / name) for name in ("archive", "bundles", "run"))
    ingest(str(tmp_path / "known"), archive, category="part", split="train", label="normal")
    ingest(str(tmp_path / "night"), archive, category="part")
    fit(archive, bundles, small_config())
    score(archive, bundles, run, options=ScoreOptions(splits=("archive",)), workers=ONE)
    rows = {Path(row["source_uri"]).name: row for row in run_rows(run)}
    assert len(rows) == 6
    assert max(rows, key=lambda name: rows[name]["score"]) == "0.png"
    assert rows["0.png"]["decision"] == "anomalous"
    report = evaluate(run)
    assert report.metrics == ()
    assert report.notes[-1].startswith("no image has a label, so there are no metrics")


def test_worker_errors_reach_the_user_unchanged(factory: Path, tmp_path: Path) -> None:
    archive, bundles = str(factory / "archive"), str(tmp_path / "bundles")
    report = fit(archive, bundles, small_config(), categories=["nut"])
    (tmp_path / "bundles/nut" / report.fitted[0].version / "experts/patch.json").write_text("{}")
    with pytest.raises(BundleError, match=r"patch\.json: checksum mismatch: the file is corrupt") as caught:
        score(archive, bundles, str(tmp_path / "run"), options=ScoreOptions(categories=("nut",)), workers=ONE)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run/manifest.json").exists()


def test_decoding_and_scoring_are_separate_stages(factory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from uniad_ray.pipelines.score import job as module

    names: list[str] = []
    built = module._dataset

    def watched(*arguments: Any) -> Any:
        dataset = built(*arguments)
        rows = dataset.iter_rows()

        class Watched:
            def iter_rows(self) -> Any:
                yield from rows
                names.append(dataset.stats())

        return Watched()

    monkeypatch.setattr(module, "_dataset", watched)
    options = ScoreOptions(categories=("nut",), splits=("test",), maps="none")
    score(str(factory / "archive"), str(factory / "bundles"), str(factory / "stages"), options=options, workers=ONE)
    assert "Map(decode_chunk)" in names[0]
    assert "MapBatches(ChunkScorer)" in names[0]
    assert "Map(decode_chunk)->MapBatches(ChunkScorer)" not in names[0]


def test_unusual_images_block_publishing_until_accepted(tmp_path: Path) -> None:
    tree = mvtec_tree(tmp_path / "source/bottle", train=16, good=1, bad=0)
    foreign = np.zeros((96, 96, 3), dtype=np.uint8)
    foreign[::8] = (20, 220, 40)
    buffer = io.BytesIO()
    Image.fromarray(foreign).save(buffer, format="PNG")
    write(tree / "train/good/foreign.png", buffer.getvalue())
    archive, bundles = str(tmp_path / "archive"), str(tmp_path / "bundles")
    ingest(str(tmp_path / "source"), archive)
    (held,) = fit(archive, bundles, small_config()).fitted
    assert [Path(uri).name for uri in held.unusual] == ["foreign.png"]
    assert not held.published
    with pytest.raises(BundleError, match="no published bundle"):
        score(archive, bundles, str(tmp_path / "run"))
    (accepted,) = fit(archive, bundles, small_config(), accept_unusual=True).fitted
    assert (accepted.version, accepted.published) == (held.version, True)
    assert accepted.unusual == held.unusual


def test_run_lists_its_experts(factory: Path, tmp_path: Path) -> None:
    archive, bundles, run = str(factory / "archive"), str(factory / "bundles"), str(tmp_path / "run")
    with pytest.raises(BundleError, match="has no expert text; it has patch"):
        score(archive, bundles, run, options=ScoreOptions(experts=("text",)))
    score(archive, bundles, run, options=ScoreOptions(experts=("patch",)), workers=ONE)
    assert read_run(Location.parse(run)).plan.options.experts == ("patch",)
    assert all([entry["expert"] for entry in row["experts"]] in (["patch"], []) for row in run_rows(run))


def test_config_keeps_its_origin_on_workers() -> None:
    import ray

    config = small_config().with_origin("mine.yaml")
    assert ray.get(ray.remote(lambda given: given.origin).remote(config)) == "mine.yaml"
