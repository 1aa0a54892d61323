"""The difference of one metric between two runs."""

from __future__ import annotations

from uniad_ray.config.base import StrictModel


class Difference(StrictModel):
    """One metric of a run and of the baseline, over the images scored in both.

    Attributes:
        run: Root of the run.
        category: Category, or `*` for the mean over categories.
        group: `all`, `anomaly_type` or `defect_kind`.
        name: `all`, or the anomaly type or defect kind.
        metric: As in schema `metric`.
        limit: As in schema `metric`.
        baseline: Metric of the baseline.
        value: Metric of the run.
        difference: `value - baseline`; None if either is undefined.
        low: Lower end of the paired bootstrap interval of the difference.
        high: Upper end.
        normal_images: Normal images behind both.
        anomalous_images: Anomalous images behind both.
    """

    run: str
    category: str
    group: str
    name: str
    metric: str
    limit: float | None
    baseline: float | None
    value: float | None
    difference: float | None
    low: float | None
    high: float | None
    normal_images: int
    anomalous_images: int

    @property
    def is_significant(self) -> bool:
        """Whether the interval of the difference excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)
