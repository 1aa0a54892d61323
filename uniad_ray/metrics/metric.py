"""One metric of an evaluation; its fields are the columns of schema `metric`."""

from __future__ import annotations

from uniad_ray.config.base import StrictModel

ALL = "all"
ANOMALY_TYPE = "anomaly_type"
MEAN_OF_TYPES = "mean"
"""Name of the mean over anomaly types, the usual summary on MVTec LOCO."""
MEAN_OF_CATEGORIES = "*"


class Metric(StrictModel):
    """One metric of one category, for one group of anomalous images against the normal images.

    Attributes:
        category: Category, or `*` for the mean over categories.
        group: `all`, `anomaly_type` or `defect_kind`.
        name: `all`, or the anomaly type, `mean` for the mean over types, or the defect kind.
        expert: Expert that was evaluated; None for the fused score.
        metric: Name of the metric, such as `image_auroc` or `pixel_spro`.
        limit: False-positive rate at which, or up to which, the metric is computed; None if it has none.
        value: Value of the metric; None if undefined.
        low: Lower end of the confidence interval; None without one.
        high: Upper end of the confidence interval; None without one.
        normal_images: Number of normal images behind the value.
        anomalous_images: Number of anomalous images behind the value.
        note: Why a value is missing, or what it omits.
    """

    category: str
    group: str
    name: str
    expert: str | None = None
    metric: str
    limit: float | None = None
    value: float | None
    low: float | None = None
    high: float | None = None
    normal_images: int
    anomalous_images: int
    note: str | None = None
