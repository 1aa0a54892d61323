from __future__ import annotations

import numpy as np
import pytest
import torch
from support.normal_images import DrawnNormalImages
from support.profiles import small_config
from torch.utils.flop_counter import FlopCounterMode

from uniad_ray.perception.timm_library import timm
from uniad_ray.scoring import stage_times
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of
from uniad_ray.scoring.fitting.perceptions import ImagePerceptions, stream
from uniad_ray.scoring.stage_times import WARM_UP_IMAGES, network_costs, time_stages


def test_stages_are_timed_once_per_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = small_config(
        "experts.deep={class: 'uniad_ray.experts.patch.memory:PatchMemory', config: {fields: [logical/level3]}}",
        "expert_sets.two=[patch, deep]",
        "expert_set=two",
    )
    experts = build_experts(config)
    pipeline = build_pipeline(config, needs_of(experts), device="cpu")
    normal_images = DrawnNormalImages(3)
    source = ImagePerceptions(normal_images, pipeline, pipeline.provides, batch_size=4, spill=None)
    for expert in experts.values():
        expert.fit(stream(source, range(3), expert.needs))
    # The clock advances by one per call, so each stage takes one tick.
    ticks = iter(range(10_000))
    monkeypatch.setattr(stage_times.time, "perf_counter", lambda: float(next(ticks)))

    times = time_stages(pipeline, experts, ((f"{index:032d}", normal_images.image(index)) for index in range(5)))

    assert list(times.seconds) == ["extractor pyramid", "extractor logical", "expert patch", "expert deep"]
    assert all(list(values) == [1.0] * (5 - WARM_UP_IMAGES) for values in times.seconds.values())
    assert times.medians == dict.fromkeys(times.seconds, 1.0)
    assert times.stages_of == {
        "patch": ["extractor pyramid", "expert patch"],
        "deep": ["extractor logical", "expert deep"],
    }


def test_network_costs_are_those_of_the_plain_network() -> None:
    config = small_config(
        "experts.fine_one={class: 'uniad_ray.experts.patch.memory:PatchMemory', config: {fields: [fine/level1]}}",
        "expert_sets.two=[patch, fine_one]",
        "expert_set=two",
        "extractors.fine.config.input_size=256",
    )
    experts = build_experts(config)
    pipeline = build_pipeline(config, needs_of(experts), device="cpu")
    source = ImagePerceptions(DrawnNormalImages(3), pipeline, pipeline.provides, batch_size=4, spill=None)
    for expert in experts.values():
        expert.fit(stream(source, range(3), expert.needs))
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.forward_intermediates(
            torch.zeros(1, 3, 64, 64), indices=[1, 2, 3], stop_early=True, intermediates_only=True
        )

    costs = network_costs(pipeline, experts, "a", np.zeros((64, 64, 3), dtype=np.uint8))

    assert costs.flops["extractor pyramid"] == counter.get_total_flops() > 10**7
    # Both extractors share one network.
    (one,), (other,) = (costs.parameters[f"extractor {name}"].items() for name in ("pyramid", "fine"))
    assert one == other
    assert one[1] == sum(each.numel() for each in network.parameters())
    assert costs.parameters["expert patch"] == {}
