from __future__ import annotations

import pytest
from support.normal_images import DrawnNormalImages
from support.profiles import small_config

from uniad_ray.scoring import stage_times
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of
from uniad_ray.scoring.fitting.perceptions import ImagePerceptions, stream
from uniad_ray.scoring.stage_times import WARM_UP_IMAGES, time_stages


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
