"""Measure the time of every extractor and expert per image, and the size of the networks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uniad_ray.experts.base import Expert
from uniad_ray.perception.base import Perception
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.complete import score_complete

if TYPE_CHECKING:
    from torch import nn

WARM_UP_IMAGES = 2
"""Number of first images to skip; they include one-time setup."""


@dataclass(frozen=True)
class StageTimes:
    """Times of all stages over several images.

    Attributes:
        seconds: Seconds per image, by stage (`extractor NAME` or `expert NAME`).
        stages_of: Stages that each expert needs, by expert, including its own.
    """

    seconds: Mapping[str, Sequence[float]]
    stages_of: Mapping[str, Sequence[str]]

    @property
    def medians(self) -> dict[str, float]:
        """Median seconds per image, by stage."""
        return {stage: statistics.median(values) for stage, values in self.seconds.items()}


@dataclass(frozen=True)
class NetworkCosts:
    """Size of the networks by stage (`extractor NAME` or `expert NAME`).

    Attributes:
        parameters: Number of parameters of each network of a stage, by an identity that stages with the same network
            share.
        flops: Floating-point operations for one image, as torch counts them: those of matrix products, convolutions and
            attention, two for a multiplication with an addition.
    """

    parameters: Mapping[str, Mapping[int, int]]
    flops: Mapping[str, int]


def network_costs(
    pipeline: PerceptionPipeline, experts: Mapping[str, Expert], row_key: str, image: np.ndarray
) -> NetworkCosts:
    """Count parameters and operations of the stages for one image.

    Args:
        pipeline: Fitted extractors.
        experts: Fitted experts by name.
        row_key: Key of the image.
        image: uint8, shape (H, W, 3).
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # torch has no rule for the convolution that extractors use on a CPU.
    rules = {torch.ops.aten.mkldnn_convolution: _convolution_flops}
    flops: dict[str, int] = {}
    stages = _stages(pipeline, experts, Perception([row_key], image[None]))
    while True:
        with FlopCounterMode(display=False, custom_mapping=rules) as counter:
            stage, _ = next(stages, (None, 0.0))
        if stage is None:
            break
        flops[stage] = counter.get_total_flops()
    owners = {f"extractor {each.name}": each for each in pipeline.extractors} | {
        f"expert {name}": expert for name, expert in experts.items()
    }
    parameters = {
        stage: {id(network): sum(each.numel() for each in network.parameters()) for network in _networks(owners[stage])}
        for stage in flops
    }
    return NetworkCosts(parameters, flops)


def _convolution_flops(
    image_shape: Any, weight_shape: Any, *_arguments: Any, out_shape: Any = None, **_options: Any
) -> int:
    from torch.utils.flop_counter import conv_flop_count

    return int(conv_flop_count(image_shape, weight_shape, out_shape))


def _networks(owner: Any) -> list[nn.Module]:
    """The networks that an object holds, also in a dataclass, a tuple or a function."""
    from torch import nn

    found: dict[int, nn.Module] = {}
    seen: set[int] = set()
    pending = [owner]
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, nn.Module):
            found[id(one)] = one
        elif isinstance(one, list | tuple):
            pending += one
        elif one is owner or is_dataclass(one) or type(one).__module__.startswith("uniad_ray."):
            pending += vars(one).values() if hasattr(one, "__dict__") else ()
        elif callable(one):
            pending.append(getattr(one, "__wrapped__", None))
            pending += [cell.cell_contents for cell in getattr(one, "__closure__", None) or () if _is_filled(cell)]
    return list(found.values())


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def time_stages(
    pipeline: PerceptionPipeline, experts: Mapping[str, Expert], images: Iterable[tuple[str, np.ndarray]]
) -> StageTimes:
    """Score images one at a time and measure each stage.

    Args:
        pipeline: Fitted extractors.
        experts: Fitted experts by name.
        images: Pairs of row key and image, uint8, shape (H, W, 3). At least three; the first two are warm-up.
    """
    seconds: dict[str, list[float]] = {}
    for number, (row_key, image) in enumerate(images):
        for stage, value in _stages(pipeline, experts, Perception([row_key], image[None])):
            if number >= WARM_UP_IMAGES:
                seconds.setdefault(stage, []).append(value)
    stages_of = {
        name: [*(f"extractor {each.name}" for each in pipeline.extractors_for(expert.needs)), f"expert {name}"]
        for name, expert in experts.items()
    }
    return StageTimes(seconds, stages_of)


def _stages(
    pipeline: PerceptionPipeline, experts: Mapping[str, Expert], perception: Perception
) -> Iterator[tuple[str, float]]:
    wanted = frozenset(field for expert in experts.values() for field in expert.needs)
    for extractor in pipeline.extractors_for(wanted):
        started = time.perf_counter()
        perception = pipeline.extend(perception, perception.names | extractor.provides)
        yield f"extractor {extractor.name}", time.perf_counter() - started
    for name, expert in experts.items():
        started = time.perf_counter()
        score_complete(expert, perception)
        yield f"expert {name}", time.perf_counter() - started
