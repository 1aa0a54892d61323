"""Costs of each stage of a bundle, on test images in a Ray task with one thread: time, and size of the networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from uniad_ray.archive.stores.location import Location
from uniad_ray.runs.plan import RunPlan

if TYPE_CHECKING:
    from uniad_ray.scoring.stage_times import NetworkCosts

MEASURED_IMAGES = 20


@dataclass(frozen=True)
class StageCosts:
    """Costs of the stages of a bundle.

    Attributes:
        milliseconds: Median time per image by stage, `extractor NAME` or `expert NAME`, in the order of execution.
        stages_of: Stages that each expert needs, itself included.
        networks: Parameters of the networks of each stage, and its operations for one image.
    """

    milliseconds: Mapping[str, float]
    stages_of: Mapping[str, Sequence[str]]
    networks: NetworkCosts

    def of(self, experts: Iterable[str]) -> dict[str, float]:
        """Returns the times of the stages that some experts need."""
        wanted = self._stages(experts)
        return {stage: value for stage, value in self.milliseconds.items() if stage in wanted}

    def parameters(self, experts: Iterable[str]) -> int:
        """Returns the number of parameters of the networks that some experts need; a shared network counts once."""
        networks: dict[int, int] = {}
        for stage in self._stages(experts):
            networks |= self.networks.parameters[stage]
        return sum(networks.values())

    def flops(self, experts: Iterable[str]) -> int:
        """Returns the operations of the stages that some experts need, for one image."""
        return sum(self.networks.flops[stage] for stage in self._stages(experts))

    def _stages(self, experts: Iterable[str]) -> set[str]:
        return {stage for expert in experts for stage in self.stages_of[expert]}


def measure_stages(archive: Location, plan: RunPlan, category: str) -> StageCosts:
    """Measures the experts of a run on the CPU, on the first scored images of a category.

    Needs a Ray session.

    Args:
        archive: Root of the archive.
        plan: Plan of the run.
        category: Category.
    """
    import ray

    costs: StageCosts = ray.get(ray.remote(_measure).options(num_cpus=1).remote(archive.uri, plan, category))
    return costs


def _measure(archive: str, plan: RunPlan, category: str) -> StageCosts:
    from uniad_ray.archive.images import ImageLimits, decode_image
    from uniad_ray.archive.manifest import chunks, read_manifest
    from uniad_ray.archive.shards import read_chunk
    from uniad_ray.pipelines.cluster.devices import limit_threads
    from uniad_ray.scoring.bundles.store import BundleStore

    limit_threads(1)
    source = Location.parse(archive)
    bundle = BundleStore(plan.bundle_root).load(category, plan.bundles[category].version)
    config = bundle.manifest.config
    own = chunks(read_manifest(source), categories=[category], splits=plan.options.splits)
    columns = ["row_key", "image"]
    rows = (row for chunk in own for row in read_chunk(source, chunk, columns=columns).to_pylist())
    images = [
        (row["row_key"], decode_image(row["image"], config.decoded_size, ImageLimits(), config.value_range))
        for row in islice(rows, MEASURED_IMAGES)
    ]
    scorer = bundle.scorer(only=plan.options.experts)
    times = scorer.time_stages(images)
    milliseconds = {stage: 1000 * value for stage, value in times.medians.items()}
    return StageCosts(milliseconds, times.stages_of, scorer.network_costs(*images[0]))
