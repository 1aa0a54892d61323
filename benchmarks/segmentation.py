"""How well the part segmenter finds the true parts of synthetic products, from normal images alone.

For each seed the script draws normal images of a product, fits the segmenter on some, and compares the segments of the
others with the parts that were drawn: the IoU of each true part with its best segment, and the share of the segments
that are a true part. Results go into a file product by product, so the same command resumes where it was cut.

    python benchmarks/segmentation.py 100-119 --results segmentation.json --pictures pictures
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from product_tables import spread
from products import parse_seeds, read_results, write_results

LONGEST_SIDE = 640
"""Bound of the images, pixels, as in the profile `embedded`."""
_COLOURS = ((255, 70, 70), (70, 220, 70), (90, 140, 255), (255, 200, 40), (230, 90, 230), (60, 220, 220))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="+", metavar="SEED|FIRST-LAST", help="Seeds of products.")
    parser.add_argument("--results", type=Path, default=Path("segmentation.json"), help="Results, read and written.")
    parser.add_argument("--train", type=int, default=24, help="Number of normal images to fit on.")
    parser.add_argument("--test", type=int, default=8, help="Number of normal images to compare.")
    parser.add_argument(
        "--pictures", type=Path, help="Folder for one image of each product with its segments outlined."
    )
    parser.add_argument("--json", action="store_true", help="Print the results as JSON instead of a table.")
    options = parser.parse_args()
    asked = {"train": options.train, "test": options.test, "longest_side": LONGEST_SIDE}
    results = read_results(options.results, asked)
    for seed in parse_seeds(options.seeds):
        if str(seed) not in results["products"]:
            results["products"][str(seed)] = measure(seed, options.train, options.test, options.pictures)
            results["summary"] = summary(results["products"])
            write_results(options.results, results)
    print(json.dumps(results, indent=1) if options.json else table(results))


def measure(seed: int, train: int, test: int, pictures: Path | None) -> dict[str, Any]:
    """Draw a product, fit the segmenter and compare its segments with the true parts."""
    from uniad_ray.archive.image_size import reduced
    from uniad_ray.archive.scenes.products.product import draw_image, draw_product
    from uniad_ray.perception.base import Perception
    from uniad_ray.perception.segmentation.part_segmenter import PartSegmenter, PartSegmenterConfig

    product = draw_product(seed)
    normal = [reduced(draw_image(product, "train", "good", index).image, LONGEST_SIDE) for index in range(train)]
    segmenter = PartSegmenter("segmenter", PartSegmenterConfig(), "cpu")
    started = time.process_time()
    segmenter.fit(lambda: (Perception([f"{number:032x}"], image[None]) for number, image in enumerate(normal)))
    fit_seconds = time.process_time() - started
    best, right, seconds, counts, parts = [], [], [], [], []
    for index in range(test):
        drawn = draw_image(product, "test", "good", index)
        image = reduced(drawn.image, LONGEST_SIDE)
        started = time.process_time()
        (found,) = segmenter.extract(Perception(["0" * 32], image[None]))["segmenter/segments"]
        seconds.append(time.process_time() - started)
        overlaps = best_overlaps(np.array(drawn.part_masks), found.masks())
        best.append(float(overlaps.max(axis=1, initial=0.0).mean()))
        right += (overlaps.max(axis=0, initial=0.0) >= 0.5).tolist()
        counts.append(len(found))
        parts.append(len(drawn.part_masks))
        if pictures is not None and index == 0:
            save_picture(pictures / f"{seed}.png", image, found.masks())
    return {
        "layout": product.layout_name,
        "best_iou": float(np.mean(best)),
        "worst_image": min(best),
        "parts": float(np.mean(parts)),
        "segments": float(np.mean(counts)),
        "segments_that_are_parts": float(np.mean(right)) if right else None,
        "fit_cpu_seconds": fit_seconds,
        "cpu_seconds_per_image": float(np.median(seconds)),
    }


def best_overlaps(truth: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """IoU of each true part with each segment, at the size of the truth: shape (n, m).

    Args:
        truth: bool, shape (n, H, W).
        masks: bool, shape (m, h, w).
    """
    height, width = truth.shape[1:]
    overlaps = np.zeros((len(truth), len(masks)))
    areas = truth.reshape(len(truth), -1).sum(axis=1)
    for column, mask in enumerate(masks):
        full = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
        shared = truth[:, full].sum(axis=1)
        overlaps[:, column] = shared / (areas + full.sum() - shared)
    return overlaps


def save_picture(path: Path, image: np.ndarray, masks: np.ndarray) -> None:
    """Save an image with its segments outlined."""
    from scipy import ndimage

    height, width = image.shape[:2]
    picture = image.copy()
    for number, mask in enumerate(masks):
        full = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
        picture[full & ~ndimage.binary_erosion(full, iterations=2)] = _COLOURS[number % len(_COLOURS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def summary(products: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean, median and the five worst products."""
    return {
        "products": len(products),
        "best_iou": spread({seed: found["best_iou"] for seed, found in products.items()}),
        "segments_that_are_parts": spread({seed: found["segments_that_are_parts"] for seed, found in products.items()}),
        "cpu_seconds_per_image": spread(
            {seed: found["cpu_seconds_per_image"] for seed, found in products.items()}, worst_is_high=True
        ),
    }


def table(results: dict[str, Any]) -> str:
    """The results as text."""
    lines = [_line("seed", "layout", "best IoU", "worst image", "parts", "segments", "are parts", "CPU s/image")]
    for seed, found in sorted(results["products"].items(), key=lambda entry: int(entry[0])):
        keys = ("best_iou", "worst_image", "parts", "segments", "segments_that_are_parts", "cpu_seconds_per_image")
        lines.append(_line(seed, found["layout"], *(_number(found[key]) for key in keys)))
    best = results["summary"]["best_iou"]
    worst = ", ".join(f"{seed}: {value:.2f}" for seed, value in best["worst"].items())
    mean_of_worst = float(np.mean(list(best["worst"].values())))
    lines += [
        "",
        f"best IoU: mean {best['mean']:.3f}, median {best['median']:.3f}, worst five {mean_of_worst:.3f} ({worst})",
    ]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _line(seed: str, layout: str, *cells: str) -> str:
    return f"{seed:>5}  {layout:<12}" + "".join(f"{cell:>13}" for cell in cells)


if __name__ == "__main__":
    main()
