"""Cost of each stage of a fit and of scoring one image: extractors and experts, before and after TMUAD.

The script draws a category and fits all experts of the set `fused` of the `embedded` profile in one process. It then
scores test images one at a time on one thread, several times. Each stage is measured once. The cost of a set of experts
is the sum of its stages, image by image. Expert selection leaves experts out, so a category costs at most as much.
`to_forward_passes` compares a set with the forward passes of its networks alone. The nearest description by Gestalt
pattern matching is searched in a bank of random descriptions with the length of the category's own. The script prints
one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.archive.scenes.dataset import draw_scene
from uniad_ray.archive.scenes.painting import render
from uniad_ray.archive.scenes.rules import SceneRules
from uniad_ray.config.loading import load_config
from uniad_ray.config.model import FitConfig
from uniad_ray.experts.text.gestalt import GestaltIndex, gestalt_ratio
from uniad_ray.perception.base import LearnedExtractor
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.perception.text.descriptions import CELLS, ClassDescription, Description
from uniad_ray.pipelines.cluster.devices import limit_threads
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of
from uniad_ray.scoring.fitting.perceptions import (
    ExtendedPerceptions,
    ImagePerceptions,
    NormalImage,
    PerceptionSource,
    stream,
)
from uniad_ray.scoring.stage_times import StageTimes, time_stages
from uniad_ray.training.distillation import train_student

SETS = ("patch", "uniad", "tmuad", "fused")
"""Expert sets; the first two existed before TMUAD."""
NETWORKS = tuple(f"extractor {name}" for name in ("pyramid", "logical", "student"))
SEGMENTATION = ("extractor parts", "extractor segmenter")
"""The segmenter, and the components that it takes its pieces from."""


class DrawnImages:
    """Normal images of the synthetic category, drawn once."""

    def __init__(self, count: int, size: int, seed: int) -> None:
        """Draw the images."""
        config, rules = SceneConfig(image_size=size, seed=seed), SceneRules()
        scenes = [draw_scene(config, "train", "good", index) for index in range(count)]
        self.images = [render(scene, rules, size).image for scene in scenes]
        self.rows: Sequence[NormalImage] = [NormalImage(f"{i:032d}", f"{i:064d}", "train") for i in range(count)]

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield images by index."""
        return ((index, self.images[index]) for index in indices)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="Number of normal images to fit on.")
    parser.add_argument("--scored", type=int, default=20, help="Number of images to score.")
    parser.add_argument("--repeats", type=int, default=3, help="Number of times each image is scored.")
    parser.add_argument("--size", type=int, default=256, help="Side of the images, pixels.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the images.")
    parser.add_argument("--descriptions", type=int, default=10_000, help="Number of descriptions in the bank.")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="Override a profile key.")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="Threads of the fit.")
    options = parser.parse_args()
    config = load_config("embedded", [*options.overrides, "expert_set=fused"])
    drawn = DrawnImages(options.images + options.scored, options.size, options.seed)
    limit_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="uniad-ray-benchmark-") as folder:
        fit_stages, pipeline, experts = fit(config, drawn, options.images, Path(folder))
    limit_threads(1)
    queries = [drawn.images[index] for index in range(options.images, len(drawn.images))] * options.repeats
    times = time_stages(pipeline, experts, ((f"{index:032d}", image) for index, image in enumerate(queries)))
    document = {
        "fit": {"images": options.images, "threads": options.threads, "stages": fit_stages},
        "score": {
            "images": options.scored,
            "repeats": options.repeats,
            "threads": 1,
            "milliseconds_an_image": {stage: milliseconds(value) for stage, value in times.medians.items()},
            "sets": {name: cost(times, config.expert_sets[name]) for name in SETS},
        },
        "gestalt": gestalt(experts["text_memory"].state().document["texts"], options.descriptions),
    }
    print(json.dumps(document, indent=1))


def fit(
    config: FitConfig, drawn: DrawnImages, count: int, folder: Path
) -> tuple[dict[str, dict[str, float]], PerceptionPipeline, dict[str, Any]]:
    """Fit stage by stage, like `scoring.fitting`, and record the seconds and memory of each stage."""
    stages: dict[str, dict[str, float]] = {}
    indices = range(count)
    experts = build_experts(config)
    pipeline = build_pipeline(config, needs_of(experts), device="cpu")
    dependent = pipeline.dependent
    learned = frozenset(name for extractor in dependent for name in extractor.provides)
    wanted = frozenset(name for each in (*experts.values(), *dependent) for name in each.needs)
    source: PerceptionSource = ImagePerceptions(
        drawn, pipeline, wanted - learned, batch_size=config.batch_size, spill=folder / "images"
    )
    with _Stage(stages, "networks"):
        for _ in source.extract(indices, frozenset()):
            pass
    for extractor in dependent:
        with _Stage(stages, f"extractor {extractor.name}"):
            if isinstance(extractor, LearnedExtractor):
                extractor.fit(stream(source, indices, extractor.needs))
            elif hasattr(extractor, "training_needs"):
                needs = [(name, "the training") for name in sorted(extractor.training_needs)]
                teachers = build_pipeline(config, needs, device="cpu")
                extractor.restore(train_student(extractor, teachers, drawn, indices))
            source = ExtendedPerceptions(source, pipeline, extractor.provides & wanted, folder / extractor.name)
            for _ in source.extract(indices, extractor.provides & wanted):
                pass
    for name, expert in experts.items():
        with _Stage(stages, f"expert {name}"):
            expert.fit(stream(source, indices, expert.needs))
    return stages, pipeline, experts


def cost(times: StageTimes, experts: Sequence[str]) -> dict[str, Any]:
    """Cost of a set of experts, in total and image by image."""
    stages = {stage for expert in experts for stage in times.stages_of[expert]}
    seconds = {stage: values for stage, values in times.seconds.items() if stage in stages}
    totals = summed(seconds)
    networks = summed({stage: values for stage, values in seconds.items() if stage in NETWORKS})
    found: dict[str, Any] = {
        "milliseconds_an_image": milliseconds(statistics.median(totals)),
        "to_forward_passes": spread([total / network for total, network in zip(totals, networks, strict=True)]),
    }
    if set(SEGMENTATION) <= stages:
        segmentation = summed({stage: seconds[stage] for stage in SEGMENTATION})
        shares = [value / total for value, total in zip(segmentation, totals, strict=True)]
        found["share_of_segmentation"] = {**spread(shares), "target_at_most": 0.5}
    return found


def summed(seconds: Mapping[str, Sequence[float]]) -> list[float]:
    """Sum over the stages, for each image."""
    return [sum(values) for values in zip(*seconds.values(), strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {
        "median": round(statistics.median(values), 3),
        "lowest": round(min(values), 3),
        "highest": round(max(values), 3),
    }


def milliseconds(seconds: float) -> float:
    """Convert seconds to rounded milliseconds."""
    return round(1000 * seconds, 2)


def gestalt(known: Sequence[str], count: int) -> dict[str, Any]:
    """Look up descriptions in a bank of random ones, and check a few against a full comparison."""
    rng = np.random.default_rng(0)
    numbers = [[one.count for one in Description.parse(text).classes] for text in known]
    bank = [random_description(rng, numbers[rng.integers(len(numbers))]) for _ in range(count)]
    queries = [random_description(rng, numbers[rng.integers(len(numbers))]) for _ in range(50)]
    index = GestaltIndex(bank)
    seconds, slow, same = [], [], []
    for number, query in enumerate(queries):
        started = time.perf_counter()
        found = index.nearest(query)
        seconds.append(time.perf_counter() - started)
        if number < 5:
            started = time.perf_counter()
            ratios = [gestalt_ratio(text, query) for text in bank]
            slow.append(time.perf_counter() - started)
            same.append(found.ratio == max(ratios) and found.position == int(np.argmax(ratios)))
    return {
        "descriptions": count,
        "different": len(set(bank)),
        "characters": {
            "drawn": statistics.median(map(len, bank)),
            "of_the_category": statistics.median(map(len, known)),
        },
        "milliseconds_an_image": spread([1000 * value for value in seconds]),
        "target_below": 20,
        "comparing_all_milliseconds": milliseconds(statistics.median(slow)),
        "same_as_comparing_all": all(same),
    }


def random_description(rng: np.random.Generator, numbers: Sequence[int]) -> str:
    """Canonical text with the given number of objects per class, at random places and sizes."""
    classes = []
    for number, objects in enumerate(numbers, start=1):
        places = [(CELLS[cell],) for cell in sorted(rng.integers(len(CELLS), size=objects))]
        classes.append(ClassDescription(f"part-{number}", objects, tuple(places), round(float(rng.uniform(0.3, 8)), 2)))
    return str(Description(tuple(classes)))


class _Stage:
    """Record the seconds of a block, and the memory held after it."""

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
