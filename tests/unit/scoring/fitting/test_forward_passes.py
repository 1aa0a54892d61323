"""Each network of the fused set runs once per image."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.scene_images import GivenNormalImages, scene_images

from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig
from uniad_ray.perception.base import Perception, State
from uniad_ray.perception.features.encoders import FeaturePyramid, TokenEncoder
from uniad_ray.perception.features.student import Student, TeacherShapes, build_student
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.fitting.category import fit_category

SIZE = 128
NETWORKS = {"pyramid", "fine", "vit", "logical", "student"}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Count calls by network and pixels, so a synthetic anomaly is a separate image."""
    counted: Counter[tuple[str, str]] = Counter()

    def counting(extract: Any) -> Any:
        def wrapped(self: Any, perception: Perception) -> Any:
            counted.update((self.name, hashlib.sha256(image.tobytes()).hexdigest()) for image in perception.images)
            return extract(self, perception)

        return wrapped

    for owner in (FeaturePyramid, TokenEncoder, Student):
        monkeypatch.setattr(owner, "extract", counting(owner.extract))
    return counted


def fused_config() -> FitConfig:
    """The fused set of the embedded profile with one round and few synthetic anomalies."""
    return load_config(
        "embedded",
        [
            "expert_set=fused",
            f"image_size=[{SIZE}, {SIZE}]",
            "map_size=32",
            "extractors.student.config.initial=null",
            "experts.structural_teacher.config.epochs=1",
            "experts.patch_fine.config.memory_size=500",
            "extractors.vit.config.input_size=112",
            "experts.structural_student.config.epochs=1",
            "fusions.fused.selection.images=2",
            "fusions.fused.selection.surface.train_from=0",
            "calibration={holdout_from: 4, holdout: 0.5}",
        ],
    )


def untrained(student: Student, indices: Sequence[int]) -> State:  # noqa: ARG001
    """An untrained student; training is a separate stage that repeats images."""
    shapes = TeacherShapes(levels=[(24, 32, 32), (40, 16, 16), (112, 8, 8)], logical=(120, 8, 8))
    parameters = build_student(student.config, shapes).state_dict()
    return State({name: array.numpy() for name, array in parameters.items()}, shapes.document())


def test_fused_set_runs_each_network_once(passes: Counter[tuple[str, str]], tmp_path: Path) -> None:
    config = fused_config()
    images = scene_images(12, SIZE)
    fitted = fit_category(GivenNormalImages(images[:10]), config, train=untrained)  # type: ignore[arg-type]
    selection = fitted.calibration.selection
    assert selection is not None
    assert {name for name, _ in passes} == NETWORKS
    for network in NETWORKS:
        assert sum(name == network for name, _ in passes) == 10 + sum(selection.synthetic_anomalies.values())
    assert set(passes.values()) == {1}

    store = BundleStore(str(tmp_path))
    lineage = {"extractors": fitted.extractors}
    version = store.write("part", config, fitted.calibration, lineage, fitted.files).version
    scorer = store.load("part", version).scorer(only=config.chosen_experts)
    passes.clear()
    scorer.score(["a" * 32, "b" * 32], images[10:])
    assert {name for name, _ in passes} == NETWORKS
    assert len(passes) == 2 * len(NETWORKS)
    assert set(passes.values()) == {1}
