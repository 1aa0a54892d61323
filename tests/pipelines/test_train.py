"""Students trained with Ray Train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.distilling import tiny_fit, tiny_student, tiny_teachers
from support.trees import mvtec_tree, png, write

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError, FitError, RunError
from uniad_ray.perception.base import State
from uniad_ray.pipelines.cluster.session import ray_session
from uniad_ray.pipelines.cluster.sizing import Cluster, Workers
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.pipelines.train.job import TrainingJob, train_students
from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
from uniad_ray.training.distillation import STATE_NAME, Distillation, read_student

CATEGORIES = ("bottle", "nut")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:  # noqa: ARG001
    """Two categories to train on, and one with many copies of a single image."""
    root = tmp_path_factory.mktemp("training")
    for number, name in enumerate(CATEGORIES):
        mvtec_tree(root / "source" / name, train=12, good=1, bad=1, seed=number)
    for index in range(6):
        write(root / f"source/copies/train/good/{index:03d}.png", png(7))
    ingest(str(root / "source"), str(root / "archive"), limits=ShardLimits(rows=6, row_group_rows=3))
    return str(root / "archive")


def normal_images(archive: str, category: str) -> ArchiveNormalImages:
    source = Location.parse(archive)
    return ArchiveNormalImages(source, read_manifest(source), category, (64, 64))


def job(archive: str, category: str, student: str = "student") -> TrainingJob:
    keys = tuple(row.row_key for row in normal_images(archive, category).rows)
    return TrainingJob(f"{category}/{student}", category, student, keys)


def fit_with_students(**students: dict[str, Any]) -> FitConfig:
    """The tiny fit configuration with further students, each with its own changes."""
    config = tiny_fit()
    more = {name: tiny_fit(**changes).extractors["student"] for name, changes in students.items()}
    return config.model_copy(update={"extractors": {**config.extractors, **more}})


def trained_here(archive: str, category: str) -> State:
    images = normal_images(archive, category)
    return Distillation(tiny_student(), tiny_teachers(), images, range(len(images.rows))).run()


def assert_same(one: State, other: State) -> None:
    assert one.document == other.document
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_parallel_jobs_match_a_single_process(archive: str, s3_prefix: str) -> None:
    root = Location.parse(s3_prefix) / "trainings"
    config = fit_with_students(
        divergent={"training": {"learning_rate": 1e30}},
        misfit={"initial": {"source": {"uri": "random:0"}, "modules": ["conv1"]}},
    )
    jobs = [job(archive, name) for name in (*CATEGORIES, "copies")]
    jobs += [job(archive, "nut", student) for student in ("divergent", "misfit")]
    with ray_session() as cluster:
        trained = train_students(archive, config, jobs, root, cluster=cluster, workers=Workers(2, threads=1))
    assert trained.states.keys() == {"bottle/student", "nut/student"}
    assert trained.failed.keys() == {"copies/student", "nut/divergent", "nut/misfit"}
    assert "1 distinct normal images" in trained.failed["copies/student"]
    assert "the loss of the student is" in trained.failed["nut/divergent"]
    assert trained.failed["nut/divergent"].count("source/nut/train/good/") == 4
    assert "random:0 has no file to load" in trained.failed["nut/misfit"]
    for name in CATEGORIES:
        assert_same(read_student(trained.states[f"{name}/student"]), trained_here(archive, name))
    assert [info.relative.rpartition("/")[2] for info in root.list(suffix=".safetensors")] == [STATE_NAME] * 2


def test_options_are_checked_before_workers_start(archive: str, tmp_path: Path) -> None:
    config = tiny_fit()
    wrong = config.model_copy(
        update={
            "extractors": {
                **config.extractors,
                "student": config.extractors["student"].model_copy(update={"config": {"levels": [1]}}),
            }
        }
    ).with_origin("here")
    with ray_session() as cluster, pytest.raises(ConfigError, match=r"here: extractors\.student\.config"):
        train_students(archive, wrong, [job(archive, "nut")], Location.parse(tmp_path), cluster=cluster)


def test_oversized_group_is_refused_and_no_jobs_are_allowed(archive: str, tmp_path: Path) -> None:
    cluster = Cluster(logical_cpus=4, physical_cpus=2, gpus=0, node_cpus=4)
    root = Location.parse(tmp_path)
    wanted = Workers(3, threads=2)
    with pytest.raises(RunError, match="3 workers with 2 threads for training: do not fit on 4 CPUs"):
        train_students(archive, tiny_fit(), [job(archive, "nut")], root, cluster=cluster, workers=wanted)
    assert train_students(archive, tiny_fit(), [], root, cluster=cluster).states == {}


def test_indivisible_batch_size_is_refused(archive: str, tmp_path: Path) -> None:
    cluster = Cluster(logical_cpus=8, physical_cpus=8, gpus=0, node_cpus=8)
    root = Location.parse(tmp_path)
    with pytest.raises(ConfigError, match="batch_size 4 cannot be divided among 3 workers"):
        train_students(archive, tiny_fit(), [job(archive, "nut")], root, cluster=cluster, workers=Workers(3))


def test_fit_errors_name_images_by_source(archive: str) -> None:
    images = normal_images(archive, "nut")
    second = images.rows[1].row_key
    uri = images.by_source_uri({second: ""}).popitem()[0]
    assert uri.endswith(".png")

    with pytest.raises(FitError) as caught, images.naming_images():
        raise FitError(f"image {second} is odd, digest {'0' * 64}")
    assert str(caught.value) == f"image {uri} is odd, digest {'0' * 64}"
    with pytest.raises(FitError, match=r"^nothing to name: 0{32}$"), images.naming_images():
        raise FitError(f"nothing to name: {'0' * 32}")
