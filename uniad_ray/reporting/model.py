"""What a report says of a run, without its pictures: the JSON document, and what the other formats are drawn from.

Details, gallery, errors and the points of a curve are bounded whatever the size of the run; totals say of how many.
"""

from __future__ import annotations

from typing import Any, Literal

from uniad_ray.config.base import StrictModel
from uniad_ray.metrics.metric import Metric

FORMAT_VERSION = 1

Outcome = Literal["found", "missed", "false_alarm", "passed"]
SectionKind = Literal["highest", "borderline", "false_alarms", "misses"]


class RunFacts(StrictModel):
    """What was run.

    Attributes:
        location: Root of the run.
        run_id: Digest of its plan.
        code_version: Version of uniad_ray that scored.
        archive: Root of the archive.
        archive_digest: Digest of its content.
        bundle_root: Root of the bundles.
        options: Options of the run.
        images: Score rows.
        errors: Images that could not be scored.
        called_anomalous: Images with decision anomalous.
        random_weights: Whether a network had random weights, so that no score means anything.
    """

    location: str
    run_id: str
    code_version: str
    archive: str
    archive_digest: str
    bundle_root: str
    options: dict[str, Any]
    images: int
    errors: int
    called_anomalous: int
    random_weights: bool


class Network(StrictModel):
    """One network behind a bundle, and where its weights come from."""

    name: str
    uri: str
    sha256: str
    trained: bool


class ExpertChoice(StrictModel):
    """Whether an expert takes part in the fused score of a category, as chosen without labels when it was fitted.

    Attributes:
        expert: Name.
        weight: Weight in the fusion; 0 where it takes no part.
        reason: Why.
        edit_auroc: By family of edits, how well it tells edited from normal images by itself, between 0 and 1.
    """

    expert: str
    weight: float
    reason: str
    synthetic_auroc: dict[str, float]


class Lineage(StrictModel):
    """Where a bundle comes from.

    Attributes:
        created_at: UTC, ISO 8601.
        code_version: Version of uniad_ray that fitted it.
        profile: Name of its profile.
        fusion_rule: How the experts become one score: `sum`, `excess` or `maps`.
        expert_weights: Weight in the fusion by expert.
        choices: Which experts take part and why, where they were chosen for the category.
        archive: Root of the archive it was fitted on.
        archive_digest: Digest of that archive's content.
        fit_images: Normal images in the fit.
        held_out_images: Held-out scores behind calibration and threshold.
        calibration: `holdout`, `cross_fit`, `validation_split` or `altered_copies`.
        false_positive_rate: Share of normal images that the bundle's own threshold may call anomalous.
        threshold_method: `empirical` or `gaussian_tail`; of the bundle's own threshold.
        networks: Networks it extracts with.
    """

    created_at: str
    code_version: str
    profile: str
    fusion_rule: str
    expert_weights: dict[str, float]
    choices: tuple[ExpertChoice, ...]
    archive: str
    archive_digest: str
    fit_images: int
    held_out_images: int
    calibration: str
    false_positive_rate: float
    threshold_method: str
    networks: tuple[Network, ...]


class CategoryResult(StrictModel):
    """What the run found in one category.

    Attributes:
        category: Category.
        images: Score rows, of all splits.
        errors: Images that could not be scored.
        called_anomalous: Images with decision anomalous.
        split: Split that is judged and shown in details; None where all are.
        threshold: A score above it is anomalous; None where no image was scored.
        normal_images: Scored images with label normal, in the judged split.
        anomalous_images: Scored images with label anomalous, in the judged split.
        false_alarms: Normal images called anomalous.
        misses: Anomalous images called normal.
        bundle_version: Bundle that scored it.
        bundle_digest: Digest of that bundle.
        lineage: Where the bundle comes from; None where it cannot be read any more.
        lineage_problem: Why it cannot be read.
    """

    category: str
    images: int
    errors: int
    called_anomalous: int
    split: str | None
    threshold: float | None
    normal_images: int
    anomalous_images: int
    false_alarms: int
    misses: int
    bundle_version: str
    bundle_digest: str
    lineage: Lineage | None
    lineage_problem: str | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether any scored image has a label."""
        return self.normal_images + self.anomalous_images > 0


class Histogram(StrictModel):
    """Counts of scores; the threshold is one of the edges, and a bin holds its upper edge.

    Attributes:
        edges: Edges of the bins, rising, one more than there are bins.
        counts: Images a bin, by group: `normal`, `anomalous`, `logical`, `structural` or `unlabelled`.
        open_ended: Whether the last bin also holds all scores above it.
    """

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]
    open_ended: bool


class OperatingPoint(StrictModel):
    """Where the run's threshold lies on the curves; precision is None where nothing is called anomalous."""

    false_positive_rate: float
    recall: float
    precision: float | None


class Curves(StrictModel):
    """ROC and precision-recall curve of the fused score, thinned to a bounded number of points.

    Attributes:
        roc: Points of false-positive rate and recall, from (0, 0) to (1, 1).
        precision_recall: Points of recall and precision, by rising recall.
        operating_point: The run's threshold.
    """

    roc: tuple[tuple[float, float], ...]
    precision_recall: tuple[tuple[float, float], ...]
    operating_point: OperatingPoint


class ExpertContribution(StrictModel):
    """What one expert says, and with which weight it counts in the fused score.

    Attributes:
        expert: Name.
        weight: Weight in the fusion; None where the bundle cannot be read any more.
        image_auroc: AUROC of its score alone; None without both labels.
        mean_calibrated: Mean calibrated score by `normal`, `anomalous` and `unlabelled` images.
    """

    expert: str
    weight: float | None
    image_auroc: Metric | None
    mean_calibrated: dict[str, float]


class MapScale(StrictModel):
    """Map values that the colours of a category's heat maps stand for.

    Attributes:
        start: Colours begin half way between this and the threshold.
        threshold: The category's threshold for scores.
        top: The darkest colour, and all above.
    """

    start: float
    threshold: float
    top: float


class GalleryImage(StrictModel):
    """One image of the gallery.

    Attributes:
        row_key: Key of the image row.
        source_uri: Where it was ingested from.
        split: Its split.
        label: `normal`, `anomalous` or None.
        defect_kind: Its defect.
        anomaly_type: `logical`, `structural` or None.
        score: Fused score.
        decision: `normal` or `anomalous`.
        outcome: Decision against label; None without label.
        reasons: Sentences of the experts.
        calibrated: Calibrated score by expert.
    """

    row_key: str
    source_uri: str
    split: str
    label: str | None
    defect_kind: str | None
    anomaly_type: str | None
    score: float
    decision: str
    outcome: Outcome | None
    reasons: tuple[str, ...]
    calibrated: dict[str, float]


class GallerySection(StrictModel):
    """Images chosen for one reason; `total` is how many there were to choose from."""

    kind: SectionKind
    total: int
    images: tuple[GalleryImage, ...]


class CategoryDetail(StrictModel):
    """Charts and gallery of one category.

    Attributes:
        category: Category.
        histogram: Scores of its judged images.
        curves: None without normal and anomalous images.
        experts: Its experts, in the order of the bundle.
        map_scale: Colours of its heat maps.
        gallery: Sections that hold images.
    """

    category: str
    histogram: Histogram
    curves: Curves | None
    experts: tuple[ExpertContribution, ...]
    map_scale: MapScale
    gallery: tuple[GallerySection, ...]


class ImageErrorRow(StrictModel):
    """One image that could not be scored."""

    category: str
    source_uri: str
    kind: str
    text: str


class TimingRow(StrictModel):
    """What one attempt at the run took.

    Attributes:
        started_at: UTC, ISO 8601.
        images: Images that it scored.
        workers: Actors that held networks.
        threads: Threads of each actor.
        device: Device as asked for.
        decode: Seconds of decoding, summed over workers.
        score: Seconds of scoring, summed over workers.
        write: Seconds of writing, summed over workers.
        wall: Seconds that passed.
    """

    started_at: str
    images: int
    workers: int
    threads: int
    device: str
    decode: float
    score: float
    write: float
    wall: float


class Report(StrictModel):
    """All that a report says.

    Attributes:
        format_version: Version of this document.
        run: What was run.
        notes: What a reader must know of the figures.
        confidence: Confidence of the intervals.
        resamples: Bootstrap samples behind them.
        metrics: All figures of the evaluation; empty without labels.
        categories: All categories, by name.
        details: Charts and galleries of a bounded number of categories.
        error_kinds: Images with an error, by kind.
        errors: The first of them.
        attempts: Attempts that came to their end, oldest first.
    """

    format_version: int = FORMAT_VERSION
    run: RunFacts
    notes: tuple[str, ...]
    confidence: float
    resamples: int
    metrics: tuple[Metric, ...]
    categories: tuple[CategoryResult, ...]
    details: tuple[CategoryDetail, ...]
    error_kinds: dict[str, int]
    errors: tuple[ImageErrorRow, ...]
    timings: tuple[TimingRow, ...]

    @property
    def is_labelled(self) -> bool:
        """Whether any scored image has a label."""
        return any(entry.is_labelled for entry in self.categories)
