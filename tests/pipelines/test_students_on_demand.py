"""A fit on Ray trains a student only where the other experts leave something to gain."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.distilling import tiny_fit
from support.trees import mvtec_tree

from uniad_ray.config.model import FitConfig
from uniad_ray.pipelines.fit.job import CHECKPOINTS_NAME, fit
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.scoring.bundles.bundle import BundleManifest
from uniad_ray.scoring.bundles.store import BundleStore

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def config(base: str, train_from: float) -> FitConfig:
    """A base that needs no training, and a patch memory on the features of the student."""
    document = tiny_fit().model_dump(mode="json", by_alias=True)
    document["experts"] = {
        name: {"class": "uniad_ray.experts.patch.memory:PatchMemory", "config": {"fields": [f"{fields}/level1"]}}
        for name, fields in (("plain", "pyramid"), ("trained", "student"))
    } | {"bright": {"class": "support.learned:Brightness", "config": {}}}
    document |= {"expert_sets": {"both": [base, "trained"]}, "expert_set": "both"}
    surface = {"base": [base], "candidates": ["trained"], "train_from": train_from}
    selection = {"surface": surface, "images": 12, "fewest_training_images": 2}
    document["fusions"] = {"both": {"rule": "excess", "selection": selection}}
    return FitConfig.model_validate(document)


def trainings(bundles: Path) -> int:
    """Number of trained students."""
    return len(list((bundles / CHECKPOINTS_NAME).rglob("student.safetensors")))


def test_students_are_trained_as_often_as_it_pays(tmp_path: Path) -> None:
    mvtec_tree(tmp_path / "source/nut", train=24, good=1, bad=1, size=64)
    archive = str(tmp_path / "archive")
    ingest(str(tmp_path / "source"), archive)

    def manifest_of(name: str, base: str, train_from: float) -> BundleManifest:
        report = fit(archive, str(tmp_path / name), config(base, train_from), accept_unusual=True)
        assert report.failed == {}
        return BundleStore(str(tmp_path / name)).load("nut", report.fitted[0].version).manifest

    at_once = manifest_of("at_once", "bright", 0.0)
    later = manifest_of("later", "bright", 1e-9)
    never = manifest_of("never", "plain", 1.0)
    in_vain = manifest_of("in_vain", "plain", 1e-9)

    # The trial trains one student with all threads instead of two with one each, which rounds differently.
    assert later.calibration.threshold.value == pytest.approx(at_once.calibration.threshold.value, rel=0.02)
    assert later.fitted_experts == ("bright", "trained")
    assert trainings(tmp_path / "at_once") == trainings(tmp_path / "later") == 2
    assert never.fitted_experts == in_vain.fitted_experts == ("plain",)
    assert never.files == in_vain.files
    assert trainings(tmp_path / "never") == 0
    assert trainings(tmp_path / "in_vain") == 1
