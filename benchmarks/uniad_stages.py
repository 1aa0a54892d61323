"""What each stage of UniAD costs, in fitting and in scoring one image, and how much the experts add to the networks.

Draws a category, fits the expert set `uniad` of the `embedded` profile in one process, and scores test images one at a
time on one thread. `experts_to_forward_passes` compares, image by image, the whole of scoring with the forward passes
of the student and its two teachers alone, both measured in the same loop. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.archive.scenes.dataset import draw_scene
from uniad_ray.archive.scenes.painting import render
from uniad_ray.archive.scenes.rules import SceneRules
from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig
from uniad_ray.perception.base import LearnedPerceiver, Perception
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.pipelines.compute import limit_threads
from uniad_ray.scoring.components import build_experts, build_pipeline, needs_of
from uniad_ray.scoring.perceptions import ExtendedPerceptions, ImagePerceptions, NormalImage, PerceptionSource, stream
from uniad_ray.training.distillation import train_student

NETWORKS = ("pyramid", "logical", "student")


class DrawnImages:
    """Normal images of the synthetic category, drawn once."""

    def __init__(self, count: int, size: int) -> None:
        """Draws them."""
        config, rules = SceneConfig(image_size=size), SceneRules()
        scenes = [draw_scene(config, "train", "good", index) for index in range(count)]
        self.images = [render(scene, rules, size).image for scene in scenes]
        self.rows: Sequence[NormalImage] = [NormalImage(f"{i:032d}", f"{i:064d}", "train") for i in range(count)]

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Gives images by index."""
        return ((index, self.images[index]) for index in indices)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="Normal images to fit on.")
    parser.add_argument("--scored", type=int, default=40, help="Images to score.")
    parser.add_argument("--expert-set", default="uniad")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="Threads of the fit.")
    options = parser.parse_args()
    config = load_config("embedded", [f"expert_set={options.expert_set}"])
    drawn = DrawnImages(options.images + options.scored, config.input_size)
    limit_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="uniad-ray-benchmark-") as folder:
        fit_stages, pipeline, experts = fit(config, drawn, options.images, Path(folder))
    limit_threads(1)
    document = {
        "expert_set": options.expert_set,
        "fit": {"images": options.images, "threads": options.threads, "stages": fit_stages},
        "score": score(pipeline, experts, drawn, range(options.images, options.images + options.scored)),
    }
    print(json.dumps(document, indent=1))


def fit(
    config: FitConfig, drawn: DrawnImages, count: int, folder: Path
) -> tuple[dict[str, dict[str, float]], PerceptionPipeline, dict[str, Any]]:
    """Fits stage by stage, as `scoring.fitting` does, with the seconds and the memory of each."""
    stages: dict[str, dict[str, float]] = {}
    indices = range(count)
    experts = build_experts(config, where="benchmark")
    pipeline = build_pipeline(config, needs_of(experts), device="cpu", where="benchmark")
    dependent = pipeline.dependent
    learned = frozenset(name for perceiver in dependent for name in perceiver.provides)
    wanted = frozenset(name for each in (*experts.values(), *dependent) for name in each.needs)
    source: PerceptionSource = ImagePerceptions(
        drawn, pipeline, wanted - learned, batch_size=config.batch_size, spill=folder / "images"
    )
    with _Stage(stages, "networks"):
        for _ in source.perceive(indices, frozenset()):
            pass
    for perceiver in dependent:
        with _Stage(stages, f"perceiver {perceiver.name}"):
            if isinstance(perceiver, LearnedPerceiver):
                perceiver.fit(stream(source, indices, perceiver.needs))
            elif hasattr(perceiver, "training_needs"):
                needs = [(name, "the training") for name in sorted(perceiver.training_needs)]
                teachers = build_pipeline(config, needs, device="cpu", where="benchmark")
                perceiver.restore(train_student(perceiver, teachers, drawn, indices))
            source = ExtendedPerceptions(source, pipeline, perceiver.provides & wanted, folder / perceiver.name)
            for _ in source.perceive(indices, perceiver.provides & wanted):
                pass
    for name, expert in experts.items():
        with _Stage(stages, f"expert {name}"):
            expert.fit(stream(source, indices, expert.needs))
    return stages, pipeline, experts


def score(
    pipeline: PerceptionPipeline, experts: dict[str, Any], drawn: DrawnImages, indices: Sequence[int]
) -> dict[str, Any]:
    """Scores images one at a time; milliseconds of each stage, and the ratio to the networks alone."""
    wanted = frozenset(name for expert in experts.values() for name in expert.needs)
    seconds: dict[str, list[float]] = {}
    ratios = []
    for number, index in enumerate(indices):
        spent: dict[str, float] = {}
        perception = Perception([drawn.rows[index].row_key], drawn.images[index][None])
        for perceiver in pipeline.perceivers_for(wanted):
            started = time.perf_counter()
            perception = pipeline.extend(perception, perception.names | perceiver.provides)
            spent[f"perceiver {perceiver.name}"] = time.perf_counter() - started
        for name, expert in experts.items():
            started = time.perf_counter()
            expert.score(perception)
            spent[f"expert {name}"] = time.perf_counter() - started
        if number < 2:
            continue  # the first images pay for what is set up once
        ratios.append(sum(spent.values()) / sum(spent[f"perceiver {name}"] for name in NETWORKS))
        for name, value in spent.items():
            seconds.setdefault(name, []).append(value)
    milliseconds = {name: round(1000 * statistics.median(values), 2) for name, values in seconds.items()}
    return {
        "images": len(ratios),
        "threads": 1,
        "milliseconds_an_image": milliseconds,
        "all": round(1000 * statistics.median(map(sum, zip(*seconds.values(), strict=True))), 2),
        "experts_to_forward_passes": {
            "median": round(statistics.median(ratios), 3),
            "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3),
            "target_at_most": 2.5,
        },
    }


class _Stage:
    """Notes the seconds of a block, and the memory that is held after it."""

    def __init__(self, stages: dict[str, dict[str, float]], name: str) -> None:
        self._stages = stages
        self._name = name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        self._stages[self._name] = {
            "seconds": round(time.perf_counter() - self._started, 2),
            "resident_mib": round(pages * resource.getpagesize() / 2**20, 1),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }


if __name__ == "__main__":
    main()
