"""The configuration of the nights, read from `nightly.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_validator, model_validator

from uniad_ray.alarms.mail import Mail
from uniad_ray.alarms.rules import AlarmRules
from uniad_ray.alarms.webhook import Webhook
from uniad_ray.archive.layouts.entries import Label, Split
from uniad_ray.archive.layouts.registry import layout_names
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.config.loading import parse_yaml, validate
from uniad_ray.drift.findings import DriftOptions
from uniad_ray.errors import ConfigError
from uniad_ray.pipelines.caption.engines import FREE, Engine, Question


class NightSource(StrictModel):
    """A folder or prefix that images arrive in.

    Attributes:
        path: Folder or prefix.
        category: Name of the category, or the one to take from a source that holds several.
        layout: Layout of the source; `auto` recognises it.
        manifest: File that lists the images with labels, masks and metadata; see `uniad-ray ingest --manifest`.
        split: Split of a plain folder; default `archive`.
        label: Label of a plain folder; default unknown.
    """

    path: str
    category: str | None = None
    layout: str = "auto"
    manifest: str | None = None
    split: Split | None = None
    label: Label | None = None

    @field_validator("layout")
    @classmethod
    def _is_known(cls, layout: str) -> str:
        if layout not in layout_names():
            raise ValueError(f"use one of {', '.join(layout_names())}")
        return layout


class NightCaptions(StrictModel):
    """How images are captioned before they are scored; see `uniad-ray caption`.

    Attributes:
        sidecar: Root of the captions, local or `s3://`; created if missing.
        engine: `auto` takes the server if there is a `url`, else vLLM.
        model: Name of the model on the server, or its folder.
        url: Base URL of the server.
        prompt: `free`, `structured` (needs `classes`), or a prompt of your own.
        classes: Classes of objects for the structured prompt.
        options: Further options of the engine, such as `max_tokens: 256`; those of `uniad-ray caption --set`.
        categories: Categories to caption; empty captions all.
        workers: Actors that caption; null chooses by the cluster.
        retry_errors: Whether to ask again about the images that earlier nights got no caption for.
        required: Whether a night ends with an error if the model cannot be reached. Otherwise it goes on without
            captions, with an alarm.
    """

    sidecar: str
    engine: Engine = "auto"
    model: str
    url: str | None = None
    prompt: str = FREE
    classes: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)
    categories: tuple[str, ...] = ()
    workers: int | None = Field(default=None, ge=1)
    retry_errors: bool = True
    required: bool = False

    @property
    def question(self) -> Question:
        """What to ask, and whom."""
        return Question(self.engine, self.model, self.url, self.prompt, self.classes, self.options)


class NightScore(StrictModel):
    """How the new images are scored; see `uniad-ray score`.

    Attributes:
        maps: Anomaly maps to keep.
        top_maps: Maps to keep per category with `maps: top`.
        false_positive_rate: False-positive rate for the threshold; null keeps the bundle's.
        workers: Actors that score; null chooses by the cluster.
        threads: Threads of an actor; null chooses by the cluster.
        device: `auto`, `cpu` or `cuda`.
    """

    maps: Literal["all", "top", "none"] = "top"
    top_maps: int = Field(default=100, ge=1)
    false_positive_rate: float | None = Field(default=None, gt=0, lt=1)
    workers: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"


class Notify(StrictModel):
    """Receivers of alarms, each by a name of your choice.

    Attributes:
        webhooks: Receivers of JSON.
        mail: Recipients of e-mail.
    """

    webhooks: dict[str, Webhook] = Field(default_factory=dict)
    mail: dict[str, Mail] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_files(self) -> Self:
        wrong = [name for name in (*self.webhooks, *self.mail) if not name.replace("-", "").replace("_", "").isalnum()]
        if wrong:
            raise ValueError(f"name {wrong[0]!r} may only have letters, digits, - and _")
        return self


class Retention(StrictModel):
    """How many days things are kept, counted from the start of their night; null keeps them.

    Records of the nights and the history are always kept. Each deletion is recorded.

    Attributes:
        images_days: Images that nights have scored, in the archive. They are not ingested again.
        runs_days: Runs with their reports; see also `keep_runs`.
        reports_days: Reports, which hold small pictures; the scores of their runs stay.
        samples_days: What was measured of single images for drift: size, brightness, features and scores.
        captions: Sidecars of `uniad-ray caption`, besides that of the nights; captions of deleted images are deleted
            from them.
    """

    images_days: int | None = Field(default=None, ge=1)
    runs_days: int | None = Field(default=None, ge=1)
    reports_days: int | None = Field(default=None, ge=1)
    samples_days: int | None = Field(default=None, ge=1)
    captions: tuple[str, ...] = ()


class NightlyConfig(StrictModel):
    """Everything about the nights; paths are local or `s3://` URIs.

    Attributes:
        work: Folder of the records, runs and reports of the nights.
        archive: Archive that the images are added to; created if missing.
        bundles: Root of the bundles.
        sources: Where images arrive; empty if something else fills the archive.
        first_night: Images of the first night: `new` leaves out what the archive held before, `all` does not.
        min_hours: A call starts no night earlier than this after the start of the last one. So a call that is repeated
            adds no second night.
        time_zone: Time zone of the night's name, its date.
        address: Ray cluster to join; null starts Ray on this machine.
        captions: How the images are captioned before they are scored; null captions none.
        score: How the images are scored.
        drift: When a difference counts as drift.
        alarms: What raises an alarm.
        notify: Who hears of it.
        history_nights: Nights on the page of the last nights.
        keep_runs: Nights whose runs and reports are kept; null keeps all. Records and history are always kept.
        retention: How many days images, runs, reports and samples are kept.
    """

    work: str
    archive: str
    bundles: str
    sources: tuple[NightSource, ...] = ()
    first_night: Literal["new", "all"] = "new"
    min_hours: float = Field(default=12.0, ge=0)
    time_zone: str = "UTC"
    address: str | None = None
    captions: NightCaptions | None = None
    score: NightScore = Field(default_factory=NightScore)
    drift: DriftOptions = Field(default_factory=DriftOptions)
    alarms: AlarmRules = Field(default_factory=AlarmRules)
    notify: Notify = Field(default_factory=Notify)
    history_nights: int = Field(default=30, ge=1, le=1000)
    keep_runs: int | None = Field(default=None, ge=1)
    retention: Retention = Field(default_factory=Retention)

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError("use a name of the time zone database, such as UTC or Europe/Berlin")
        return name

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the night's name."""
        return ZoneInfo(self.time_zone)


def load_nightly(path: str) -> NightlyConfig:
    """Reads a configuration file.

    Args:
        path: YAML file, local or in S3.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or has an unknown key or a wrong value.
    """
    location = Location.parse(path)
    try:
        text = (Path(location.path).read_bytes() if location.is_local else location.read_bytes()).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; write it as docs/nightly.md shows") from error
    document = parse_yaml(text, where=path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected keys and values at the top level")
    return validate(NightlyConfig, document, where=path)
