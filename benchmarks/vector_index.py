"""The two indexes of a memory bank side by side: flat, and product codes with exact re-ranking.

Draws scenes, takes the patches that the patch memory of the `embedded` profile sees, and searches a bank of them for
the patches of other scenes, image by image: normal ones, and ones with structural damage. Both indexes answer the same
queries, in turns. `index_bytes` is what a search goes through in memory; the vectors behind the product codes lie in
half precision in a file of the temporary folder (`file_bytes`), of which the system keeps in memory what it likes.
Prints one JSON document.
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
from uniad_ray.archive.scenes.dataset import Group, Split, draw_scene
from uniad_ray.archive.scenes.painting import render
from uniad_ray.archive.scenes.rules import SceneRules
from uniad_ray.config.loading import load_config
from uniad_ray.experts.nearest import Distance, NearestNeighbours, VectorIndexConfig
from uniad_ray.experts.patch_memory import PatchMemory
from uniad_ray.perception.base import Perception
from uniad_ray.pipelines.compute import limit_threads
from uniad_ray.scoring.components import build_experts, build_pipeline, needs_of

_KINDS: tuple[Literal["flat", "pq"], ...] = ("flat", "pq")
_DISTANCES: tuple[Distance, ...] = ("l2", "cosine")
_SEARCHED: tuple[Group, ...] = ("good", "structural_anomalies")
_PATCHES_AN_IMAGE = 1024
_TIE = 1e-5
"""Distances that differ by less, relative to their size, are rounded differently."""


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=20_000, help="Vectors in the bank.")
    parser.add_argument("--images", type=int, default=20, help="Images to search for.")
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
    """Patch vectors of drawn images as the patch memory stores them: float16, shape (at most count, C)."""
    config = load_config("embedded", [f"experts.patch.config.candidates={count}"])
    expert = build_experts(config, only=["patch"])["patch"]
    assert isinstance(expert, PatchMemory)  # noqa: S101
    pipeline = build_pipeline(config, needs_of({"patch": expert}), device="cpu", check_unused=False)
    scenes, rules = SceneConfig(image_size=config.input_size), SceneRules()

    def stream() -> Iterator[Perception]:
        for index in indices:
            image = render(draw_scene(scenes, split, group, index), rules, config.input_size).image
            yield pipeline.perceive([f"{split}/{group}/{index}"], image[None], expert.needs)

    return expert.sample(stream).candidates.vectors().astype(np.float16)


def compare(
    bank: np.ndarray, queries: Sequence[np.ndarray], distance: Distance, subvector: int, reranked: int
) -> dict[str, Any]:
    """Builds both indexes and searches them in turns: bytes, seconds, milliseconds an image, recall and ratios."""
    indexes: dict[str, NearestNeighbours] = {}
    figures: dict[str, dict[str, float]] = {}
    for kind in _KINDS:
        started = time.perf_counter()
        config = VectorIndexConfig(kind=kind, subvector=subvector, reranked=reranked)
        indexes[kind] = NearestNeighbours(bank, distance, 1, config)
        figures[kind] = {"build_seconds": round(time.perf_counter() - started, 2)}
        figures[kind]["index_bytes"] = indexes[kind].index_bytes
    figures["pq"]["file_bytes"] = sum(
        array.nbytes for array in indexes["pq"].arrays().values() if isinstance(array, np.memmap)
    )
    milliseconds: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    hits, excess = [], []
    for number, image in enumerate(queries):
        found = {}
        for kind in _KINDS:
            started = time.perf_counter()
            found[kind] = indexes[kind].distances(torch.from_numpy(image))
            if number > 1:  # the first images pay for what is set up once
                milliseconds[kind].append(1000 * (time.perf_counter() - started))
        nearest = nearest_distances(bank, image, distance)
        hits.append(found["pq"] <= nearest * (1 + _TIE) + _TIE**2)
        excess.append(found["pq"] / np.maximum(nearest, _TIE) - 1)
    for kind in _KINDS:
        figures[kind]["milliseconds_an_image"] = round(statistics.median(milliseconds[kind]), 2)
    figures["pq"]["recall_at_1"] = round(float(np.mean(hits)), 4)
    figures["pq"]["mean_excess_of_distance"] = round(float(np.mean(excess)), 6)
    ratios = {
        "index_bytes": figures["flat"]["index_bytes"] / figures["pq"]["index_bytes"],
        "milliseconds_an_image": figures["flat"]["milliseconds_an_image"] / figures["pq"]["milliseconds_an_image"],
    }
    return {**figures, "flat_to_pq": {name: round(ratio, 2) for name, ratio in ratios.items()}}


def nearest_distances(bank: np.ndarray, queries: np.ndarray, distance: Distance) -> np.ndarray:
    """The true distances in double precision, by comparing all."""
    vectors, points = bank.astype(np.float64), queries.astype(np.float64)
    if distance == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return np.asarray(1 - (points @ vectors.T).max(axis=1))
    squared = np.square(points).sum(axis=1, keepdims=True) + np.square(vectors).sum(axis=1) - 2 * points @ vectors.T
    return np.asarray(np.sqrt(squared.min(axis=1).clip(0)))


if __name__ == "__main__":
    main()
