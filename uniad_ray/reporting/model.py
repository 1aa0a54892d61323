"""The content of a report without its pictures: the JSON document, and the source of the other formats.

Details, galleries, errors and curves are bounded, whatever the size of the run; totals count everything.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from uniad_ray.config.base import StrictModel
from uniad_ray.metrics.metric import Metric

FORMAT_VERSION = 1

Outcome = Literal["found", "missed", "false_alarm", "passed"]
SectionKind = Literal["highest", "borderline", "false_alarms", "misses"]


class RunFacts(StrictModel):
    """The run of a report.

    Attributes:
        location: Root of the run.
        run_id: Digest of its plan.
        code_version: Version of uniad_ray that scored.
        archive: Root of the archive.
        archive_digest: Digest of its content.
        bundle_root: Root of the bundles.
        options: Options of the run.
        images: Number of score rows.
        errors: Images that could not be scored.
        called_anomalous: Images with the decision `anomalous`.
        random_weights: Whether a network had random weights, which makes all scores meaningless.
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
    """One network of a bundle, and the source of its weights."""

    name: str
    uri: str
    sha256: str
    trained: bool


class ExpertChoice(StrictModel):
    """The result of expert selection for one expert of a category, made at fit time.

    Attributes:
        expert: Name of the expert.
        weight: Weight in the fusion; 0 if the expert is not selected.
        reason: Reason for the choice.
        synthetic_auroc: AUROC of the expert alone on synthetic anomalies against normal images, in [0, 1], by family,
            and on known defects if there are some.
    """

    expert: str
    weight: float
    reason: str
    synthetic_auroc: dict[str, float]


class Lineage(StrictModel):
    """The origin of a bundle.

    Attributes:
        created_at: UTC, ISO 8601.
        code_version: Version of uniad_ray that fitted it.
        profile: Name of its profile.
        fusion_rule: Rule that fuses the experts into one score: `sum`, `excess` or `maps`.
        expert_weights: Weight in the fusion, by expert.
        choices: Results of expert selection; empty if the bundle was fitted without it.
        archive: Root of the archive it was fitted on.
        archive_digest: Digest of that archive's content.
        fit_images: Number of normal images in the fit.
        held_out_images: Number of held-out scores behind calibration and threshold.
        calibration: `holdout`, `cross_fit`, `validation_split` or `altered_copies`.
        false_positive_rate: Target false-positive rate of the bundle's own threshold.
        threshold_method: Method of the bundle's own threshold: `empirical`, `generalised_pareto` or `gaussian_tail`.
        networks: Networks of its extractors.
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
    """The result of the run for one category.

    Attributes:
        category: Name of the category.
        images: Number of score rows in all splits.
        errors: Images that could not be scored.
        called_anomalous: Images with the decision `anomalous`.
        in_review: Images with the decision `review`.
        split: Split that is evaluated and shown in details; None if no split is evaluated and details show all.
        threshold: Scores above it are anomalous; None if no image was scored.
        normal_images: Scored images with the label `normal` in the evaluated split.
        anomalous_images: Scored images with the label `anomalous` in the evaluated split.
        false_alarms: Normal images called anomalous.
        misses: Anomalous images called normal.
        bundle_version: Version of the bundle that scored it.
        bundle_digest: Digest of that bundle.
        lineage: Origin of the bundle; None if the bundle can no longer be read.
        lineage_problem: Why the bundle cannot be read.
    """

    category: str
    images: int
    errors: int
    called_anomalous: int
    in_review: int = 0
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
    """A histogram of scores; the threshold is one of the edges, and each bin includes its upper edge.

    Attributes:
        edges: Edges of the bins, ascending, one more than bins.
        counts: Images per bin, by group: `normal`, `anomalous`, `logical`, `structural` or `unlabelled`.
        open_ended: Whether the last bin also counts all higher scores.
    """

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]
    open_ended: bool


class OperatingPoint(StrictModel):
    """The run's threshold as a point of the curves; precision is None if no image is called anomalous."""

    false_positive_rate: float
    recall: float
    precision: float | None


class Curves(StrictModel):
    """ROC and precision-recall curves of the fused score, thinned to a bounded number of points.

    Attributes:
        roc: Points (false-positive rate, recall), from (0, 0) to (1, 1).
        precision_recall: Points (recall, precision), by ascending recall.
        operating_point: Point at the run's threshold.
    """

    roc: tuple[tuple[float, float], ...]
    precision_recall: tuple[tuple[float, float], ...]
    operating_point: OperatingPoint


class ExpertContribution(StrictModel):
    """Scores of one expert, and its weight in the fused score.

    Attributes:
        expert: Name of the expert.
        weight: Weight in the fusion; None if the bundle can no longer be read.
        image_auroc: AUROC of its score alone; None unless there are normal and anomalous images.
        mean_calibrated: Mean calibrated score of the `normal`, `anomalous` and `unlabelled` images.
    """

    expert: str
    weight: float | None
    image_auroc: Metric | None
    mean_calibrated: dict[str, float]


class MapScale(StrictModel):
    """Colour scale of the heat maps of a category, in map values.

    Attributes:
        start: Start of the scale; colours become visible half way between it and the threshold.
        threshold: The category's threshold for scores.
        top: Value of the darkest colour, which all higher values share.
    """

    start: float
    threshold: float
    top: float


class GalleryImage(StrictModel):
    """One image of the gallery.

    Attributes:
        row_key: Key of the image row.
        source_uri: Path or URI that it was ingested from.
        split: Its split.
        label: `normal`, `anomalous` or None.
        defect_kind: Kind of its defect.
        anomaly_type: `logical`, `structural` or None.
        score: Fused score.
        decision: `normal`, `review` or `anomalous`.
        outcome: Decision compared with the label; None without a label.
        reasons: Sentences from the experts.
        calibrated: Calibrated score, by expert.
        metadata: Metadata of the image, such as its serial, by name.
        caption: Caption by a vision-language model; None if the report is written without captions, or it has none.
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
    metadata: dict[str, str] = Field(default_factory=dict)
    caption: str | None = None


class PartRow(StrictModel):
    """The verdict of one part; the fields are those of schema `part`, without `row_key`."""

    serial: str
    decision: str | None
    views: int
    anomalous_views: int
    error_views: int
    margin: float | None
    category: str | None
    label: str | None
    categories: tuple[str, ...]


class PartsSummary(StrictModel):
    """The parts of a run: images with the same serial.

    Attributes:
        total: Number of parts.
        anomalous: Number of parts with an anomalous view.
        undecided: Number of other parts with a view that could not be scored.
        in_review: Number of other parts with a view for review.
        listed: The first of these, largest margin first, then the undecided ones, then those for review.
    """

    total: int
    anomalous: int
    undecided: int
    in_review: int = 0
    listed: tuple[PartRow, ...]


class GallerySection(StrictModel):
    """Images of one kind; `total` counts all images of this kind, shown or not."""

    kind: SectionKind
    total: int
    images: tuple[GalleryImage, ...]


class CategoryDetail(StrictModel):
    """Charts and gallery of one category.

    Attributes:
        category: Name of the category.
        histogram: Scores of its evaluated images.
        curves: None unless there are normal and anomalous images.
        experts: Its experts, in the order of the bundle.
        map_scale: Colour scale of its heat maps.
        gallery: Sections with at least one image.
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
    """Timings of one completed execution of the run.

    Attributes:
        started_at: UTC, ISO 8601.
        images: Number of images it scored.
        workers: Number of scoring actors.
        threads: Threads of each actor.
        device: Device as requested.
        decode: Seconds of decoding, summed over workers.
        score: Seconds of scoring, summed over workers.
        write: Seconds of writing, summed over workers.
        wall: Elapsed seconds.
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
    """The content of a report.

    Attributes:
        format_version: Version of this document.
        run: The run.
        notes: Remarks on the metrics, such as what was left out.
        confidence: Confidence of the intervals, above 0 and below 1.
        resamples: Number of bootstrap resamples; 0 if there are no intervals.
        metrics: All metrics of the evaluation; empty without labels.
        categories: All categories, by name.
        details: Charts and galleries of a bounded number of categories.
        error_kinds: Number of images that could not be scored, by kind of error.
        errors: The first images that could not be scored.
        timings: Timings of completed executions, oldest first.
        parts: The parts of the run; None if its images have no serials.
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
    parts: PartsSummary | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether any scored image has a label."""
        return any(entry.is_labelled for entry in self.categories)
