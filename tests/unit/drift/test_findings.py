"""Drift of drawn products: brightness and size are found and named, and a quiet night is quiet."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import stats
from support.runs import ScoredImage, write_archive
from support.trees import png

from uniad_ray.archive.manifest import chunks, read_manifest
from uniad_ray.archive.scenes.products.product import draw_image, draw_product
from uniad_ray.archive.stores.location import Location
from uniad_ray.drift.findings import DriftOptions, Reference, find_drift
from uniad_ray.drift.samples import (
    SampledImage,
    View,
    brightness,
    expert_values,
    features,
    read_sample,
    sample_images,
    with_scores,
    write_sample,
)

SLOW_SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(100, 120) if seed not in (101, 111)]


def encoded(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def sample(images: list[np.ndarray], scores: list[float] | None = None) -> dict[str, list[SampledImage]]:
    given = scores or [None] * len(images)
    return {
        "part": [
            SampledImage(f"{index:032d}", "part", image.shape[1], image.shape[0], brightness(encoded(image)), score)
            for index, (image, score) in enumerate(zip(images, given, strict=True))
        ]
    }


@pytest.mark.parametrize("seed", [101, 111, *SLOW_SEEDS])
def test_bright_or_resized_night_is_named_and_a_quiet_one_is_not(seed: int) -> None:
    product = draw_product(seed)
    fitted = sample([draw_image(product, "train", "good", index).image for index in range(24)])
    quiet = [draw_image(product, "test", "good", index).image for index in range(24)]
    bright = [(image * 1.35).clip(0, 255).astype(np.uint8) for image in quiet]
    height, width = quiet[0].shape[:2]
    size = (round(width * 0.75), round(height * 0.75))
    resized = [np.asarray(Image.fromarray(image).resize(size)) for image in quiet]

    def found(images: list[np.ndarray]) -> list[tuple[str, str]]:
        tonight = sample(images)
        findings = find_drift(tonight, {"calibration": fitted, "last nights": fitted}, DriftOptions())
        return [(finding.measure, finding.text) for finding in findings]

    assert found(quiet) == []
    brighter = found(bright)
    assert [measure for measure, _ in brighter] == ["brightness", "brightness"]
    assert "images are brighter than in the images of the fit: median brightness" in brighter[0][1]
    assert "than in the last nights" in brighter[1][1]
    smaller = found(resized)
    assert [measure for measure, _ in smaller] == ["size", "size"]
    said = (
        f"image size changed: {size[0]} x {size[1]} pixels tonight, {width} x {height} pixels in the images of the fit"
    )
    assert said in smaller[0][1]


def test_higher_scores_are_named() -> None:
    images = [np.full((4, 4, 3), 100, np.uint8)] * 30
    generator = np.random.default_rng(0)
    before = sample(images, generator.normal(0, 1, 30).tolist())
    for mean, expected in ((0.0, []), (4.0, ["part: scores are higher than in the images of the fit: median"])):
        tonight = sample(images, generator.normal(mean, 1, 30).tolist())
        texts = [finding.text for finding in find_drift(tonight, {"calibration": before}, DriftOptions())]
        assert [text[: len(start)] for text, start in zip(texts, expected, strict=True)] == expected


def test_few_images_and_small_changes_are_no_finding() -> None:
    before = sample([np.full((4, 4, 3), value, np.uint8) for value in (100, 101) * 15])
    slightly = [np.full((4, 4, 3), 103, np.uint8)] * 30
    far = [np.full((4, 4, 3), 200, np.uint8)] * 30
    for images, count in ((slightly, 0), (far[:19], 0), (far, 1)):
        assert len(find_drift(sample(images), {"calibration": before}, DriftOptions())) == count
    assert len(find_drift(sample(slightly), {"calibration": before}, DriftOptions(brightness_change=0.01))) == 1


def scored(generator: np.random.Generator, count: int, **drifted: float) -> dict[str, list[SampledImage]]:
    """Images with scores of six experts that depend on each other, some with another mean; fused equally."""
    common = generator.normal(0, 1, count)
    experts = {f"e{number}": (common + generator.normal(0, 1, count)) / 2**0.5 for number in range(6)}
    experts = {name: known + drifted.get(name, 0.0) for name, known in experts.items()}
    fused = np.mean(list(experts.values()), axis=0)
    return {
        "part": [
            SampledImage(
                f"{index:032d}",
                "part",
                None,
                None,
                None,
                float(fused[index]),
                {name: float(known[index]) for name, known in experts.items()},
            )
            for index in range(count)
        ]
    }


def test_drift_of_one_expert_is_named_where_the_fused_score_hides_it() -> None:
    generator = np.random.default_rng(0)
    references: dict[Reference, dict[str, list[SampledImage]]] = {
        "calibration": scored(generator, 100),
        "last nights": scored(generator, 100),
    }
    findings = find_drift(scored(generator, 60, e3=1.5), references, DriftOptions())
    assert [(found.measure, found.expert, found.reference) for found in findings] == [
        ("expert", "e3", "calibration"),
        ("expert", "e3", "last nights"),
    ]
    assert findings[0].text.startswith(
        "part: scores of the expert e3 are higher than in the images of the fit: median "
    )
    assert findings[1].text.startswith("part: scores of the expert e3 are higher than in the last nights: median ")


def test_quiet_nights_with_many_experts_are_quiet() -> None:
    """The probability is that of the night, however many experts there are: it is tested at 20 % to be measurable."""
    generator = np.random.default_rng(1)
    nights, alarmed, uncorrected = 100, 0, 0
    for _ in range(nights):
        references: dict[Reference, dict[str, list[SampledImage]]] = {
            "calibration": scored(generator, 60),
            "last nights": scored(generator, 60),
        }
        tonight = scored(generator, 40)
        assert find_drift(tonight, references, DriftOptions()) == ()
        alarmed += bool(find_drift(tonight, references, DriftOptions(probability=0.2, psi=1e-6)))
        # Control: each expert tested on its own at the same probability.
        p_values = [
            stats.ks_2samp(expert_values(before["part"], name), expert_values(tonight["part"], name)).pvalue
            for before in references.values()
            for name in tonight["part"][0].experts
        ]
        uncorrected += min(p_values) < 0.2
    assert alarmed <= 0.2 * nights
    assert uncorrected > 0.5 * nights


def looked_at(generator: np.random.Generator, count: int, shift: float = 0.0) -> dict[str, list[SampledImage]]:
    """Images with 40 features that move together with five causes; the first cause is shifted."""
    mixing = np.random.default_rng(7).normal(size=(5, 40))
    causes = generator.normal(size=(count, 5)) + shift * np.eye(5)[0]
    values = causes @ mixing + 0.1 * generator.normal(size=(count, 40))
    return {
        "part": [
            SampledImage(f"{index:032d}", "part", None, None, None, features=tuple(row.tolist()))
            for index, row in enumerate(values)
        ]
    }


def test_changed_features_are_named() -> None:
    generator = np.random.default_rng(0)
    fitted = looked_at(generator, 100)
    findings = find_drift(looked_at(generator, 60, shift=4.0), {"calibration": fitted}, DriftOptions())
    assert [finding.measure for finding in findings] == ["features"]
    assert (findings[0].images, findings[0].reference_images) == (60, 100)
    assert findings[0].text.startswith(
        "part: images look different than in the images of the fit: their features moved"
    )
    # Features of another bundle, or none, are not compared.
    others = [replace(image, features=image.features[:3]) for image in fitted["part"]]
    for before in (others, [replace(image, features=()) for image in others]):
        assert find_drift(looked_at(generator, 60, shift=4.0), {"calibration": {"part": before}}, DriftOptions()) == ()


def test_quiet_features_are_quiet() -> None:
    """The directions are found from the images that are tested, which must not make findings: tested at 20 %."""
    generator = np.random.default_rng(1)
    nights, alarmed = 200, 0
    for _ in range(nights):
        fitted, tonight = looked_at(generator, 40), looked_at(generator, 24)
        alarmed += bool(find_drift(tonight, {"calibration": fitted}, DriftOptions(probability=0.2, psi=1e-6)))
    assert alarmed <= 0.25 * nights


def test_single_expert_is_not_compared_beside_its_fused_score() -> None:
    before, now = (
        {
            "part": [
                SampledImage(str(key), "part", None, None, None, mean + key, {"patch": mean + key}) for key in range(30)
            ]
        }
        for mean in (0.0, 100.0)
    )
    assert [found.measure for found in find_drift(now, {"calibration": before}, DriftOptions())] == ["score"]


@pytest.mark.parametrize(
    ("version", "lacks", "expected"),
    [
        (b"1", ["experts", "features"], SampledImage("k", "part", 4, 4, 1.0, 2.0)),
        (b"2", ["features"], SampledImage("k", "part", 4, 4, 1.0, 2.0, {"patch": 3.0})),
    ],
)
def test_sample_of_a_former_version_is_read(
    tmp_path: Path, version: bytes, lacks: list[str], expected: SampledImage
) -> None:
    place = Location.parse(tmp_path / "sample.parquet")
    write_sample(place, [SampledImage("k", "part", 4, 4, 1.0, 2.0, {"patch": 3.0}, (0.5,))])
    table = pq.read_table(tmp_path / "sample.parquet").drop_columns(lacks)
    former = {b"uniad_ray.schema": b"image_sample", b"uniad_ray.schema_version": version}
    pq.write_table(table.replace_schema_metadata(former), tmp_path / "sample.parquet")
    assert read_sample(place) == [expected]


def test_only_the_part_that_counts_is_measured(tmp_path: Path) -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    image[:, 30:] = 20
    inside = np.zeros((20, 30), dtype=bool)
    inside[4:16, 2:12] = True
    assert brightness(encoded(image), None, inside) == pytest.approx(200)
    assert brightness(encoded(image)) == pytest.approx(110, abs=2)
    changed = image.copy()
    changed[:, 30:] = 255
    assert brightness(encoded(changed), None, inside) == pytest.approx(200)
    archive = write_archive(tmp_path / "archive", [ScoredImage("a", encoded(image), 0.0, size=(40, 60))])
    (found,) = sample_images(archive, chunks(read_manifest(archive)), 1, view=View(inside=inside))
    assert found.brightness == pytest.approx(200)


def test_features_are_measured_of_a_part_of_the_sample(tmp_path: Path) -> None:
    rows = [ScoredImage(f"{index:03d}", png(index, 16), 0.0, size=(16, 16)) for index in range(12)]
    archive = write_archive(str(tmp_path / "archive"), rows)
    lengths = {row.row_key: (float(len(row.image)), 1.0) for row in rows}
    view = View(features=lambda images: [(float(len(data)), 1.0) for data in images], feature_images=5)
    found = sample_images(archive, chunks(read_manifest(archive)), 8, view=view)
    looked = sorted(lengths)[:5]
    assert {image.row_key: image.features for image in found if image.features} == {key: lengths[key] for key in looked}
    assert len(found) == 8
    assert features(found).tolist() == [list(lengths[key]) for key in looked]
    assert features([]).shape == (0, 0)


def test_sample_is_random_bounded_and_stored(tmp_path: Path) -> None:
    rows = [ScoredImage(f"{index:03d}", png(index, 16), 0.0, size=(16, 16)) for index in range(12)]
    rows += [ScoredImage("bad", b"no image", 0.0, size=(16, 16), label=None)]
    archive = write_archive(str(tmp_path / "archive"), rows)
    own = list(chunks(read_manifest(archive)))
    scores = {row.row_key: float(index) for index, row in enumerate(rows)}
    experts = [[{"expert": "a", "raw": 7.0, "calibrated": score}] for score in scores.values()]
    scored = pa.table({"row_key": list(scores), "score": list(scores.values()), "experts": experts})
    found = with_scores(sample_images(archive, own, 100), scored)
    assert [image.experts for image in found] == [{"a": score} for _, score in sorted(scores.items())]
    assert with_scores([SampledImage("unknown", "part", 1, 1, 0.0)], scored)[0].experts == {}
    assert [(image.row_key, image.score) for image in found] == sorted(scores.items())
    expected = {row.row_key: np.asarray(Image.open(io.BytesIO(row.image))).mean(axis=(0, 1)) for row in rows[:12]}
    for image in found:
        if image.row_key in expected:
            assert image.brightness == pytest.approx(expected[image.row_key] @ [0.299, 0.587, 0.114], abs=1)
        else:
            assert image.brightness is None
    assert len(sample_images(archive, own, 5)) == 5
    assert len(sample_images(archive, own, 100, normal_only=True)) == 12
    place = Location.parse(tmp_path / "sample.parquet")
    write_sample(place, found)
    assert read_sample(place) == found
