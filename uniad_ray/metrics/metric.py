"""One figure of an evaluation; the fields are the columns of schema `metric`."""

from __future__ import annotations

from uniad_ray.config.base import StrictModel

ALL = "all"
ANOMALY_TYPE = "anomaly_type"
MEAN_OF_TYPES = "mean"
"""Name of the mean over anomaly types, by which results on MVTec LOCO are summed up."""
MEAN_OF_CATEGORIES = "*"


class Metric(StrictModel):
    """One figure of one category, for one group of anomalous images set against the normal ones.

    Attributes:
        category: Category, or `*` for the mean over categories.
        group: `all`, `anomaly_type` or `defect_kind`.
        name: `all`, or the anomaly type, `mean` for their mean, or the defect kind.
        expert: Expert whose score is judged; None for the fused score.
        metric: Name of the figure, such as `image_auroc` or `pixel_spro`.
        limit: False-positive rate that the figure is taken at or integrated up to; None where it has none.
        value: The figure; None where it is undefined.
        low: Lower end of the confidence interval; None where there is none.
        high: Upper end of the confidence interval.
        normal_images: Normal images behind the value.
        anomalous_images: Anomalous images behind the value.
        note: Why a value is missing, or what it leaves out.
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
