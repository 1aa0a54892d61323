"""What a comparison says of several runs on one archive; the first run is the baseline."""

from __future__ import annotations

from uniad_ray.config.base import StrictModel
from uniad_ray.metrics.difference import Difference


class ComparedRun(StrictModel):
    """One of the runs.

    Attributes:
        run: Root of the run.
        run_id: Digest of its plan.
        code_version: Version of uniad_ray that scored.
        bundles: Version of the bundle by category.
        images: Score rows.
        called_anomalous: Images with decision anomalous.
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
    """How a run's decisions differ from the baseline's.

    Attributes:
        run: Root of the run.
        images: Images that both have scored, labelled or not.
        changed: Those whose decision differs.
        to_anomalous: Normal in the baseline, anomalous in the run.
        to_normal: The other way round.
        labelled: Changed images that have a label.
        mended: Of these, wrong in the baseline and right in the run.
        broken: Right in the baseline and wrong in the run.
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
    """One image whose decision differs.

    Attributes:
        run: Root of the run.
        row_key: Key of the image row.
        source_uri: Where it was ingested from.
        category: Its category.
        split: Its split.
        label: `normal`, `anomalous` or None.
        defect_kind: Its defect.
        baseline_score: Fused score in the baseline.
        baseline_threshold: Threshold in the baseline.
        score: Fused score in the run.
        threshold: Threshold in the run.
        decision: Decision of the run; the baseline's is the other one.
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
        """Whether the run is right and the baseline wrong; None without a label."""
        return None if self.label is None else self.label == self.decision


class ComparisonReport(StrictModel):
    """All that a comparison says.

    Attributes:
        archive: Root of the archive.
        archive_digest: Digest of its content.
        runs: The runs, the baseline first.
        differences: Metrics of the others against the baseline; empty without labels.
        changes: Decisions of the others against the baseline.
        changed_images: The first of the images whose decision differs, the furthest from the thresholds first.
        notes: What a reader must know of the metrics.
        confidence: Confidence of the intervals.
        resamples: Bootstrap samples behind them.
        path: The HTML file, where one was asked for.
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
