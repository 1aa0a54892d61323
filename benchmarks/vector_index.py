"""Comparison of the two indexes of a memory bank: flat, and product codes with exact re-ranking.

The script draws scenes and builds a bank of the patches that the patch memory of the `embedded` profile uses. It
searches the bank for the patches of other scenes, image by image: normal scenes, and scenes with structural damage.
Both indexes get the same queries, in turns. `index_bytes` is the memory that a search scans. The vectors behind the
product codes are stored in half precision in a file of the temporary folder (`file_bytes`); the system caches parts of
it. The script prints one JSON document.
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
from uniad_ray.experts.shared.flat_search import Distance
from uniad_ray.experts.shared.nearest import NearestNeighbours, VectorIndexConfig
from uniad_ray.perception.base import Perception
from uniad_ray.pipelines.cluster.devices import limit_threads
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of

_KINDS: tuple[Literal["flat", "pq"], ...] = ("flat", "pq")
_DISTANCES: tuple[Distance, ...] = ("l2", "cosine")
_SEARCHED: tuple[Group, ...] = ("good", "structural_anomalies")
_PATCHES_AN_IMAGE = 1024
_TIE = 1e-5
"""Relative differences of distances below this come from rounding."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=20_000, help="Number of vectors in the bank.")
    parser.add_argument("--images", type=int, default=20, help="Number of query images.")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--subvector", type=int, default=2)
    parser.add_argument("--reranked", type=int, default=32)
    options = parser.parse_args()
    limit_threads(options.threads)
    normal = -(-2 * options.vectors // _PATCHES_AN_IMAGE)
    bank = patches("train", "good", range(normal), options.vectors)
    queries = [
        patches("test", group, [index], _PATCHES_AN_IMAGE).astype(np.float32)
        for index in range(options.images // 2)
        for group in _SEARCHED
    ]
    document: dict[str, Any] = {
        "vectors": len(bank),
        "channels": bank.shape[1],
        "images": len(queries),
        "queries_an_image": len(queries[0]),
        "threads": options.threads,
        "subvector": options.subvector,
        "reranked": options.reranked,
    }
    for distance in _DISTANCES:
        document[distance] = compare(bank, queries, distance, options.subvector, options.reranked)
    print(json.dumps(document, indent=1))


def patches(split: Split, group: Group, indices: Iterable[int], count: int) -> np.ndarray:
    """Patch vectors of drawn images in the format of the patch memory: float16, shape (at most count, C)."""
    config = load_config("embedded", [f"experts.patch.config.candidates={count}"])
    expert = build_experts(config, only=["patch"])["patch"]
    assert isinstance(expert, PatchMemory)  # noqa: S101
    pipeline = build_pipeline(config, needs_of({"patch": expert}), device="cpu", check_unused=False)
    scenes, rules = SceneConfig(image_size=config.input_size), SceneRules()

    def stream() -> Iterator[Perception]:
        for index in indices:
            image = render(draw_scene(scenes, split, group, index), rules, config.input_size).image
            yield pipeline.extract([f"{split}/{group}/{index}"], image[None], expert.needs)

    return expert.sample(stream).candidates.vectors().astype(np.float16)


def compare(
    bank: np.ndarray, queries: Sequence[np.ndarray], distance: Distance, subvector: int, reranked: int
) -> dict[str, Any]:
    """Build both indexes and search them in turns: bytes, seconds, milliseconds per image, recall and ratios."""
    indexes: dict[str, NearestNeighbours] = {}
    measured: dict[str, dict[str, float]] = {}
    for kind in _KINDS:
        started = time.perf_counter()
        config = VectorIndexConfig(kind=kind, subvector=subvector, reranked=reranked)
        indexes[kind] = NearestNeighbours(bank, distance, 1, config)
        measured[kind] = {"build_seconds": round(time.perf_counter() - started, 2)}
        measured[kind]["index_bytes"] = indexes[kind].index_bytes
    measured["pq"]["file_bytes"] = sum(
        array.nbytes for array in indexes["pq"].arrays().values() if isinstance(array, np.memmap)
    )
    milliseconds: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    hits, excess = [], []
    for number, image in enumerate(queries):
        found = {}
        for kind in _KINDS:
            started = time.perf_counter()
            found[kind] = indexes[kind].distances(torch.from_numpy(image))
            if number > 1:  # the first images include one-time set-up
                milliseconds[kind].append(1000 * (time.perf_counter() - started))
        nearest = nearest_distances(bank, image, distance)
        hits.append(found["pq"] <= nearest * (1 + _TIE) + _TIE**2)
        excess.append(found["pq"] / np.maximum(nearest, _TIE) - 1)
    for kind in _KINDS:
        measured[kind]["milliseconds_an_image"] = round(statistics.median(milliseconds[kind]), 2)
    measured["pq"]["recall_at_1"] = round(float(np.mean(hits)), 4)
    measured["pq"]["mean_excess_of_distance"] = round(float(np.mean(excess)), 6)
    ratios = {
        "index_bytes": measured["flat"]["index_bytes"] / measured["pq"]["index_bytes"],
        "milliseconds_an_image": measured["flat"]["milliseconds_an_image"] / measured["pq"]["milliseconds_an_image"],
    }
    return {**measured, "flat_to_pq": {name: round(ratio, 2) for name, ratio in ratios.items()}}


def nearest_distances(bank: np.ndarray, queries: np.ndarray, distance: Distance) -> np.ndarray:
    """True distances in double precision, by comparing all pairs."""
    vectors, points = bank.astype(np.float64), queries.astype(np.float64)
    if distance == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return np.asarray(1 - (points @ vectors.T).max(axis=1))
    squared = np.square(points).sum(axis=1, keepdims=True) + np.square(vectors).sum(axis=1) - 2 * points @ vectors.T
    return np.asarray(np.sqrt(squared.min(axis=1).clip(0)))


if __name__ == "__main__":
    main()
