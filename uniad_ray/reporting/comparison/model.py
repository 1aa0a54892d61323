"""The content of a comparison of runs on one archive; the first run is the baseline."""

from __future__ import annotations

from uniad_ray.config.base import StrictModel
from uniad_ray.metrics.difference import Difference


class ComparedRun(StrictModel):
    """One run of a comparison.

    Attributes:
        run: Root of the run.
        run_id: Digest of its plan.
        code_version: Version of uniad_ray that scored.
        bundles: Version of the bundle, by category.
        images: Number of score rows.
        called_anomalous: Images with the decision `anomalous`.
        errors: Images that could not be scored.
    """

    run: str
    run_id: str
    code_version: str
    bundles: dict[str, str]
    images: int
    called_anomalous: int
    errors: int


class DecisionChanges(StrictModel):
    """Counts of the decisions of a run that differ from the baseline.

    Attributes:
        run: Root of the run.
        images: Images scored in both runs, labelled or not.
        changed: Images with a changed decision.
        to_anomalous: Changed images that are normal in the baseline and anomalous in the run.
        to_normal: Changed images that are anomalous in the baseline and normal in the run.
        labelled: Changed images with a label.
        mended: Labelled changed images that are wrong in the baseline and right in the run.
        broken: Labelled changed images that are right in the baseline and wrong in the run.
    """

    run: str
    images: int
    changed: int
    to_anomalous: int
    to_normal: int
    labelled: int
    mended: int
    broken: int


class ChangedImage(StrictModel):
    """One image with a changed decision.

    Attributes:
        run: Root of the run.
        row_key: Key of the image row.
        source_uri: Path or URI that it was ingested from.
        category: Its category.
        split: Its split.
        label: `normal`, `anomalous` or None.
        defect_kind: Kind of its defect.
        baseline_score: Fused score in the baseline.
        baseline_threshold: Threshold in the baseline.
        score: Fused score in the run.
        threshold: Threshold in the run.
        decision: Decision of the run; the baseline has the opposite one.
    """

    run: str
    row_key: str
    source_uri: str
    category: str
    split: str
    label: str | None
    defect_kind: str | None
    baseline_score: float
    baseline_threshold: float
    score: float
    threshold: float
    decision: str

    @property
    def is_mended(self) -> bool | None:
        """Whether the run is right and the baseline is wrong; None without a label."""
        return None if self.label is None else self.label == self.decision


class ComparisonReport(StrictModel):
    """A comparison of runs.

    Attributes:
        archive: Root of the archive.
        archive_digest: Digest of its content.
        runs: The runs, the baseline first.
        differences: Metrics of the other runs against the baseline; empty without labels.
        changes: Decisions of the other runs against the baseline.
        changed_images: Images with a changed decision, up to a limit; the score that moved furthest relative to the
            threshold comes first.
        notes: Remarks on the metrics, such as what was left out.
        confidence: Confidence of the intervals, above 0 and below 1.
        resamples: Number of bootstrap resamples; 0 if there are no intervals.
        path: The HTML file; None if none was written.
    """

    archive: str
    archive_digest: str
    runs: tuple[ComparedRun, ...]
    differences: tuple[Difference, ...]
    changes: tuple[DecisionChanges, ...]
    changed_images: tuple[ChangedImage, ...]
    notes: tuple[str, ...]
    confidence: float
    resamples: int
    path: str | None = None
