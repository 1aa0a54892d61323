"""Memory banks from samples of several Ray tasks, each on some chunks of an archive."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest
from support.profiles import small_config
from support.trees import mvtec_tree

from uniad_ray.archive.manifest import read_manifest
from uniad_ray.archive.shards import ShardLimits
from uniad_ray.archive.stores.location import Location
from uniad_ray.experts.patch.memory import PatchMemory, PatchSample
from uniad_ray.perception.base import State
from uniad_ray.pipelines.ingest.job import ingest
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of
from uniad_ray.scoring.fitting.normal_images import ArchiveNormalImages
from uniad_ray.scoring.fitting.perceptions import ImagePerceptions, stream

pytestmark = pytest.mark.usefixtures("ray_cluster")
CONFIG = small_config("experts.patch.config.index.kind=pq", "experts.patch.config.candidates=300")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:  # noqa: ARG001
    root = tmp_path_factory.mktemp("workers")
    mvtec_tree(root / "source/bottle", train=13, good=1, bad=1)
    ingest(str(root / "source"), str(root / "archive"), limits=ShardLimits(rows=6, row_group_rows=3))
    return str(root / "archive")


def normal_images(archive: str) -> ArchiveNormalImages:
    source = Location.parse(archive)
    return ArchiveNormalImages(source, read_manifest(source), "bottle", CONFIG.decoded_size)


def patch_memory() -> PatchMemory:
    expert = build_experts(CONFIG)["patch"]
    assert isinstance(expert, PatchMemory)
    return expert


def extract_and_sample(archive: str, indices: Sequence[int]) -> PatchSample:
    expert = patch_memory()
    pipeline = build_pipeline(CONFIG, needs_of({"patch": expert}), device="cpu")
    source = ImagePerceptions(normal_images(archive), pipeline, expert.needs, batch_size=CONFIG.batch_size, spill=None)
    return expert.sample(stream(source, indices, expert.needs))


def content(state: State) -> dict[str, Any]:
    return {name: array.tobytes() for name, array in state.arrays.items()} | dict(state.document)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_bank_does_not_depend_on_worker_count(archive: str, workers: int) -> None:
    import ray

    rows = normal_images(archive).rows
    chunks = sorted({row.chunk for row in rows})
    parts = [[index for index, row in enumerate(rows) if row.chunk in chunks[part::workers]] for part in range(workers)]
    one, several = patch_memory(), patch_memory()
    one.fit_samples([extract_and_sample(archive, range(len(rows)))])

    # Workers cannot import test modules.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        task = ray.remote(extract_and_sample)
        pending = [task.remote(archive, part) for part in parts]
        several.fit_samples(ray.get(reference) for reference in reversed(pending))
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])

    assert len(chunks) > 4
    assert content(several.state()) == content(one.state())
    assert several.state().arrays["bank"].shape[0] == 200
    assert "codes" in several.state().arrays
