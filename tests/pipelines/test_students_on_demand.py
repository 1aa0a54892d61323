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


def config(train_from: float) -> FitConfig:
    """A patch memory that needs no training, and one on the features of the student."""
    document = tiny_fit().model_dump(mode="json", by_alias=True)
    document["experts"] = {
        name: {"class": "uniad_ray.experts.patch.memory:PatchMemory", "config": {"fields": [f"{fields}/level1"]}}
        for name, fields in (("plain", "pyramid"), ("trained", "student"))
    }
    document |= {"expert_sets": {"both": ["plain", "trained"]}, "expert_set": "both"}
    surface = {"base": ["plain"], "candidates": ["trained"], "train_from": train_from}
    document["fusions"] = {"both": {"rule": "excess", "selection": {"surface": surface, "images": 3}}}
    return FitConfig.model_validate(document)


def test_students_are_trained_at_once_after_the_others_or_not_at_all(tmp_path: Path) -> None:
    mvtec_tree(tmp_path / "source/nut", train=8, good=1, bad=1, size=64)
    archive = str(tmp_path / "archive")
    ingest(str(tmp_path / "source"), archive)

    def manifest_of(name: str, train_from: float) -> BundleManifest:
        report = fit(archive, str(tmp_path / name), config(train_from), accept_unusual=True)
        assert report.failed == {}
        return BundleStore(str(tmp_path / name)).load("nut", report.fitted[0].version).manifest

    at_once, later, never = manifest_of("at_once", 0.0), manifest_of("later", 1e-9), manifest_of("never", 1.0)

    assert at_once.calibration == later.calibration
    assert at_once.files == later.files
    assert later.fitted_experts == ("plain", "trained")
    assert (tmp_path / "later" / CHECKPOINTS_NAME).exists()
    assert never.fitted_experts == ("plain",)
    assert not (tmp_path / "never" / CHECKPOINTS_NAME).exists()
