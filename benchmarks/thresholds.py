"""Realised false-positive rate and recall of threshold rules on simulated scores, for 20 to 500 normal images.

For each distribution and number of images, the script draws samples of normal scores and chooses a threshold by each
rule: `conformal` is the order statistic, with the tail of a normal distribution if the rate is finer than one image;
`gaussian` is that tail alone; `chosen` is what a fit uses, `choose_threshold`. The distributions are known, so rates
are exact. Anomalies have the distribution of normal scores, moved up by `--shift` standard deviations; `best_recall`
belongs to the exact quantile. `low_recall` is the recall of the worst tenth of the samples, `high_rate` the rate of the
worst tenth. `covered` is the fraction of samples whose 90 % interval contains the realised rate. The script prints one
JSON document.

    python benchmarks/thresholds.py --samples 400
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy import optimize, stats

from uniad_ray.scoring.calibration import Threshold, choose_threshold, conformal_threshold

COUNTS = (20, 40, 60, 80, 120, 250, 500)


@dataclass(frozen=True)
class Mixture:
    """A fraction of the images has other scores than the rest.

    Attributes:
        share: That fraction.
        distance: Difference of the means, in standard deviations.
    """

    share: float
    distance: float

    def rvs(self, size: int, random_state: np.random.Generator) -> np.ndarray:
        """Draw scores of shape (size,)."""
        moved = random_state.random(size) < self.share
        return random_state.normal(size=size) + self.distance * moved

    def sf(self, value: Any) -> Any:
        """Return the fraction of scores above a value."""
        return (1 - self.share) * stats.norm.sf(value) + self.share * stats.norm.sf(value - self.distance)


DISTRIBUTIONS: dict[str, Any] = {
    "normal": stats.norm(),
    "student_4": stats.t(4),
    "student_8": stats.t(8),
    "lognormal_0.5": stats.lognorm(0.5),
    "gamma_2": stats.gamma(2),
    "gamma_8": stats.gamma(8),
    "exponential": stats.expon(),
    "beta_2_5": stats.beta(2, 5),
    "uniform": stats.uniform(),
    "mixture_2_percent_far": Mixture(0.02, 5.0),
    "mixture_10_percent": Mixture(0.1, 2.0),
    "mixture_30_percent": Mixture(0.3, 3.0),
}


def gaussian(scores: np.ndarray, rate: float) -> Threshold:
    """Quantile of the normal distribution with the mean and deviation of the scores."""
    value = NormalDist(float(scores.mean()), float(scores.std(ddof=1))).inv_cdf(1 - rate)
    return Threshold(value=value, false_positive_rate=rate, method="gaussian_tail", images=len(scores))


RULES: dict[str, Callable[[np.ndarray, float], Threshold]] = {
    "conformal": conformal_threshold,
    "gaussian": gaussian,
    "chosen": choose_threshold,
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=400, help="Samples of each distribution and number of images.")
    parser.add_argument("--rate", type=float, default=0.01, help="False-positive rate to ask for.")
    parser.add_argument("--shift", type=float, default=3.5, help="Shift of the anomalies, in standard deviations.")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="Numbers of normal images.")
    options = parser.parse_args()
    print(json.dumps(compare(options.samples, options.rate, options.shift, options.counts), indent=1))


def compare(samples: int, rate: float, shift: float, counts: tuple[int, ...]) -> dict[str, Any]:
    """Compare the rules; rates and recalls are fractions."""
    rows = []
    for count in counts:
        for name, distribution in DISTRIBUTIONS.items():
            generator = np.random.default_rng([count, list(DISTRIBUTIONS).index(name)])
            # A shift in deviations of this sample size does not depend on the counts.
            move = shift * float(distribution.rvs(100_000, random_state=np.random.default_rng(0)).std())
            drawn = [distribution.rvs(count, random_state=generator) for _ in range(samples)]
            exact = optimize.brentq(lambda value, of=distribution: of.sf(value) - rate, -20.0, 100.0)
            for rule, choose in RULES.items():
                chosen = [choose(sample, rate) for sample in drawn]
                rates = distribution.sf(np.array([entry.value for entry in chosen]))
                recalls = distribution.sf(np.array([entry.value for entry in chosen]) - move)
                within = [
                    entry.rate_interval[0] <= found <= entry.rate_interval[1]
                    for entry, found in zip(chosen, rates, strict=True)
                    if entry.rate_interval is not None
                ]
                rows.append(
                    {
                        "images": count,
                        "distribution": name,
                        "rule": rule,
                        "rate": float(rates.mean()),
                        "high_rate": float(np.quantile(rates, 0.9)),
                        "recall": float(recalls.mean()),
                        "low_recall": float(np.quantile(recalls, 0.1)),
                        "best_recall": float(distribution.sf(exact - move)),
                        "covered": float(np.mean(within)) if within else None,
                    }
                )
    return {"asked": rate, "shift": shift, "samples": samples, "means": _means(rows), "rows": rows}


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the distributions, by number of images and rule; `highest_rate` is that of the worst distribution."""
    found = []
    for count, rule in dict.fromkeys((row["images"], row["rule"]) for row in rows):
        own = [row for row in rows if (row["images"], row["rule"]) == (count, rule)]
        means = {
            key: float(np.mean([row[key] for row in own]))
            for key in ("rate", "high_rate", "recall", "low_recall", "best_recall")
        }
        covered = [row["covered"] for row in own if row["covered"] is not None]
        found.append(
            {"images": count, "rule": rule, **means, "highest_rate": max(row["rate"] for row in own)}
            | {"covered": float(np.mean(covered)) if covered else None}
        )
    return found


if __name__ == "__main__":
    main()
