"""Request and response models of the operations on runs, published in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from uniad_ray.runs.reviews import MarkKind
from uniad_ray.serving.http.schemas import ExpertScore, ImageProblem, ResponseModel
from uniad_ray.serving.runs.category_scores import Decision

MAX_MARKS = 1000
MAX_NOTE = 2000


class RunCategory(ResponseModel):
    """Counts of one category of a run."""

    category: str = Field(examples=["trays"])
    images: int = Field(examples=[200])
    errors: int = Field(description="Images that could not be scored.", examples=[0])
    anomalous: int = Field(description="Images with an anomalous decision.", examples=[56])
    bundle_version: str = Field(examples=["20261127-101112-0a1b2c3d"])
    bundle_digest: str = Field(description="sha256 of the bundle's manifest.")


class RunSummary(ResponseModel):
    """A finished run, or the reason why it cannot be read."""

    name: str = Field(examples=["run"])
    run_id: str | None = Field(default=None, description="Digest of the run's plan.", examples=["08fbe98d51499aaf"])
    created_at: str | None = Field(
        default=None, description="Start of the last scoring, in UTC; null if no timings are recorded."
    )
    code_version: str | None = Field(default=None, examples=["0.1.0"])
    maps: Literal["all", "top", "none"] | None = Field(default=None, description="Which anomaly maps the run stores.")
    images: int = Field(default=0, description="Images of the listed categories.")
    errors: int = 0
    anomalous: int = 0
    categories: list[RunCategory] = Field(default_factory=list, description="Categories that the key is valid for.")
    problem: str | None = Field(default=None, description="Why the run cannot be read.")


class RunList(ResponseModel):
    """All runs of the endpoint."""

    runs: list[RunSummary]
    may_review: bool = Field(description="Whether the key may set marks.")


class RunMark(ResponseModel):
    """A reviewer's mark on an image."""

    mark: MarkKind
    score: float = Field(description="Score that the reviewer saw.")
    threshold: float = Field(description="Threshold that the reviewer saw.")
    reviewer: str = Field(description="Name of the access key.")
    marked_at: str = Field(description="UTC, ISO 8601.")
    note: str | None = None


class RunImage(ResponseModel):
    """One scored image of a run."""

    row_key: str = Field(examples=["3ea2e3f5cc0558bb7f8925d88dee8476"])
    source_uri: str = Field(description="Path or URI it was ingested from.")
    category: str
    split: str = Field(examples=["test"])
    label: Decision | None = Field(description="As ingested; a mark does not change it.")
    defect_kind: str | None
    status: Literal["ok", "error"]
    error: ImageProblem | None
    score: float | None
    threshold: float = Field(description="Threshold of the run.")
    decision: Literal["normal", "review", "anomalous"] | None = Field(description="Decision of the run.")
    decision_at_threshold: Decision | None = Field(description="Decision at the requested threshold, without review.")
    reasons: list[str]
    experts: list[ExpertScore]
    metadata: dict[str, str] = Field(
        description="Metadata from the image manifest.", examples=[{"serial": "A-0017", "camera": "top"}]
    )
    mark: RunMark | None


class RunPart(ResponseModel):
    """The verdict of a part: the images of a run with the same serial."""

    serial: str = Field(examples=["A-0017"])
    decision: Literal["normal", "review", "anomalous"] | None = Field(
        description="anomalous if a view is anomalous; else null if a view could not be scored; else review if a view "
        "is for review; else normal."
    )
    views: int = Field(examples=[2])
    anomalous_views: int = Field(examples=[1])
    error_views: int = Field(examples=[0])
    margin: float | None = Field(description="Largest score minus threshold over the views.", examples=[1.7])
    category: str | None = Field(description="Category of that view.")
    row_key: str | None = Field(description="Key of that view.")
    label: Decision | None = Field(description="anomalous if a view has that label; else null if a label is missing.")
    categories: list[str] = Field(description="Categories of the views.")


class RunPartPage(ResponseModel):
    """A page of the parts of a run, sorted by serial."""

    run: str
    run_id: str
    total: int = Field(description="Parts that match the filters.")
    offset: int
    parts: list[RunPart]


class RunImagePage(ResponseModel):
    """A page of the images that match the filters."""

    run: str
    run_id: str
    category: str
    threshold: float = Field(description="Threshold of the run.")
    total: int = Field(description="Images that match the filters.")
    offset: int
    images: list[RunImage]


class ThresholdErrors(ResponseModel):
    """Wrong decisions among the labelled images; a mark overrides the label."""

    false_alarms: int
    misses: int


class ThresholdResponse(ResponseModel):
    """Effect of a new threshold on the decisions of a run; nothing is stored."""

    category: str
    stored_threshold: float = Field(description="Threshold of the run.", examples=[2.2])
    threshold: float = Field(description="The requested threshold.", examples=[3.0])
    lowest_score: float | None
    highest_score: float | None
    images: int = Field(description="Images with a score.", examples=[200])
    changed: int = Field(description="Images whose decision changes.", examples=[9])
    to_anomalous: int = Field(description="From normal to anomalous.", examples=[0])
    to_normal: int = Field(description="From anomalous to normal.", examples=[9])
    anomalous_before: int = Field(examples=[56])
    anomalous_after: int = Field(examples=[47])
    labelled_normal: int = Field(description="Normal by label or mark.", examples=[40])
    labelled_anomalous: int = Field(description="Anomalous by label or mark.", examples=[60])
    errors_before: ThresholdErrors | None = Field(description="Null if no image is labelled.")
    errors_after: ThresholdErrors | None = Field(description="Null if no image is labelled.")


class NewMark(BaseModel):
    """A mark to set."""

    model_config = ConfigDict(extra="forbid")

    row_key: str = Field(min_length=1, max_length=200)
    category: str = Field(min_length=1, max_length=200, examples=["trays"])
    mark: MarkKind = Field(
        description="false_alarm: a normal image was decided anomalous. miss: an anomalous image was decided normal. "
        "confirmed: the decision is right. none: remove the mark."
    )
    threshold: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Threshold that the reviewer saw; null is the threshold of the run.",
    )
    note: str | None = Field(default=None, max_length=MAX_NOTE)


class MarkRequest(BaseModel):
    """Marks to set, all or none."""

    model_config = ConfigDict(extra="forbid")

    marks: list[NewMark] = Field(min_length=1, max_length=MAX_MARKS)


class StoredMark(RunMark):
    """A stored mark."""

    row_key: str
    category: str


class MarkResponse(ResponseModel):
    """The stored marks, in the order of the request."""

    marks: list[StoredMark]


def mark_schema() -> dict[str, Any]:
    """Return a self-contained JSON schema of `MarkRequest`."""
    schema = MarkRequest.model_json_schema()
    schema["properties"]["marks"]["items"] = schema.pop("$defs")["NewMark"]
    return schema
