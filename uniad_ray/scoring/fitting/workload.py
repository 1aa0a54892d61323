"""Estimate how much work a fit is, for its progress line."""

from __future__ import annotations

from uniad_ray.config.model import FitConfig
from uniad_ray.scoring.fitting.synthetic.kinds import SYNTHETIC_ANOMALIES


def images_of_fit(normal: int, config: FitConfig) -> int:
    """Estimate the number of images that a fit extracts, judges and scores as synthetic anomalies, for its progress.

    Args:
        normal: Number of normal images in the archive.
        config: The fit configuration.
    """
    taken = min(normal, config.normal_images.most or normal)
    if not taken:
        return 0
    extracted = taken * (1 + config.normal_images.copies_of_each(taken))
    judged = taken if taken < config.calibration.holdout_from else round(taken * config.calibration.holdout)
    selection = config.chosen_fusion.selection
    return extracted + judged + (len(SYNTHETIC_ANOMALIES) * min(selection.images, judged) if selection else 0)
