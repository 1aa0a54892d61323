"""The same values in 8-bit and in 16-bit files: with the range that a fit finds, all consumers see the same pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.image_bytes import encode
from support.profiles import small_config
from support.runs import ScoredImage, write_archive, write_run
from support.scene_images import scene_images

from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.stores.location import Location
from uniad_ray.cli.verbs.models.fit import as_text
from uniad_ray.drift.samples import View, sample_images
from uniad_ray.model import Model, load_model
from uniad_ray.perception.base import Perception
from uniad_ray.perception.captions.originals import original_images
from uniad_ray.perception.value_range import in_value_range
from uniad_ray.pipelines.cluster.decoding import chunk_item, decode_chunk
from uniad_ray.pipelines.cluster.sizing import WorkerPlan
from uniad_ray.pipelines.fit.opening import FitTask
from uniad_ray.pipelines.fit.report import FitReport, FittedBundle
from uniad_ray.pipelines.fit.task import fit_one
from uniad_ray.reporting.drawing.run_pictures import draw_rows
from uniad_ray.reporting.model import MapScale
from uniad_ray.runs.reader import RunReader
from uniad_ray.runs.regions import value_range_of
from uniad_ray.scoring.bundles.published import PlannedBundle
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
from uniad_ray.scoring.fitting.synthetic.originals import Change, SyntheticOriginals
from uniad_ray.scoring.image_sources import load_image
from uniad_ray.serving.runs.pictures import large_picture, thumbnail

RANGE = (0, 255)
"""What a fit finds in 16-bit files whose values are those of 8-bit ones."""


class FakeCounter:
    """Stands in for the Ray actor that counts images."""

    def __init__(self) -> None:
        self.add = self.say = self

    def remote(self, *_: object) -> None:
        """Counts nothing, says nothing."""


@dataclass
class Camera:
    """An archive with images of one depth, and a bundle for it."""

    archive: Location
    rows: list[ScoredImage]
    bundles: Path
    version: str
    value_range: tuple[int, int] | None

    @property
    def model(self) -> Model:
        return load_model(self.bundles, "part", device="cpu")

    def run(self, folder: Path) -> RunReader:
        """A run that says that this bundle has scored the archive."""
        run = write_run(folder, self.archive, self.rows, bundle=PlannedBundle(version=self.version, digest="d" * 64))
        document = (run / "manifest.json").read_json()
        document["plan"]["bundle_root"] = str(self.bundles)
        (run / "manifest.json").write_json(document)
        return RunReader(run)


def archived(root: Path, images: list[np.ndarray]) -> tuple[Location, list[ScoredImage]]:
    rows = [
        ScoredImage(f"{number}.png", encode(image, "PNG"), 0.1, split="train", size=image.shape[::-1])
        for number, image in enumerate(images)
    ]
    return write_archive(root, rows), rows


@pytest.fixture(scope="module")
def greys() -> list[np.ndarray]:
    return [np.asarray(Image.fromarray(image).convert("L")) for image in scene_images(9, 64)]


@pytest.fixture(scope="module")
def fitted(greys: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> tuple[Camera, FittedBundle]:
    root = tmp_path_factory.mktemp("sixteen")
    archive, rows = archived(root / "ar", [image.astype(np.uint16) for image in greys[:8]])
    config = small_config("calibration.folds=2", "experts.patch.config.memory_size=60")
    task = FitTask(
        archive.uri, str(root / "bundles"), config, None, None, ("part",), True, True, "cpu", {"part": 0}, {"part": {}}
    )
    found = fit_one("part", task, None, WorkerPlan(1, 1, 1.0, 0.0, "cpu"), 1, FakeCounter())
    assert isinstance(found, dict)
    bundle = FittedBundle.model_validate(found)
    return Camera(archive, rows, root / "bundles", bundle.version, bundle.value_range), bundle


@pytest.fixture(scope="module")
def sixteen(fitted: tuple[Camera, FittedBundle]) -> Camera:
    return fitted[0]


@pytest.fixture(scope="module")
def eight(sixteen: Camera, greys: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Camera:
    """The same bundle without a range, beside an archive of 8-bit files."""
    root = tmp_path_factory.mktemp("eight")
    archive, rows = archived(root / "ar", greys[:8])
    bundle = BundleStore(str(sixteen.bundles)).load("part", sixteen.version)
    config = bundle.manifest.config.model_copy(update={"value_range": None})
    store = BundleStore(str(root / "bundles"))
    written = store.write("part", config, bundle.manifest.calibration, bundle.manifest.lineage, bundle.files)
    store.publish("part", written.version)
    return Camera(archive, rows, root / "bundles", written.version, None)


def test_fit_finds_stores_and_prints_the_range(fitted: tuple[Camera, FittedBundle]) -> None:
    camera, bundle = fitted
    assert bundle.value_range == RANGE
    assert BundleStore(str(camera.bundles)).manifest("part", camera.version).config.value_range == RANGE
    text = as_text(FitReport(bundles="b", fitted=(bundle,), failed={}))
    assert "part: 16-bit images are seen from 0 (black) to 255 (white); --set value_range=[LOW,HIGH] sets" in text
    without = bundle.model_copy(update={"value_range": None})
    assert "16-bit" not in as_text(FitReport(bundles="b", fitted=(without,), failed={}))


def test_fits_see_the_same_images(eight: Camera, sixteen: Camera, greys: list[np.ndarray]) -> None:
    for camera in (eight, sixteen):
        images = ArchiveNormalImages(
            camera.archive, read_manifest(camera.archive), "part", (64, 64), value_range=camera.value_range
        )
        for index, found in images.read(range(8)):
            assert np.array_equal(found, np.repeat(greys[index][..., None], 3, axis=2))


def test_python_api_scores_every_form_alike(eight: Camera, sixteen: Camera, greys: list[np.ndarray]) -> None:
    expected = eight.model.score(greys[8])
    deep = greys[8].astype(np.uint16)
    forms: list[Any] = [deep, np.repeat(deep[..., None], 3, axis=2), encode(deep, "PNG"), encode(deep, "TIFF")]
    forms += [Image.fromarray(deep), greys[8]]
    for found in sixteen.model.score_many(forms):
        assert found.score == expected.score
        assert np.array_equal(found.pixels, expected.pixels)
    verdict = sixteen.model.score(deep)
    assert np.array_equal(np.asarray(verdict.overlay(deep)), np.asarray(expected.overlay(greys[8])))
    (scored,) = sixteen.model._scorer.score_encoded(["x"], [encode(deep, "PNG")])
    assert scored.score == expected.score  # type: ignore[union-attr]


def test_night_run_decodes_alike(eight: Camera, sixteen: Camera) -> None:
    images = []
    for camera in (eight, sixteen):
        chunk = next(iter(chunks(read_manifest(camera.archive))))
        row = decode_chunk(
            chunk_item(chunk),
            archive=camera.archive.uri,
            image_sizes={"part": (64, 64)},
            value_ranges={"part": camera.value_range},
        )
        images.append(row["images"])
    assert np.array_equal(*images)


def test_pictures_of_runs_are_the_same(eight: Camera, sixteen: Camera, tmp_path: Path) -> None:
    drawn = []
    for name, camera in (("eight", eight), ("sixteen", sixteen)):
        reader = camera.run(tmp_path / name)
        value_range = value_range_of(reader, "part")
        assert value_range == camera.value_range
        key = camera.rows[0].row_key
        picture = draw_rows(reader, "part", [key], MapScale(start=0, threshold=1, top=2))[key]
        source = reader.images("part", [key])[key]
        drawn.append((picture.thumbnail, thumbnail(source, value_range), large_picture(source, None, value_range)))
    assert drawn[0] == drawn[1]
    assert np.asarray(Image.open(BytesIO(drawn[1][1]))).max() > 100


def test_brightness_is_the_same(eight: Camera, sixteen: Camera) -> None:
    found = [
        [
            image.brightness
            for image in sample_images(
                camera.archive,
                chunks(read_manifest(camera.archive)),
                8,
                view=View(camera.value_range),
            )
        ]
        for camera in (eight, sixteen)
    ]
    assert found[0] == found[1]


def test_vision_language_model_sees_the_same(eight: Camera, sixteen: Camera, greys: list[np.ndarray]) -> None:
    deep = greys[8].astype(np.uint16)
    seen = []
    for camera, image in ((eight, greys[8]), (sixteen, deep)):
        pipeline = camera.model._scorer.pipeline
        originals = pipeline.seen_originals({"x": encode(image, "PNG"), "y": encode(greys[0], "PNG")})
        assert sorted(originals) == ["x", "y"]
        assert len(originals) == 2
        perception = Perception(["x", "y"], np.zeros((2, 64, 64, 3), np.uint8), originals=originals)
        seen.append(original_images(perception, 48))
    expected = np.asarray(Image.fromarray(greys[8]).resize((48, 48), Image.Resampling.BILINEAR))
    for eight_bits, sixteen_bits in zip(*seen, strict=True):
        assert np.array_equal(eight_bits, sixteen_bits)
    assert np.array_equal(seen[1][0][..., 0], expected)


def test_stored_features_of_another_range_are_not_used(sixteen: Camera) -> None:
    from uniad_ray.perception.pipeline import PerceptionPipeline
    from uniad_ray.sidecars.fingerprints import feature_fingerprints

    extractors = sixteen.model._scorer.pipeline.extractors
    digests = [
        feature_fingerprints(PerceptionPipeline(extractors, None, given), (64, 64), {})
        for given in (None, RANGE, (0, 9))
    ]
    assert digests[0]
    for name in digests[0]:
        assert len({found[name] for found in digests}) == 3


def test_bundles_without_a_range_keep_their_digest() -> None:
    from uniad_ray.scoring.bundles.bundle import content_digest

    config = small_config()
    without, other = (config.model_copy(update={"value_range": given}) for given in (None, RANGE))
    assert content_digest(without, {}) != content_digest(other, {})
    former = config.model_dump_json(by_alias=True, exclude={"regions", "value_range"})
    assert content_digest(without, {}) == hashlib.sha256(former.encode()).hexdigest()


def test_arrays_without_a_range_are_as_files() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7), dtype=np.uint16)
    assert np.array_equal(load_image(deep, (5, 5)).pixels, load_image(encode(deep, "PNG"), (5, 5)).pixels)


def test_synthetic_anomalies_of_files_are_made_in_the_range(greys: list[np.ndarray]) -> None:
    grey = np.repeat(greys[0][..., None], 3, axis=2)
    change = Change("key", grey, grey)
    originals = in_value_range({"key": encode(greys[0].astype(np.uint16), "PNG")}, RANGE)
    assert np.array_equal(SyntheticOriginals({"changed": change}, originals)["changed"], grey)
    assert in_value_range(originals, None) is originals
