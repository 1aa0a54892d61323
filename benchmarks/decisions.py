"""Realised false alarms and recall at the own threshold of fitted products (`uniad-ray scenes --product SEED`).

For each seed the script draws a product once into a cache, then ingests, fits and scores it with the verbs of the
package. It compares the decisions at the bundle's threshold with the labels: `realised_rate` is the share of fresh
normal images called anomalous, `recall` the share of anomalous images. `best_recall` is that of the threshold that the
test images themselves would give for the same realised rate, so `lost_recall` is what the choice of the threshold
costs. `drift` is a Kolmogorov-Smirnov test of the held-out against the fresh normal scores; a small p-value means that
calibration and production differ. All but counts, scores and p-values are in per cent. The result of a product goes
into the results file as soon as it is there, so the same command resumes, and several processes share the products. The
script prints the results as JSON.

    python benchmarks/decisions.py 100-119 --results decisions.json --cache products-cache
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from products import asked_of, draw, measure_missing, product_arguments
from scipy import stats

from uniad_ray.errors import UniadRayError


def main() -> None:
    """Run the benchmark."""
    parser = product_arguments(__doc__, results="decisions.json", train=100, good=100)
    parser.add_argument("--rate", type=float, default=0.01, help="False-positive rate to ask for.")
    print(json.dumps(run(parser.parse_args()), indent=1))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every seed that the results file lacks; failed products are tried again."""
    return measure_missing(options, asked_of(options, rate=options.rate), measure, summary)


def measure(seed: int, asked: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Draw, ingest, fit and score a product, and compare its decisions with the labels."""
    import uniad_ray as ur
    from uniad_ray.evaluation.labelled_images import labelled_images
    from uniad_ray.runs.reader import RunReader
    from uniad_ray.scoring.bundles.store import BundleStore

    category = f"product-{seed}"
    source = draw(seed, asked["images"], cache)
    work = cache / "unfinished" / f"decisions-{seed}"
    shutil.rmtree(work, ignore_errors=True)
    archive, bundles, scored = (str(work / name) for name in ("archive", "bundles", "run"))
    overrides = [f"expert_set={asked['expert_set']}", f"calibration.false_positive_rate={asked['rate']}"]
    try:
        ur.ingest(str(source), archive, chunk_images=8)
        started = time.perf_counter()
        fitted = ur.fit(archive, bundles=bundles, overrides=[*overrides, *asked["overrides"]], accept_unusual=True)
        if fitted.failed:
            return {"failed": fitted.failed[category]}
        fit_seconds = time.perf_counter() - started
        ur.score(archive, bundles=bundles, out=scored, splits=["test"], maps="none")
        (images,) = labelled_images(RunReader(scored))
        bundle = BundleStore(bundles).load(category)
        found = decisions(
            bundle.held_out_scores.fused,
            images.scores[images.normal],
            images.scores[images.anomalous],
            images.threshold,
        )
        return found | {
            "method": bundle.manifest.calibration.threshold.method,
            "expected_rate": [100 * end for end in bundle.manifest.calibration.threshold.rate_interval or ()],
            "fit_seconds": fit_seconds,
        }
    except UniadRayError as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def decisions(held_out: np.ndarray, normal: np.ndarray, anomalous: np.ndarray, threshold: float) -> dict[str, Any]:
    """Compare decisions with labels.

    Args:
        held_out: Scores of the held-out normal images of the fit.
        normal: Scores of fresh normal images.
        anomalous: Scores of anomalous images.
        threshold: Threshold of the bundle.
    """
    false_alarms = int((normal > threshold).sum())
    # The lowest threshold with as many false alarms.
    best = float(np.sort(normal)[::-1][false_alarms]) if false_alarms < len(normal) else -np.inf
    recall, best_recall = (100 * float((anomalous > limit).mean()) for limit in (threshold, best))
    test = stats.ks_2samp(held_out, normal)
    return {
        "threshold": threshold,
        "held_out_images": len(held_out),
        "false_alarms": false_alarms,
        "fresh_images": len(normal),
        "realised_rate": 100 * false_alarms / len(normal),
        "recall": recall,
        "best_recall": best_recall,
        "lost_recall": best_recall - recall,
        "drift": {"distance": float(test.statistic), "p_value": float(test.pvalue)},
    }


def summary(products: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means and worst values over the products that did not fail."""
    done = [found for found in products.values() if "failed" not in found]
    if not done:
        return {"products": 0, "failed": len(products)}
    rates, recalls, lost = (
        np.array([found[key] for found in done]) for key in ("realised_rate", "recall", "lost_recall")
    )
    return {
        "products": len(done),
        "failed": len(products) - len(done),
        "realised_rate": {"mean": float(rates.mean()), "highest": float(rates.max())},
        "recall": {"mean": float(recalls.mean()), "lowest": float(recalls.min())},
        "lost_recall": {"mean": float(lost.mean()), "highest": float(lost.max())},
        "drifting": sum(found["drift"]["p_value"] < 0.05 for found in done),
    }


if __name__ == "__main__":
    main()
