"""Comparison of the indexes of a memory bank: flat, product codes with exact re-ranking, and an inverted file.

The script draws scenes and builds a bank of the patches that an expert of the `embedded` profile uses. It searches the
bank for the patches of other scenes, image by image: normal scenes, and scenes with structural damage. All indexes get
the same queries, in turns. `index_bytes` is the memory that a search scans. The vectors behind the product codes are
stored in half precision in a file of the temporary folder (`file_bytes`); the system caches parts of it. Times are
medians; the processor's time (`cpu_milliseconds_an_image`, all threads) depends less on other work on the machine.
`score_error` is the largest relative error of an image score, the mean of the highest distances (`highest`). The script
prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch

from uniad_ray.archive.scenes import SceneConfig
from uniad_ray.archive.scenes.dataset import draw_scene
from uniad_ray.archive.scenes.files import Group, Split
from uniad_ray.archive.scenes.painting import render
from uniad_ray.archive.scenes.rules import SceneRules
from uniad_ray.config.loading import load_config
from uniad_ray.experts.patch.memory import PatchMemory
from uniad_ray.experts.shared.memory_bank import select_bank
from uniad_ray.experts.shared.search.flat_search import Distance
from uniad_ray.experts.shared.search.nearest import NearestNeighbours, VectorIndexConfig
from uniad_ray.perception.base import Perception
from uniad_ray.pipelines.cluster.devices import limit_threads
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of

_KINDS: tuple[Literal["flat", "pq", "ivf"], ...] = ("flat", "pq", "ivf")
_DISTANCES: tuple[Distance, ...] = ("l2", "cosine")
_SEARCHED: tuple[Group, ...] = ("good", "structural_anomalies")
_QUERIES_AT_ONCE = 512
_TIE = 1e-5
"""Relative differences of distances below this come from rounding."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expert", choices=["patch", "patch_fine"], default="patch_fine")
    parser.add_argument("--size", type=int, default=576, help="Side of the images, pixels.")
    parser.add_argument("--vectors", type=int, default=20_000, help="Number of vectors in the bank.")
    parser.add_argument("--candidates", type=int, help="Select the bank as a coreset from this many vectors.")
    parser.add_argument("--normal-images", type=int, default=40, help="Number of images that the bank is sampled from.")
    parser.add_argument("--images", type=int, default=12, help="Number of query images; the first two are not timed.")
    parser.add_argument("--highest", type=float, default=0.001, help="Fraction of the patches in an image score.")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--subvector", type=int, default=2)
    parser.add_argument("--reranked", type=int, default=32)
    parser.add_argument("--lists", type=int, default=256)
    parser.add_argument("--probes", type=int, default=4)
    options = parser.parse_args()
    limit_threads(options.threads)
    sampled = options.candidates or options.vectors
    candidates = patches(options.expert, options.size, "train", "good", range(options.normal_images), sampled)
    bank = select_bank(candidates.astype(np.float32), "coreset", options.vectors).astype(np.float16)
    queries = [
        patches(options.expert, options.size, "test", group, [index], options.size**2).astype(np.float32)
        for index in range(options.images // 2)
        for group in _SEARCHED
    ]
    document: dict[str, Any] = {
        **vars(options),
        "vectors": len(bank),
        "channels": bank.shape[1],
        "images": len(queries),
        "queries_an_image": len(queries[0]),
        "highest": max(1, round(options.highest * len(queries[0]))),
    }
    settings = {name: getattr(options, name) for name in ("subvector", "reranked", "lists", "probes")}
    for distance in _DISTANCES:
        document[distance] = compare(bank, queries, distance, settings, document["highest"])
    print(json.dumps(document, indent=1))


def patches(name: str, size: int, split: Split, group: Group, indices: Iterable[int], count: int) -> np.ndarray:
    """Patch vectors of drawn images in the format of an expert: float16, shape (at most count, C)."""
    options = ["expert_set=patch-fine", f"experts.{name}.config.candidates={count}", f"longest_side={size}"]
    config = load_config("embedded", options)
    expert = build_experts(config, only=[name])[name]
    assert isinstance(expert, PatchMemory)  # noqa: S101
    pipeline = build_pipeline(config, needs_of({name: expert}), device="cpu", check_unused=False)
    scenes, rules = SceneConfig(image_size=size), SceneRules()

    def stream() -> Iterator[Perception]:
        for index in indices:
            image = render(draw_scene(scenes, split, group, index), rules, size).image
            yield pipeline.extract([f"{split}/{group}/{index}"], image[None], expert.needs)

    return expert.sample(stream).candidates.vectors().astype(np.float16)


def compare(
    bank: np.ndarray, queries: Sequence[np.ndarray], distance: Distance, settings: dict[str, int], highest: int
) -> dict[str, Any]:
    """Build the indexes and search them in turns: bytes, seconds, milliseconds per image, recall, errors and ratios."""
    indexes: dict[str, NearestNeighbours] = {}
    measured: dict[str, dict[str, Any]] = {}
    for kind in _KINDS:
        started = time.perf_counter()
        indexes[kind] = NearestNeighbours(bank, distance, 1, VectorIndexConfig(kind=kind, **settings))
        measured[kind] = {"build_seconds": round(time.perf_counter() - started, 2)}
        measured[kind]["index_bytes"] = indexes[kind].index_bytes
    measured["pq"]["file_bytes"] = sum(
        array.nbytes for array in indexes["pq"].arrays().values() if isinstance(array, np.memmap)
    )
    milliseconds: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    cpu_milliseconds: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    hits: dict[str, list[np.ndarray]] = {kind: [] for kind in _KINDS}
    excess: dict[str, list[np.ndarray]] = {kind: [] for kind in _KINDS}
    errors: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    for number, image in enumerate(queries):
        nearest = nearest_distances(bank, image, distance)
        for kind in _KINDS:
            started, cpu_started = time.perf_counter(), time.process_time()
            found = indexes[kind].distances(torch.from_numpy(image), highest)
            if number > 1:  # the first images include one-time set-up
                milliseconds[kind].append(1000 * (time.perf_counter() - started))
                cpu_milliseconds[kind].append(1000 * (time.process_time() - cpu_started))
            hits[kind].append(found <= nearest * (1 + _TIE) + _TIE**2)
            excess[kind].append(found / np.maximum(nearest, _TIE) - 1)
            errors[kind].append(abs(np.sort(found)[-highest:].mean() / np.sort(nearest)[-highest:].mean() - 1))
    for kind in _KINDS:
        measured[kind]["milliseconds_an_image"] = round(statistics.median(milliseconds[kind]), 2)
        measured[kind]["cpu_milliseconds_an_image"] = round(statistics.median(cpu_milliseconds[kind]), 2)
        measured[kind]["recall_at_1"] = round(float(np.mean(np.concatenate(hits[kind]))), 4)
        measured[kind]["mean_excess_of_distance"] = round(float(np.mean(np.concatenate(excess[kind]))), 6)
        measured[kind]["score_error"] = float(f"{max(errors[kind]):.1e}")
    for kind in _KINDS[1:]:
        measured[f"flat_to_{kind}"] = {
            name: round(measured["flat"][name] / measured[kind][name], 2)
            for name in ("index_bytes", "milliseconds_an_image", "cpu_milliseconds_an_image")
        }
    return measured


def nearest_distances(bank: np.ndarray, queries: np.ndarray, distance: Distance) -> np.ndarray:
    """True distances in double precision, by comparing all pairs."""
    vectors, points = bank.astype(np.float64), queries.astype(np.float64)
    if distance == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    norms = np.square(vectors).sum(axis=1)
    found = []
    for start in range(0, len(points), _QUERIES_AT_ONCE):
        some = points[start : start + _QUERIES_AT_ONCE]
        products = some @ vectors.T
        if distance == "cosine":
            found.append(1 - products.max(axis=1))
        else:
            squared = np.square(some).sum(axis=1) + (norms - 2 * products).min(axis=1)
            found.append(np.sqrt(squared.clip(0)))
    return np.concatenate(found)


if __name__ == "__main__":
    main()
