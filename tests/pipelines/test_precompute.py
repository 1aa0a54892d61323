"""Precomputed fields equal those of fit and score bit by bit, and are not computed again."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from support.counted import Passes
from support.profiles import small_config
from support.trees import mvtec_tree, png, write

from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.archive.scenes.writing import write_scenes
from uniad_ray.archive.shards import ShardLimits, read_chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import SidecarError
from uniad_ray.perception.text.descriptions import Description
from uniad_ray.pipelines.cluster.sizing import Workers
from uniad_ray.pipelines.fit.job import fit
from uniad_ray.pipelines.fit.report import FittedBundle
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.pipelines.precompute.job import PrecomputeReport, precompute
from uniad_ray.pipelines.score.job import score
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.reference_files import REFERENCE_IMAGES
from uniad_ray.sidecars.plan import read_sidecar

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]
TRAIN, TEST = 12, 6


class Factory(NamedTuple):
    """A category of trays with a corrupt image, precomputed and fitted."""

    archive: str
    config: FitConfig
    passes: Passes
    features: PrecomputeReport
    without: FittedBundle
    passes_without: int
    fitted: FittedBundle
    passes_with: int
    bundles: str
    sidecar: PrecomputeReport


def stored(root: str) -> dict[str, bytes]:
    """All files except the timings, the only files that depend on the clock."""
    every = {info.relative: info.location.read_bytes() for info in Location.parse(root).list()}
    return {name: data for name, data in every.items() if not name.startswith("timings/")}


def rows(sidecar: str, stage: str, chunk: str) -> list[dict[str, Any]]:
    data = (Location.parse(sidecar) / f"{stage}/{chunk}.parquet").read_bytes()
    return list(pq.read_table(io.BytesIO(data)).to_pylist())


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Factory:  # noqa: ARG001
    root = tmp_path_factory.mktemp("precomputed")
    counts = {"train": TRAIN, "test_good": 3, "logical": 2, "structural": 1}
    write_scenes(str(root / "source"), SceneConfig(image_size=128, **counts))
    write(root / "source/trays/test/good/999.png", png(1)[:300])
    archive = str(root / "archive")
    ingest(str(root / "source"), archive, limits=ShardLimits(row_group_rows=6))
    passes = Passes(root / "passes")
    config = small_config(
        "image_size=[128, 128]",
        "expert_set=tmuad",
        "calibration.folds=2",
        *passes.overrides,
    )
    features = precompute(archive, str(root / "features"), config)
    passes.take()
    (without,) = fit(archive, str(root / "without"), config).fitted
    passes_without = passes.take()
    (fitted,) = fit(archive, str(root / "bundles"), config, sidecar=features.sidecar).fitted
    passes_with = passes.take()
    bundles = str(root / "bundles")
    sidecar = precompute(archive, str(root / "sidecar"), config, bundles=bundles)
    assert passes.take() == TRAIN + TEST
    return Factory(archive, config, passes, features, without, passes_without, fitted, passes_with, bundles, sidecar)


def test_frozen_extractors_are_stored_without_bundles(factory: Factory) -> None:
    assert factory.features.fields == {"trays": {"features": ("pyramid/level2", "pyramid/level3")}}
    assert (factory.features.images, factory.features.errors) == (TRAIN + TEST + 1, 1)


def test_trained_extractors_are_stored_with_bundles(factory: Factory) -> None:
    fields = factory.sidecar.fields["trays"]
    assert fields["features"] == ("pyramid/level2", "pyramid/level3")
    assert {"segmenter/segments", "object_features/vectors", "objects/segments"} <= set(fields["segments"])
    assert fields["descriptions"] == ("object_description/text",)


def test_rows_match_the_archive_and_are_complete(factory: Factory) -> None:
    archive = Location.parse(factory.archive)
    objects = 0
    for chunk in chunks(read_manifest(archive)):
        expected = read_chunk(archive, chunk, columns=["row_key", "source_uri"]).to_pylist()
        for stage in ("features", "segments", "descriptions"):
            found = rows(factory.sidecar.sidecar, stage, chunk.name)
            assert [row["row_key"] for row in found] == [row["row_key"] for row in expected]
            failed = [Path(row["source_uri"]).name == "999.png" for row in expected]
            assert [row["status"] == "error" for row in found] == failed
            assert [row["error_kind"] == "truncated" for row in found] == failed
        for segmented, described in zip(rows(factory.sidecar.sidecar, "segments", chunk.name), found, strict=True):
            if described["status"] == "error":
                continue
            (description,) = described["descriptions"]
            named = {entry["field"]: entry["segments"] for entry in segmented["segmentations"]}["objects/segments"]
            names = [segment["name"] for segment in named if segment["name"] != "other"]
            counts = {one["name"]: one["count"] for one in description["classes"]}
            assert counts == {name: names.count(name) for name in names}
            assert str(Description.parse(description["text"])) == description["text"]
            objects += len(named)
    assert objects > TRAIN


def test_fit_from_sidecar_is_identical_without_network_passes(factory: Factory) -> None:
    assert factory.fitted.version.rpartition("-")[2] == factory.without.version.rpartition("-")[2]
    assert factory.fitted.recomputed == ()
    assert factory.passes_without == TRAIN + REFERENCE_IMAGES
    assert factory.passes_with == REFERENCE_IMAGES


def test_run_from_sidecar_is_identical_without_network_passes(factory: Factory, tmp_path: Path) -> None:
    one = Workers(count=1)
    score(factory.archive, factory.bundles, str(tmp_path / "computed"), workers=one)
    computed = factory.passes.take()
    score(factory.archive, factory.bundles, str(tmp_path / "read"), sidecar=factory.sidecar.sidecar, workers=one)
    assert stored(str(tmp_path / "read")) == stored(str(tmp_path / "computed"))
    # The reference images of the bundle always run through the network.
    assert (computed, factory.passes.take()) == (TRAIN + TEST + REFERENCE_IMAGES, REFERENCE_IMAGES)


def test_interrupted_precomputation_resumes_to_the_same_bytes(factory: Factory) -> None:
    sidecar = Location.parse(factory.sidecar.sidecar)
    before = stored(sidecar.uri)
    gone = [name for name in sorted(before) if name.startswith(("segments/", "descriptions/"))][::2]
    for name in (*gone, "manifest.json", "files.parquet"):
        (sidecar / name).delete()
    report = precompute(factory.archive, sidecar.uri, factory.config, bundles=factory.bundles)
    assert report.skipped_files == len(before) - 3 - len(gone)
    assert stored(sidecar.uri) == before
    # The missing fields are computed from the features, which still exist.
    assert factory.passes.take() == 0
    assert precompute(factory.archive, sidecar.uri, factory.config, bundles=factory.bundles).skipped_files > 0
    assert stored(sidecar.uri) == before


def test_stale_fields_are_recomputed_and_named(
    factory: Factory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = factory.config.model_copy(update={"expert_set": "patch", "image_size": (96, 96)})
    with caplog.at_level(logging.INFO, "uniad_ray"):
        (fitted,) = fit(factory.archive, str(tmp_path / "bundles"), other, sidecar=factory.features.sidecar).fitted
    assert fitted.recomputed == ("pyramid/level2", "pyramid/level3")
    assert factory.passes.take() == TRAIN + REFERENCE_IMAGES
    logged = [record.getMessage() for record in caplog.records if "sidecar" in record.getMessage()]
    assert logged == [
        "trays: the sidecar has pyramid/level2, pyramid/level3 from other weights, options or code; computing them "
        "again"
    ]


def test_each_category_has_its_own_image_size(tmp_path: Path) -> None:
    archive, bundles, sidecar = (str(tmp_path / name) for name in ("archive", "bundles", "sidecar"))
    mvtec_tree(tmp_path / "source/board", train=6, good=1, bad=1, size=48, width=96)
    mvtec_tree(tmp_path / "source/pen", train=6, good=1, bad=1, size=100, width=40)
    ingest(str(tmp_path / "source"), archive)
    config = small_config("image_size=null", "longest_side=80")
    precomputed = precompute(archive, sidecar, config)
    sizes = {"board": (40, 80), "pen": (80, 32)}
    plan = read_sidecar(Location.parse(precomputed.sidecar)).plan
    assert {name: planned.image_size for name, planned in plan.categories.items()} == sizes
    read = fit(archive, bundles, config, sidecar=sidecar).fitted
    computed = fit(archive, str(tmp_path / "computed"), config).fitted
    assert [one.recomputed for one in read] == [(), ()]
    # The end of a version is the digest of its content.
    assert [one.version[-8:] for one in read] == [one.version[-8:] for one in computed]
    store = BundleStore(bundles)
    assert {one.category: store.manifest(one.category, one.version).config.image_size for one in read} == sizes
    one = Workers(count=1)
    runs = [str(tmp_path / "from-sidecar"), str(tmp_path / "from-pixels")]
    report = score(archive, bundles, runs[0], sidecar=sidecar, workers=one)
    assert (report.images, report.errors) == (16, 0)
    score(archive, bundles, runs[1], workers=one)
    assert stored(runs[0]) == stored(runs[1])


def test_sidecar_of_another_archive_is_refused(factory: Factory, tmp_path: Path) -> None:
    write(tmp_path / "source/train/good/0.png", png(0))
    write(tmp_path / "source/train/good/1.png", png(1))
    ingest(str(tmp_path / "source"), str(tmp_path / "archive"), category="trays")
    message = "made from an archive with digest .*; precompute this archive, or omit --sidecar"
    with pytest.raises(SidecarError, match=message):
        score(str(tmp_path / "archive"), factory.bundles, str(tmp_path / "run"), sidecar=factory.sidecar.sidecar)
    with pytest.raises(SidecarError, match=message):
        fit(str(tmp_path / "archive"), str(tmp_path / "b"), factory.config, sidecar=factory.sidecar.sidecar)
    assert not (tmp_path / "run").exists()


def test_manifest_lists_every_file_with_lineage(factory: Factory) -> None:
    every = stored(factory.sidecar.sidecar)
    manifest = json.loads(every["manifest.json"])
    listed = pq.read_table(io.BytesIO(every["files.parquet"])).to_pylist()
    assert {f"{row['stage']}/{row['chunk']}.parquet" for row in listed} == {name for name in every if "/" in name}
    planned = manifest["plan"]["categories"]["trays"]
    assert planned["bundle"]["version"] == factory.fitted.version
    assert planned["extractors"]["pyramid"]["weights"]["sha256"]
    assert {"segmenter", "objects", "object_description"} <= set(planned["extractors"])
