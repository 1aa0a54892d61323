"""Small defects in large images: image AUROC of the patch memories by the size of the defect, and the time of an image.

For each seed the script draws a synthetic product at 2048 pixels (`uniad-ray scenes --product SEED --image-size 2048`)
as PNG files in memory, fits the patch memories of a profile on its normal images, and scores normal images and images
with one defect. It starts no Ray. It prints one JSON line per product; times are medians in seconds of one thread.

    python benchmarks/large_images.py 500-503
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from products import parse_seeds

from uniad_ray.archive.image_size import fitted_size
from uniad_ray.archive.images import decode_image
from uniad_ray.archive.scenes.files import encode_image
from uniad_ray.archive.scenes.products.product import Product, draw_image, draw_product
from uniad_ray.config.loading import load_config
from uniad_ray.metrics.image import image_auroc
from uniad_ray.perception.base import Perception
from uniad_ray.scoring.factory import build_experts, build_pipeline, needs_of

SHARES = ((0.001, 0.001), (0.0001, 0.0005), (0.00002, 0.00005))
"""Sizes of the defects as fractions of the image."""
T = TypeVar("T")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="+", metavar="SEED|FIRST-LAST", help="Seeds of products.")
    parser.add_argument("--image-size", type=int, default=2048, help="Longest side of the images, pixels.")
    parser.add_argument("--train", type=int, default=16, help="Number of normal images to fit on.")
    parser.add_argument("--good", type=int, default=12, help="Number of normal test images.")
    parser.add_argument("--structural", type=int, default=9, help="Number of images with a defect, for each size.")
    parser.add_argument("--experts", default="patch,patch_fine,patch_large", help="Patch memories, by comma.")
    parser.add_argument("--config", default="embedded", metavar="NAME|FILE", help="A profile, or a YAML file.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in parse_seeds(options.seeds):
        print(json.dumps(measure(draw_product(seed).at(options.image_size), options)), flush=True)


def measure(product: Product, options: argparse.Namespace) -> dict[str, Any]:
    """Fit and score one product."""
    height, width = product.image_shape
    override = [f"expert_sets.measured=[{options.experts}]", "expert_set=measured"]
    config = load_config(options.config, override).for_images(height, width)
    size = fitted_size((height, width), config.longest_side)
    experts = build_experts(config)
    pipeline = build_pipeline(config, needs_of(experts), device="cpu", check_unused=False)
    seconds: dict[str, list[float]] = {}

    def timed(stage: str, work: Callable[[], T]) -> T:
        started = time.process_time()
        found = work()
        seconds.setdefault(stage, []).append(time.process_time() - started)
        return found

    def perceived(key: str, data: bytes) -> Perception:
        image = timed("decode", lambda: decode_image(data, size))
        perception = Perception([key], image[None], originals={key: data})
        for extractor in pipeline.extractors:
            known, wanted = perception, perception.names | extractor.provides
            perception = timed(f"extractor {extractor.name}", lambda k=known, w=wanted: pipeline.extend(k, w))  # type: ignore[misc]
        return perception

    normal = [perceived(key, data) for key, data in drawn(product, "train", options.train)]
    for name, expert in experts.items():
        timed(f"fit {name}", lambda fitted=expert: fitted.fit(lambda: iter(normal)))  # type: ignore[misc]
    groups = {"good": drawn(product, "good", options.good)}
    groups |= {
        f"{low:g}-{high:g}": drawn(product, "structural", options.structural, (low, high)) for low, high in SHARES
    }
    scores: dict[str, dict[str, list[float]]] = {name: {group: [] for group in groups} for name in experts}
    for group, images in groups.items():
        for key, data in images:
            perception = perceived(key, data)
            for name, expert in experts.items():
                evidence = timed(f"expert {name}", lambda e=expert, p=perception: e.score(p))  # type: ignore[misc]
                scores[name][group].append(float(evidence.scores[0]))
    return {
        "product": product.seed,
        "image_size": [height, width],
        "auroc": {
            name: {group: percent(own["good"], own[group]) for group in groups if group != "good"}
            for name, own in scores.items()
        },
        "seconds": {stage: round(statistics.median(values), 3) for stage, values in seconds.items()},
    }


def drawn(
    product: Product, kind: str, count: int, shares: tuple[float, float] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Keys and PNG files of images: normal ones of a split, or those with a defect."""
    for index in range(count):
        if kind == "structural":
            image = draw_image(product, "test", "structural_anomalies", index, shares).image
        else:
            image = draw_image(product, "train" if kind == "train" else "test", "good", index).image
        yield f"{kind} {shares} {index}", encode_image(image, "png")


def percent(normal: list[float], anomalous: list[float]) -> float | None:
    """Image AUROC in per cent."""
    labels = np.repeat([False, True], [len(normal), len(anomalous)])
    found = image_auroc(labels, np.array([*normal, *anomalous]))
    return None if found is None else round(100 * found, 1)


if __name__ == "__main__":
    main()
