"""Time and memory of pixel AUROC, AUPRO and sPRO over 2,000 large maps, compared with other implementations.

The script draws maps (smooth noise) with masks and defects (ellipses, some of them brighter), each from its own seed.
It measures each of these in a separate process:

- `stream`: `PixelMetrics` over all maps, one at a time, including the resamples for intervals;
- on a smaller set of the same maps, in several rounds: `PixelMetrics`, a plain implementation that sorts every pixel,
  and, if installed, `torchmetrics` (AUROC) and `anomalib` (AUPRO).

Times exclude drawing. Peaks of memory are those of the whole process, less its memory before the first map. The script
prints one JSON document with the medians, their ratios, and the differences between the values.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from uniad_ray.metrics.pixel import AUPRO_LIMIT, PixelMetrics
from uniad_ray.metrics.saturation import Defect

SPRO_LIMIT = 0.05
OTHERS = ("torchmetrics", "anomalib")
TARGET_MIB = 3072

Drawn = tuple[np.ndarray, np.ndarray, list[Defect]]


def main() -> None:
    """Run the benchmark, or one of its child processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=2000, help="Number of streamed maps.")
    parser.add_argument("--mask-side", type=int, default=1024, help="Side of the masks, in pixels.")
    parser.add_argument("--map-side", type=int, default=1024, help="Side of the maps; they are resized to the masks.")
    parser.add_argument("--compared", type=int, default=20, help="Number of maps passed to every implementation.")
    parser.add_argument("--repeats", type=int, default=3, help="Number of rounds of the comparison.")
    parser.add_argument("--child", choices=sorted(MEASURED), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(MEASURED[options.child](options)))
    else:
        print(json.dumps(measure(options), indent=1))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the child processes and compare them."""
    streamed = child("stream", options)
    note(f"stream: {streamed}")
    kinds = ["ours", "sort_everything", *filter(importlib.util.find_spec, OTHERS)]
    rounds: list[dict[str, Any]] = []
    for index in range(options.repeats):
        rounds.append({kind: child(kind, options) for kind in kinds})
        note(f"round {index + 1}: seconds { {kind: round(entry['seconds'], 2) for kind, entry in rounds[-1].items()} }")
    ours = rounds[0]["ours"]["values"]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "mask_side": options.mask_side,
        "map_side": options.map_side,
        "stream": {"maps": options.maps, **streamed, "target_peak_mib_below": TARGET_MIB},
        "compared_maps": options.compared,
        "compared": {
            kind: {
                "median_seconds": statistics.median(entry[kind]["seconds"] for entry in rounds),
                "median_peak_mib": statistics.median(entry[kind]["peak_mib"] for entry in rounds),
                "seconds_to_ours": ratios(rounds, kind, "seconds"),
                "peak_mib_to_ours": ratios(rounds, kind, "peak_mib"),
                "values": rounds[0][kind]["values"],
                "difference_to_ours": {
                    name: abs(value - ours[name]) for name, value in rounds[0][kind]["values"].items()
                },
            }
            for kind in kinds
        },
    }


def ratios(rounds: list[dict[str, Any]], kind: str, metric: str) -> dict[str, Any]:
    """Ratio to `PixelMetrics` in each round, and its median."""
    every = [entry[kind][metric] / entry["ours"][metric] for entry in rounds]
    return {"median": statistics.median(every), "all": every}


def draw(options: argparse.Namespace, index: int) -> Drawn:
    """One map with its mask and defects; every second image has one to four defects."""
    rng = np.random.default_rng(index)
    side = options.mask_side
    rows, columns = np.ogrid[:side, :side]
    coarse = np.abs(ndimage.gaussian_filter(rng.normal(size=(64, 64)), 2)) * 6
    defects = []
    for _ in range(rng.integers(1, 5) if index % 2 else 0):
        (top, left), (height, width) = rng.uniform(0.1, 0.9, 2) * side, rng.uniform(0.005, 0.1, 2) * side + 1
        places = ((rows - top) / height) ** 2 + ((columns - left) / width) ** 2 <= 1
        defects.append(Defect(places, max(1, int(np.count_nonzero(places) * rng.choice([0.5, 1.0])))))
        brighter = Image.fromarray(places.astype(np.float32)).resize((64, 64), Image.Resampling.BOX)
        coarse += np.asarray(brighter) * rng.uniform(0, 4)
    mask = np.zeros((side, side), dtype=bool)
    for defect in defects:
        mask |= defect.mask
    size = (options.map_side, options.map_side)
    drawn = Image.fromarray(coarse.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(drawn).astype(np.float16), mask, defects


def stream(options: argparse.Namespace) -> dict[str, Any]:
    """Pass all maps through the accumulator."""
    before = peak_mib()
    metrics, seconds = PixelMetrics(), []
    for index in range(options.maps):
        drawn = draw(options, index)
        start = time.perf_counter()
        metrics.update(*drawn)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    values = metric_values(metrics)
    computed = time.perf_counter()
    metrics.resampled()
    return {
        "values": values,
        "median_seconds_a_map": statistics.median(seconds),
        "seconds_of_the_metrics": computed - start,
        "seconds_of_the_resamples": time.perf_counter() - computed,
        "peak_mib": peak_mib() - before,
        "peak_mib_of_the_process": peak_mib(),
    }


def metric_values(metrics: PixelMetrics) -> dict[str, float | None]:
    """The compared metrics."""
    return {"auroc": metrics.auroc(), "aupro": metrics.aupro(), "spro": metrics.spro(SPRO_LIMIT)}


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Run `PixelMetrics` on the compared maps."""
    before = peak_mib()
    metrics, seconds = PixelMetrics(), 0.0
    for drawn in compared(options):
        start = time.perf_counter()
        metrics.update(*drawn)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    values = metric_values(metrics)
    return result(values, seconds + time.perf_counter() - start, before)


def sort_everything(options: argparse.Namespace) -> dict[str, Any]:
    """Plain reference: keep every pixel with its contribution to each curve, and sort them all."""
    before = peak_mib()
    parts: list[tuple[np.ndarray, ...]] = []
    seconds = 0.0
    for anomaly_map, mask, defects in compared(options):
        start = time.perf_counter()
        parts.append(contributions(resized(anomaly_map, mask.shape), mask, defects))
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    scores, normal, *gains = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(-scores)
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    false_positive_rate = curve(normal, order, last_of_ties)
    values = {
        name: area(false_positive_rate, curve(gain, order, last_of_ties), limit)
        for (name, limit), gain in zip(
            {"auroc": 1.0, "aupro": AUPRO_LIMIT, "spro": SPRO_LIMIT}.items(), gains, strict=True
        )
    }
    return result(values, seconds + time.perf_counter() - start, before)


def contributions(scores: np.ndarray, mask: np.ndarray, defects: list[Defect]) -> tuple[np.ndarray, ...]:
    """Scores, and each pixel's contribution to false positives, true positives, overlap and saturated overlap."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    overlap = np.where(mask, 1 / np.bincount(labels.ravel())[labels], 0)
    saturated = np.zeros(mask.shape)
    for defect in defects:
        places = np.flatnonzero(defect.mask)
        highest = places[np.argsort(-scores.ravel()[places])][: defect.saturation_area]
        saturated.ravel()[highest] += 1 / defect.saturation_area
    return scores.ravel(), ~mask.ravel(), mask.ravel(), overlap.ravel(), saturated.ravel()


def curve(gain: np.ndarray, order: np.ndarray, last_of_ties: np.ndarray) -> np.ndarray:
    """Cumulative fraction in descending order of score, starting at 0, with one point per distinct score."""
    summed = np.cumsum(gain[order], dtype=np.float64)[last_of_ties]
    return np.append(0, summed / summed[-1])


def area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Trapezoidal area up to the limit, divided by the limit; the curve is interpolated there."""
    inside = x < limit
    ends_x, ends_y = np.append(x[inside], limit), np.append(y[inside], np.interp(limit, x, y))
    return float(np.trapezoid(ends_y, ends_x) / limit)


def with_torchmetrics(options: argparse.Namespace) -> dict[str, Any]:
    """AUROC of all pixels by torchmetrics."""
    import torch
    from torchmetrics.classification import BinaryAUROC

    before = peak_mib()
    metric, seconds = BinaryAUROC(thresholds=None, validate_args=False), 0.0
    for anomaly_map, mask, _ in compared(options):
        start = time.perf_counter()
        metric.update(torch.from_numpy(resized(anomaly_map, mask.shape)), torch.from_numpy(mask.astype(np.int64)))
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    values = {"auroc": float(metric.compute())}
    return result(values, seconds + time.perf_counter() - start, before)


def with_anomalib(options: argparse.Namespace) -> dict[str, Any]:
    """AUPRO of all pixels by anomalib."""
    import torch
    from anomalib.metrics.aupro import _AUPRO

    before = peak_mib()
    metric, seconds = _AUPRO(fpr_limit=AUPRO_LIMIT), 0.0
    for anomaly_map, mask, _ in compared(options):
        start = time.perf_counter()
        metric.update(torch.from_numpy(resized(anomaly_map, mask.shape))[None], torch.from_numpy(mask)[None].int())
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    values = {"aupro": float(metric.compute())}
    return result(values, seconds + time.perf_counter() - start, before)


def compared(options: argparse.Namespace) -> Iterator[Drawn]:
    """The maps passed to every implementation."""
    return (draw(options, index) for index in range(options.compared))


def resized(anomaly_map: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The map as `PixelMetrics` receives it, float32."""
    values = anomaly_map.astype(np.float32)
    if values.shape != shape:
        values = np.asarray(Image.fromarray(values).resize(shape[::-1], Image.Resampling.BILINEAR))
    return values.astype(np.float16).astype(np.float32)


def result(values: dict[str, Any], seconds: float, before: float) -> dict[str, Any]:
    """Result of one child process of the comparison."""
    return {"values": values, "seconds": seconds, "peak_mib": peak_mib() - before}


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a child process, which separates the peaks of memory."""
    given = {name: value for name, value in vars(options).items() if name != "child"}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    command = [sys.executable, __file__, f"--child={kind}", *arguments]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    measured: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return measured


def note(text: str) -> None:
    """Log progress to stderr."""
    print(text, file=sys.stderr, flush=True)


MEASURED = {
    "stream": stream,
    "ours": ours,
    "sort_everything": sort_everything,
    "torchmetrics": with_torchmetrics,
    "anomalib": with_anomalib,
}


if __name__ == "__main__":
    main()
