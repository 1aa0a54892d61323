"""A model in the calling process gives the verdicts of the night run and of the endpoint."""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bad_bundles import publish_other_scores
from support.fitted import CATEGORY

import uniad_ray.model
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import BundleError, ConfigError, ImageError, ObjectNotFoundError, UniadRayError, UserError
from uniad_ray.model import ImageSource, Model, Verdict, load_model
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.online_scorer import build_online_scorer
from uniad_ray.scoring.scorer import Scorer
from uniad_ray.scoring.scorer import Verdict as ScoredVerdict

BATCH_SIZE = 4
"""Batch size of the fitted bundle."""


@pytest.fixture(scope="module")
def model(fitted_folder: Path) -> Model:
    return load_model(fitted_folder / "bundles", CATEGORY, device="cpu")


@pytest.fixture(scope="module")
def damaged(fitted_folder: Path) -> np.ndarray:
    return np.asarray(Image.open(fitted_folder / "damaged.png"))


def same(found: ScoredVerdict, expected: ScoredVerdict) -> bool:
    """Whether two verdicts agree exactly."""
    assert found.anomaly_map is not None
    assert expected.anomaly_map is not None
    return (
        np.array_equal(found.anomaly_map, expected.anomaly_map)
        and (found.score, found.threshold, found.decision) == (expected.score, expected.threshold, expected.decision)
        and (found.raw, found.calibrated, found.reasons) == (expected.raw, expected.calibrated, expected.reasons)
    )


def test_verdict_matches_night_run_and_endpoint(model: Model, fitted_folder: Path) -> None:
    bundle = BundleStore(str(fitted_folder / "bundles")).load(CATEGORY)
    scorer, online = bundle.scorer(), build_online_scorer(bundle)
    decisions = []
    for name in ("good.png", "damaged.png"):
        data = (fitted_folder / name).read_bytes()
        verdict = model.score(data)
        (night,) = scorer.score_encoded(["a" * 32], [data])
        (first,) = online.begin(["b" * 64], verdict.pixels[None])
        assert isinstance(night, ScoredVerdict)
        assert isinstance(first.verdict, ScoredVerdict)
        assert same(verdict, night)
        assert same(verdict, first.verdict)
        decisions.append(verdict.decision)
    assert decisions == ["normal", "anomalous"]


def test_image_types_give_equal_verdicts(
    model: Model, fitted_folder: Path, damaged: np.ndarray, s3_prefix: str
) -> None:
    path = fitted_folder / "damaged.png"
    place = Location.parse(s3_prefix) / "damaged.png"
    place.write_bytes(path.read_bytes())
    expected = model.score(path)
    sources: list[ImageSource] = [str(path), place.uri, path.read_bytes(), Image.open(path), damaged]
    for source in sources:
        assert same(model.score(source), expected)
    grey = damaged[..., 0]
    Image.fromarray(grey).save(fitted_folder / "grey.png")
    assert same(model.score(grey), model.score(fitted_folder / "grey.png"))


def test_model_describes_itself(model: Model, fitted_folder: Path) -> None:
    manifest = BundleStore(str(fitted_folder / "bundles")).load(CATEGORY).manifest
    assert (model.category, model.version, model.digest) == (CATEGORY, manifest.version, manifest.digest)
    assert (model.threshold, model.experts, model.device) == (
        manifest.calibration.threshold.value,
        ("patch",),
        "cpu",
    )
    assert repr(model) == f"Model(category='trays', version='{manifest.version}', device='cpu')"


class TestScoreMany:
    def test_verdicts_match_score(self, model: Model, damaged: np.ndarray) -> None:
        images = [damaged, damaged[:, ::-1], damaged[::-1], damaged[::-1, ::-1], damaged // 2, damaged // 3]
        found = list(model.score_many(images))
        expected = [model.score(image) for image in images]
        assert len(found) == len(images) > BATCH_SIZE
        assert [verdict.score for verdict in found] == pytest.approx([verdict.score for verdict in expected], rel=1e-5)
        assert len({verdict.score for verdict in found}) == len(images)

    def test_no_images_give_no_verdicts(self, model: Model) -> None:
        assert list(model.score_many([])) == []

    def test_at_most_one_batch_is_taken_ahead(self, model: Model, damaged: np.ndarray) -> None:
        taken = 0

        def endless() -> Iterator[np.ndarray]:
            nonlocal taken
            while True:
                taken += 1
                yield damaged

        verdicts = model.score_many(endless())
        assert taken == 0
        next(verdicts)
        assert taken == BATCH_SIZE
        for _ in range(BATCH_SIZE):
            next(verdicts)
        assert taken == 2 * BATCH_SIZE

    def test_bad_image_stops_after_the_verdicts_before_it(self, model: Model, damaged: np.ndarray) -> None:
        verdicts = model.score_many([damaged] * 5 + [b"text", damaged])
        found = []
        with pytest.raises(ImageError, match="image 5: the file is none of JPEG") as caught:
            found.extend(verdict.decision for verdict in verdicts)
        assert caught.value.kind == "not_an_image"
        assert found == ["anomalous"] * 5

    def test_missing_file_is_named_with_its_index(self, model: Model, tmp_path: Path) -> None:
        with pytest.raises(ObjectNotFoundError, match=r"image 0: .*none\.png"):
            next(model.score_many([tmp_path / "none.png"]))

    def test_returned_errors_keep_their_places(self, model: Model, damaged: np.ndarray, tmp_path: Path) -> None:
        images: list[ImageSource] = [b"text", damaged, tmp_path / "none.png", damaged]
        found = list(model.score_many(images, errors="return"))
        assert [type(outcome) for outcome in found] == [ImageError, Verdict, ObjectNotFoundError, Verdict]

    def test_batch_of_bad_images_alone_is_no_crash(self, model: Model) -> None:
        found = list(model.score_many([b"text"] * 4, errors="return"))
        assert [type(outcome) for outcome in found] == [ImageError] * 4

    def test_image_without_a_finite_score_is_an_error(
        self, model: Model, damaged: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = ImageError("not_scorable", "no finite score from patch")
        monkeypatch.setattr(Scorer, "score", lambda _self, keys, _images, **_: [broken] * len(keys))
        assert list(model.score_many([damaged], errors="return")) == [broken]
        with pytest.raises(ImageError, match="no finite score from patch"):
            model.score(damaged)

    def test_single_image_is_refused(self, model: Model, damaged: np.ndarray) -> None:
        one: list[ImageSource] = ["photo.png", Path("photo.png"), b"text", damaged, Image.fromarray(damaged)]
        for image in one:
            with pytest.raises(UserError, match="use score for one"):
                model.score_many(image)  # type: ignore[arg-type]

    def test_array_of_images_is_many(self, model: Model, damaged: np.ndarray) -> None:
        assert len(list(model.score_many(np.stack([damaged, damaged])))) == 2

    def test_unknown_errors_value_is_refused(self, model: Model) -> None:
        with pytest.raises(UserError, match="use 'raise' or 'return'"):
            model.score_many([], errors="ignore")  # type: ignore[call-overload]


class TestVerdict:
    def test_dictionary_is_json_with_lineage(self, model: Model, damaged: np.ndarray) -> None:
        verdict = model.score(damaged)
        found = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
        assert (found["decision"], found["score"], found["threshold"]) == (
            "anomalous",
            verdict.score,
            model.threshold,
        )
        (expert,) = found["experts"]
        assert expert == {"expert": "patch", "raw": verdict.raw["patch"], "calibrated": verdict.calibrated["patch"]}
        assert found["reasons"] == list(verdict.reasons) != []
        lineage = found["lineage"]
        assert lineage["category"] == CATEGORY
        assert (lineage["bundle_version"], lineage["bundle_digest"]) == (model.version, model.digest)

    def test_verdict_is_immutable_and_prints_one_line(self, model: Model, damaged: np.ndarray) -> None:
        verdict = model.score(damaged)
        with pytest.raises(FrozenInstanceError):
            verdict.score = 0.0  # type: ignore[misc]
        assert repr(verdict).startswith("Verdict(decision='anomalous', score=")
        assert "\n" not in repr(verdict)
        assert "array" not in repr(verdict)

    def test_verdicts_compare_by_identity(self, model: Model, damaged: np.ndarray) -> None:
        first, second = model.score(damaged), model.score(damaged)
        assert first == first
        assert first != second
        assert len({first, second}) == 2

    def test_map_is_on_the_calibrated_scale(self, model: Model, damaged: np.ndarray) -> None:
        anomaly_map = model.score(damaged).anomaly_map
        assert anomaly_map is not None
        assert (anomaly_map.dtype, anomaly_map.shape) == (np.float32, (16, 16))
        assert anomaly_map.max() > model.threshold

    def test_overlay_marks_damage_and_keeps_aspect_ratio(self, model: Model, damaged: np.ndarray) -> None:
        wide = np.repeat(damaged, 2, axis=1)
        verdict = model.score(wide)
        drawn = verdict.overlay()
        assert (drawn.mode, drawn.size) == ("RGB", (64, 32))
        plain = Image.fromarray(verdict.pixels).resize((64, 32), Image.Resampling.BILINEAR)
        change = np.abs(np.asarray(drawn, int) - np.asarray(plain, int)).sum(axis=2)
        assert change[10:16, 25:40].mean() > 50

    def test_overlay_on_a_given_image_has_its_size(self, model: Model, damaged: np.ndarray) -> None:
        assert model.score(damaged).overlay(np.repeat(damaged, 3, axis=0)).size == (96, 288)


class TestLoadModel:
    def test_rate_and_version_can_be_chosen(self, model: Model, fitted_folder: Path) -> None:
        bundles = str(fitted_folder / "bundles")
        other = load_model(bundles, CATEGORY, version=model.version, experts=["patch"], false_positive_rate=0.4)
        assert other.version == model.version
        assert other.threshold < model.threshold

    def test_missing_bundles_are_named(self, fitted_folder: Path) -> None:
        bundles = fitted_folder / "bundles"
        with pytest.raises(BundleError, match="no published bundle for category 'lids'"):
            load_model(bundles, "lids")
        with pytest.raises(BundleError, match="no bundle there"):
            load_model(bundles, CATEGORY, version="20200101-000000-00000000")
        with pytest.raises(BundleError, match="has no expert colour; it has patch"):
            load_model(bundles, CATEGORY, experts=["colour"])

    def test_wrong_options_are_refused(self, fitted_folder: Path) -> None:
        with pytest.raises(ConfigError, match="use auto, cpu or cuda"):
            load_model(fitted_folder / "bundles", CATEGORY, device="tpu")
        with pytest.raises(UniadRayError, match="above 0 and below 1"):
            load_model(fitted_folder / "bundles", CATEGORY, false_positive_rate=1.0)

    def test_bundle_with_changed_scores_is_refused(self, fitted_folder: Path, tmp_path: Path) -> None:
        shutil.copytree(fitted_folder / "bundles", tmp_path / "bundles")
        publish_other_scores(tmp_path / "bundles", CATEGORY)
        with pytest.raises(BundleError, match="reference image"):
            load_model(tmp_path / "bundles", CATEGORY)


def test_scoring_needs_no_ray(fitted_folder: Path) -> None:
    code = (
        "import sys, uniad_ray.model as m\n"
        "m.load_model('bundles', 'trays', device='cpu').score('good.png').overlay()\n"
        "assert 'ray' not in sys.modules\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=fitted_folder, check=False, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", ["load_model", "Model", "Verdict"])
def test_examples_in_docstrings_run(
    name: str, fitted_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fitted_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    found = doctest.DocTestFinder(recurse=False).find(getattr(uniad_ray.model, name), name, globs={})
    (example,) = found
    said: list[str] = []
    result = doctest.DocTestRunner().run(example, out=said.append)
    assert result.attempted >= 3
    assert result.failed == 0, "".join(said)
