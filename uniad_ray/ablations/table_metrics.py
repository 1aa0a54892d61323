"""Metrics of an ablation table, from the evidence of fitted variants fused by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uniad_ray.ablations.table import AblationRow
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.model import FitConfig, FusionConfig
from uniad_ray.evaluation.labelled_images import LabelledImages, labelled_images
from uniad_ray.metrics.image import image_auroc
from uniad_ray.metrics.metric import ANOMALY_TYPE
from uniad_ray.runs.reader import RunReader
from uniad_ray.scoring.bundles.bundle import Bundle
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.calibration import FloatArray
from uniad_ray.scoring.calibration_scores import FILE_NAME as CALIBRATION_SCORES
from uniad_ray.scoring.calibration_scores import decode_calibration_scores
from uniad_ray.scoring.fusion import Fusion

TYPES = ("logical", "structural")


class TypeMetrics(StrictModel):
    """A metric by type of anomaly.

    Attributes:
        logical: Metric on logical anomalies, mean over the categories; None if there are none.
        structural: Metric on structural anomalies, likewise.
        mean: Mean of the two; None if one is None.
    """

    logical: float | None
    structural: float | None
    mean: float | None


@dataclass(frozen=True)
class ScoredVariant:
    """Fitted and scored variant.

    Attributes:
        root: Root of its bundles and runs.
        config: Its configuration.
        reader: Its run, with the evidence of all its experts.
    """

    root: Location
    config: FitConfig
    reader: RunReader

    def judged(self) -> list[tuple[LabelledImages, Bundle]]:
        """Returns the labelled images and the bundle of each category."""
        plan = self.reader.manifest.plan
        store = BundleStore(plan.bundle_root)
        return [
            (labelled, store.load(labelled.category, plan.bundles[labelled.category].version))
            for labelled in labelled_images(self.reader)
        ]


def row_metrics(row: AblationRow, config: FitConfig, judged: Iterable[tuple[LabelledImages, Bundle]]) -> TypeMetrics:
    """Computes the image AUROC of one row on one variant.

    Args:
        row: The row.
        config: Configuration of the variant.
        judged: For each category, the labelled images with the evidence of the experts, and the bundle that scored
            them.
    """
    values: dict[str, list[float]] = {name: [] for name in TYPES}
    for labelled, bundle in judged:
        for name, value in _auroc_by_type(labelled, _row_scores(row, config, labelled, bundle)).items():
            values[name].append(value)
    return by_type(values)


def _row_scores(row: AblationRow, config: FitConfig, labelled: LabelledImages, bundle: Bundle) -> FloatArray:
    """Returns the fused scores of a category's labelled images."""
    if row.fusion == "own" and config.chosen_fusion.rule == "maps":
        return labelled.scores
    held_out = decode_calibration_scores(bundle.files[CALIBRATION_SCORES]).raw
    calibrations = bundle.manifest.calibration.experts
    raw = {
        name: values * calibrations[name].deviation + calibrations[name].mean
        for name, values in labelled.experts.items()
    }
    experts = row.experts
    if row.fusion == "own":
        experts, fusion = bundle.manifest.taking_part, bundle.manifest.fusion
    else:
        fusion = Fusion.fit(_rule(row, config), {name: held_out[name] for name in experts})

    def fused(scores: Mapping[str, FloatArray]) -> FloatArray:
        return fusion.fuse_scores({name: scores[name] for name in experts})

    if not row.plugged_in:
        return fused(raw)

    def with_plugged_in(scores: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        return {"detector": fused(scores), **{name: scores[name] for name in row.plugged_in}}

    return Fusion.fit(FusionConfig(rule="excess"), with_plugged_in(held_out)).fuse_scores(with_plugged_in(raw))


def _rule(row: AblationRow, config: FitConfig) -> FusionConfig:
    if row.fusion == "equal":
        return FusionConfig(groups=config.fusion.groups)
    return config.fusion if row.fusion == "profile" else config.fusions["tmuad"]


def _auroc_by_type(labelled: LabelledImages, scores: np.ndarray) -> dict[str, float]:
    found = {}
    for group in labelled.groups():
        if group.group == ANOMALY_TYPE and group.name in TYPES:
            value = image_auroc(labelled.anomalous[group.members], scores[group.members])
            if value is not None:
                found[group.name] = value
    return found


def by_type(values: Mapping[str, Sequence[float]]) -> TypeMetrics:
    """Averages the values of each type over the categories."""
    logical, structural = (float(np.mean(values[name])) if values[name] else None for name in TYPES)
    both = None if logical is None or structural is None else (logical + structural) / 2
    return TypeMetrics(logical=logical, structural=structural, mean=both)


def over_fits(found: Sequence[TypeMetrics], summary: Callable[[list[float]], Any]) -> TypeMetrics:
    """Summarizes each metric over several fits, such as by its mean."""
    values = {
        name: [value for each in found if (value := getattr(each, name)) is not None]
        for name in TypeMetrics.model_fields
    }
    return TypeMetrics(**{name: float(summary(each)) if each else None for name, each in values.items()})
