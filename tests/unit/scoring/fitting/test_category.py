from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from support.learned import Learned, Trained
from support.normal_images import DrawnNormalImages
from support.profiles import small_config

from uniad_ray.config.model import FitConfig
from uniad_ray.errors import BundleError, FitError
from uniad_ray.perception.base import Perception, PerceptionStream, State
from uniad_ray.perception.features.encoders import FeaturePyramid
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import CategoryFit, fit_category
from uniad_ray.scoring.fitting.perceptions import ExtendedPerceptions, ImagePerceptions
from uniad_ray.scoring.fitting.selection.known_defects import KnownDefect
from uniad_ray.scoring.fitting.splits import split_normal_images
from uniad_ray.scoring.fusion import excess

WITNESS = [
    *(
        f"extractors.{name}={{class: 'support.learned:{name.title()}', config: {{}}}}"
        for name in ("learned", "trained", "words")
    ),
    "experts.witness={class: 'support.learned:Witness', config: {}}",
    "expert_sets.both=[patch, witness]",
    "expert_set=both",
]


def config_with_witness(*overrides: str) -> FitConfig:
    return small_config(*WITNESS, *overrides)


class Trainer:
    """A trainer that records its images."""

    def __init__(self, normal_images: DrawnNormalImages) -> None:
        self.normal_images = normal_images
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, extractor: object, indices: Sequence[int]) -> State:
        assert isinstance(extractor, Trained)
        self.asked.append(tuple(indices))
        return State(document={"seen": [self.normal_images.rows[index].row_key for index in indices]})


@pytest.mark.parametrize("count", [8, 60])
def test_held_out_images_are_unseen(count: int) -> None:
    normal_images = DrawnNormalImages(count)
    trainer = Trainer(normal_images)
    fitted = fit_category(normal_images, config_with_witness(), train=trainer)
    split = split_normal_images(normal_images.rows, fitted.config.calibration)
    assert trainer.asked == list(split.trainings)
    assert fitted.calibration.experts["witness"].mean == 0.0
    document = json.loads(fitted.files["experts/witness.json"])
    expected = [normal_images.rows[index].row_key for index in split.final]
    assert sorted(document["keys"]) == sorted(expected)
    trained_on = [normal_images.rows[index].row_key for index in split.final_training]
    assert document["counts"] == [len(expected), len(trained_on)]
    assert document["text"] == f"learned from {len(expected)} images"
    for name, seen in (("learned", expected), ("trained", trained_on)):
        assert sorted(json.loads(fitted.files[f"extractors/{name}.json"])["seen"]) == sorted(seen)


@pytest.mark.parametrize(("count", "fits"), [(8, 9), (19, 6), (20, 1)])
def test_learned_extractors_are_shared_among_many_images(
    count: int, fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned_from: list[list[str]] = []
    fit = Learned.fit

    def recording(self: Learned, stream: PerceptionStream) -> None:
        learned_from.append(sorted(key for perception in stream() for key in perception.row_keys))
        fit(self, stream)

    monkeypatch.setattr(Learned, "fit", recording)
    normal_images = DrawnNormalImages(count)
    fit_category(normal_images, config_with_witness(), train=Trainer(normal_images))
    split = split_normal_images(normal_images.rows, small_config().calibration)
    sets = list(dict.fromkeys([*split.learning, tuple(split.final)]))
    assert len(learned_from) == len(sets) == fits
    assert learned_from == [sorted(normal_images.rows[index].row_key for index in one) for one in sets]


def test_trained_extractor_on_learned_fields_follows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def extract(self: Trained, perception: Perception) -> dict[str, torch.Tensor]:
        return {f"{self.name}/count": perception.fields["learned/count"]}

    monkeypatch.setattr(Trained, "needs", frozenset({"learned/count"}))
    monkeypatch.setattr(Trained, "extract", extract)
    normal_images = DrawnNormalImages(8)
    fitted = fit_category(normal_images, config_with_witness(), train=Trainer(normal_images))
    assert json.loads(fitted.files["experts/witness.json"])["counts"] == [8.0, 8.0]


def test_network_runs_once_per_image_over_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: Counter[str] = Counter()
    extract = FeaturePyramid.extract

    def counting(self: FeaturePyramid, perception: object) -> dict[str, torch.Tensor]:
        passed.update(perception.row_keys)  # type: ignore[attr-defined]
        return extract(self, perception)  # type: ignore[arg-type]

    monkeypatch.setattr(FeaturePyramid, "extract", counting)
    normal_images = DrawnNormalImages(8)
    fit_category(normal_images, config_with_witness(), train=Trainer(normal_images))
    assert set(passed.values()) == {1}
    assert len(passed) == 8


def test_bundle_restores_learned_extractors(tmp_path: Path) -> None:
    normal_images = DrawnNormalImages(8)
    fitted = fit_category(normal_images, config_with_witness(), train=Trainer(normal_images))
    assert {"pyramid", "learned", "trained", "words"} == set(fitted.extractors)
    store = BundleStore(str(tmp_path))
    manifest = store.write("part", fitted.config, fitted.calibration, {"extractors": fitted.extractors}, fitted.files)
    bundle = store.load("part", manifest.version)
    scorer = bundle.scorer()
    bundle.check_reference(scorer)
    keys = [normal_images.rows[0].row_key, "f" * 32]
    evidence = scorer.evidence(keys, np.stack([normal_images.image(0), normal_images.image(99)]))
    assert evidence["witness"].scores.tolist() == [1.0, 0.0]


def test_subset_of_experts_is_recalibrated(tmp_path: Path) -> None:
    normal_images = DrawnNormalImages(30)
    config = small_config(
        "experts.second={class: 'uniad_ray.experts.patch.memory:PatchMemory', config: {distance: cosine, "
        "memory_size: 50}}",
        "expert_sets.both=[patch, second]",
        "expert_set=both",
        "fusion={groups: {all: [patch, second]}}",
    )
    fitted = fit_category(normal_images, config)
    store = BundleStore(str(tmp_path))
    manifest = store.write("part", fitted.config, fitted.calibration, {"extractors": fitted.extractors}, fitted.files)
    bundle = store.load("part", manifest.version)
    alone = fit_category(normal_images, small_config())
    scorer = bundle.scorer(only=["patch"])
    assert scorer.expert_names == ("patch",)
    assert scorer.threshold == pytest.approx(alone.calibration.threshold.value)
    image = normal_images.image(77)[None]
    verdict = scorer.score(["x"], image)[0]
    whole = bundle.scorer().score(["x"], image)[0]
    assert verdict.raw["patch"] == whole.raw["patch"]  # type: ignore[union-attr]
    assert set(verdict.raw) == {"patch"}  # type: ignore[union-attr]
    assert verdict.score == pytest.approx(verdict.calibrated["patch"])  # type: ignore[union-attr]
    with pytest.raises(BundleError, match="has no expert third; it has patch, second"):
        bundle.scorer(only=["third"])


def test_second_read_uses_the_disk_cache(tmp_path: Path) -> None:
    from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of

    normal_images = DrawnNormalImages(6)
    config = config_with_witness()
    pipeline = build_pipeline(config, needs_of(build_experts(config)), device="cpu")
    images = ImagePerceptions(
        normal_images, pipeline, frozenset({"pyramid/level2"}), batch_size=4, spill=tmp_path / "images"
    )
    pipeline.restore({name: State(document={"seen": ["a"]}) for name in ("learned", "trained")})
    counted = ExtendedPerceptions(images, pipeline, frozenset({"learned/count"}), tmp_path / "count")
    said = ExtendedPerceptions(counted, pipeline, frozenset({"words/text"}), tmp_path / "text")
    wanted = frozenset({"learned/count", "words/text"})
    first = list(said.extract(range(6), wanted))
    assert [len(perception) for perception in first] == [4, 2]
    assert all(set(perception.fields) == {"learned/count"} for perception in first)
    reads = normal_images.reads
    pipeline.restore({name: State() for name in ()} | {n: State(document={"seen": []}) for n in ("learned", "trained")})
    again = list(said.extract(range(6), wanted))
    assert normal_images.reads == reads
    for one, other in zip(first, again, strict=True):
        assert one.row_keys == other.row_keys
        assert one.texts == other.texts
        torch.testing.assert_close(one.fields["learned/count"], other.fields["learned/count"])
        np.testing.assert_array_equal(one.images, other.images)


class PlainNormalImages(DrawnNormalImages):
    """Images with a single colour from some index on."""

    def __init__(self, count: int, first_plain: int) -> None:
        super().__init__(count)
        self.first_plain = first_plain

    def image(self, index: int) -> np.ndarray:
        image = super().image(index)
        return np.zeros_like(image) if index >= self.first_plain else image


def test_single_colour_images_are_refused_or_reported() -> None:
    with pytest.raises(FitError, match="every normal image has a single colour"):
        fit_category(PlainNormalImages(10, 0), small_config())
    fitted = fit_category(PlainNormalImages(20, 19), small_config())
    assert fitted.unusual == {f"{19:032d}": "has a single colour"}


SECOND = [
    "experts.second={class: 'uniad_ray.experts.patch.memory:PatchMemory', config: {distance: cosine, memory_size: 50}}",
    "expert_sets.both=[patch, second]",
    "expert_set=both",
]


def test_only_selected_experts_score(tmp_path: Path) -> None:
    normal_images = DrawnNormalImages(30)
    selection = (
        "fusions.both={rule: excess, selection: "
        "{surface: {base: [patch], candidates: [second]}, images: 3, least_gain: 0.4}}"
    )
    fitted = fit_category(normal_images, small_config(*SECOND, selection))
    record = fitted.calibration.selection
    assert record is not None
    assert record.weights == {"patch": 1.0, "second": 0.0}
    assert 1 <= min(record.synthetic_anomalies.values()) <= max(record.synthetic_anomalies.values()) <= 3
    assert set(record.base_auroc) == {"surface"}
    store = BundleStore(str(tmp_path))
    manifest = store.write("part", fitted.config, fitted.calibration, {"extractors": fitted.extractors}, fitted.files)
    bundle = store.load("part", manifest.version)
    scorer = bundle.scorer()
    assert scorer.expert_names == ("patch",)
    bundle.check_reference(scorer)
    verdict = scorer.score(["x"], normal_images.image(77)[None])[0]
    assert verdict.score == pytest.approx(excess(np.array(verdict.calibrated["patch"])))  # type: ignore[union-attr]
    left_out = bundle.scorer(only=["second"]).score(["x"], normal_images.image(77)[None])[0]
    assert set(left_out.raw) == {"second"}  # type: ignore[union-attr]
    assert left_out.score == pytest.approx(excess(np.array(left_out.calibrated["second"])))  # type: ignore[union-attr]
    assert fit_category(normal_images, small_config(*SECOND, selection)).calibration.selection == record


def with_student(base: str, train_from: float, fewest: int = 2) -> FitConfig:
    """A base that needs no student, and a patch memory that does."""
    return config_with_witness(
        "experts.bright={class: 'support.learned:Brightness', config: {}}",
        "experts.taught={class: 'support.learned:TrainedPatchMemory', "
        "config: {fields: [pyramid/level2], memory_size: 200}}",
        f"expert_sets.both=[{base}, taught]",
        "fusions.both={rule: excess, selection: "
        f"{{surface: {{base: [{base}], candidates: [taught], train_from: {train_from}}}, images: 10, "
        f"fewest_training_images: {fewest}}}}}",
    )


def test_student_is_trained_only_if_the_other_experts_leave_a_gap(tmp_path: Path) -> None:
    normal_images = DrawnNormalImages(30)
    never, always, if_needed = (Trainer(normal_images) for _ in range(3))

    omitted = fit_category(normal_images, with_student("bright", 1.0), train=never)
    at_once = fit_category(normal_images, with_student("bright", 0.0), train=always)
    later = fit_category(normal_images, with_student("bright", 1e-9), train=if_needed)

    assert never.asked == []
    assert if_needed.asked == always.asked
    assert len(always.asked) == 2
    # Whether students are trained before or after the other experts does not matter.
    assert later.calibration == at_once.calibration
    assert later.files == at_once.files
    assert later.calibration.selection is not None
    assert later.calibration.selection.weights["taught"] > 0.0
    record = omitted.calibration.selection
    assert record is not None
    assert record.weights == {"bright": 1.0, "taught": 0.0}
    assert 0.0 < record.lack["surface"] < 1.0
    assert record.reason("taught").startswith("its student is not trained: ")
    store = BundleStore(str(tmp_path))
    manifest = store.write(
        "part", omitted.config, omitted.calibration, {"extractors": omitted.extractors}, omitted.files
    )
    assert manifest.fitted_experts == ("bright",)
    bundle = store.load("part", manifest.version)
    bundle.check_reference(bundle.scorer())
    with pytest.raises(
        BundleError, match=r"has no expert taught; .*--set fusions\.both\.selection\.surface\.train_from=0"
    ):
        bundle.scorer(only=["taught"])
    logical = "fusions.both={rule: excess, selection: {surface: {base: [patch]}, arrangement: {candidates: [witness]}}}"
    with pytest.raises(BundleError, match=r"selection\.arrangement\.train_from=0"):
        manifest.model_copy(update={"config": config_with_witness(logical)}).check_experts(["witness"])


def test_student_that_adds_nothing_is_trained_once() -> None:
    normal_images = DrawnNormalImages(30)
    never, tried = (Trainer(normal_images) for _ in range(2))

    without = fit_category(normal_images, with_student("patch", 1.0), train=never)
    after_trial = fit_category(normal_images, with_student("patch", 1e-9), train=tried)

    split = split_normal_images(normal_images.rows, small_config().calibration)
    assert tried.asked == [split.trainings[0]]
    assert after_trial.files == without.files
    chosen, usual = after_trial.calibration.selection, without.calibration.selection
    assert chosen is not None
    assert usual is not None
    assert chosen.weights == usual.weights
    assert chosen.reason("taught").startswith("its student is left out: after its first training")
    assert usual.reason("taught").startswith("its student is not trained: without it, synthetic anomalies lack only")


@pytest.mark.parametrize(("fewest", "trainings"), [(13, 0), (12, 2)])
def test_student_that_would_learn_from_few_images_is_not_trained(fewest: int, trainings: int) -> None:
    # In five folds, one student learns from the images of two of them.
    normal_images, trainer = DrawnNormalImages(30), Trainer(DrawnNormalImages(30))

    fitted = fit_category(normal_images, with_student("bright", 1e-9, fewest), train=trainer)

    assert len(trainer.asked) == trainings
    record = fitted.calibration.selection
    assert record is not None
    assert record.reason("taught").startswith("its student is not trained: there are too few images") == (not trainings)


def test_synthetic_anomalies_come_from_unseen_images() -> None:
    normal_images = DrawnNormalImages(8)
    config = config_with_witness(
        "fusions.both={rule: excess, selection: "
        "{surface: {base: [patch]}, arrangement: {candidates: [witness], train_from: 0}, images: 8}}"
    )
    record = fit_category(normal_images, config, train=Trainer(normal_images)).calibration.selection
    assert record is not None
    assert record.normal_images == 8
    assert record.synthetic_anomalies["scratch"] == 8
    # The witness scores 1 for an image that it has learned from.
    assert record.experts["witness"].auroc == {"surface": 0.5}


def test_known_defects_select_and_are_not_learned_from() -> None:
    normal_images = DrawnNormalImages(30)
    selection = "fusions.both={rule: excess, selection: {surface: {base: [patch, second]}, images: 3}}"
    known = [
        KnownDefect(f"{number:032x}", 255 - normal_images.image(number), "structural" if number % 2 else None)
        for number in range(50, 60)
    ]

    with_known = fit_category(normal_images, small_config(*SECOND, selection), known=known)
    without = fit_category(normal_images, small_config(*SECOND, selection))
    few = fit_category(normal_images, small_config(*SECOND, selection), known=known[:7])

    record, usual = with_known.calibration.selection, without.calibration.selection
    assert record is not None
    assert usual is not None
    assert record.known_defects == {"known": 5, "known_structural": 5}
    assert record.weights_without_known == usual.weights
    assert few.calibration.selection == usual
    learned = {name: content for name, content in with_known.files.items() if name.startswith("experts")}
    assert learned == {name: content for name, content in without.files.items() if name.startswith("experts")}


def test_maps_rule_has_its_own_threshold(tmp_path: Path) -> None:
    normal_images = DrawnNormalImages(30)
    fitted = fit_category(normal_images, small_config(*SECOND, "fusions.both={rule: maps, weights: {patch: 0.5}}"))
    store = BundleStore(str(tmp_path))
    manifest = store.write("part", fitted.config, fitted.calibration, {"extractors": fitted.extractors}, fitted.files)
    bundle = store.load("part", manifest.version)
    scorer = bundle.scorer()
    verdict = scorer.score(["x"], normal_images.image(77)[None])[0]
    evidence = scorer.evidence(["x"], normal_images.image(77)[None])
    by_hand = 0.5 * evidence["patch"].maps[0] + evidence["second"].maps[0]  # type: ignore[index]
    assert verdict.score == pytest.approx(by_hand.max(), rel=1e-6)  # type: ignore[union-attr]
    assert bundle.scorer(false_positive_rate=0.5).threshold < scorer.threshold
    with pytest.raises(BundleError, match="the fusion rule needs the maps of all experts"):
        bundle.scorer(only=["patch"])


def test_phases_are_named() -> None:
    phases: list[str] = []
    normal_images = DrawnNormalImages(8)
    selection = "fusions.both={rule: excess, selection: {surface: {base: [patch, second]}, images: 2}}"
    with CategoryFit(normal_images, small_config(*SECOND, selection), on_phase=phases.append) as fit:
        fit.finish(fit.judge_first())

    assert phases[:6] == [
        f"{phase}, fold {fold} of 8"
        for fold in (1, 2)
        for phase in ("memory banks", "calibration", "synthetic anomalies")
    ]
    assert phases[-1] == "memory banks of all images"
