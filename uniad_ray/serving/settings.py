"""Settings of an endpoint: the typed arguments of the application builder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from uniad_ray.archive.images import ImageLimits
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import ConfigError, StoreError
from uniad_ray.perception.captions.server import CaptionServerConfig

STORE_ATTEMPTS: Final = 3
"""Attempts of a replica or gateway to reach a store; few, because a request is waiting."""

OF_REPLICAS: Final = {
    # Our code never blocks; three event loops in three threads would wait for each other.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    # Pass images with the call. By default, Ray sends data above 100 kB through the object store: twice the latency.
    "RAY_max_direct_call_object_size": str(2 << 20),
}
"""Environment variables of the processes of an endpoint."""


class BatchSettings(StrictModel):
    """Batching of images across requests.

    Attributes:
        images: Maximum batch size; a batch holds images of one category.
        wait_seconds: Maximum time to wait for a full batch; 0 starts with the images that have arrived.
    """

    images: int = Field(default=8, ge=1, le=256)
    wait_seconds: float = Field(default=0.0, ge=0, le=1)


class RequestLimits(StrictModel):
    """Limits of one request. All except the time are checked before an image is decoded.

    Attributes:
        request_bytes: Maximum size of a request body.
        image_bytes: Maximum size of an encoded image.
        image_pixels: Maximum width times height of an image.
        images: Maximum number of images in a request.
        bytes_inside: Maximum size of all bodies that a gateway holds at a time; further requests get `overloaded`.
        seconds: Maximum time from the first byte to the response.
    """

    request_bytes: int = Field(default=64 << 20, ge=1 << 10, le=1 << 30)
    image_bytes: int = Field(default=32 << 20, ge=1 << 10, le=1 << 28)
    image_pixels: int = Field(default=50_000_000, ge=1, le=178_956_970)
    images: int = Field(default=32, ge=1, le=1024)
    bytes_inside: int = Field(default=1 << 30, ge=1 << 10, le=1 << 36)
    seconds: float = Field(default=30.0, gt=0, le=600)

    @property
    def of_an_image(self) -> ImageLimits:
        """Limits for decoding an image."""
        return ImageLimits(max_bytes=self.image_bytes, max_pixels=self.image_pixels)


class ReplicaSettings(StrictModel):
    """Scoring replicas: processes that hold networks and bundles.

    Attributes:
        fewest: Minimum number of replicas.
        most: Maximum number of replicas; if above `fewest`, Serve scales with the load.
        categories: Bundles that a replica keeps in memory; the least recently used one is evicted.
        threads: CPU threads of a replica; null divides the cores of the machine among `most` replicas.
        device: `cpu`, `cuda` or `auto`.
        queued_images: Images that may queue for a replica; beyond that, requests get `overloaded`.
        loaded_at_start: Categories to load and check before a replica accepts requests; null takes the first
            `categories` of the store.
    """

    fewest: int = Field(default=1, ge=1, le=1000)
    most: int = Field(default=1, ge=1, le=1000)
    categories: int = Field(default=8, ge=1, le=1000)
    threads: int | None = Field(default=None, ge=1, le=256)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    queued_images: int = Field(default=64, ge=1, le=100_000)
    loaded_at_start: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.most < self.fewest:
            raise ValueError(f"most: {self.most} is below fewest, {self.fewest}; raise most or lower fewest")
        return self


class EngineSettings(StrictModel):
    """The vision-language model for experts that need texts.

    Attributes:
        kind: `endpoint` uses a server with OpenAI's chat API; `deployment` runs vLLM in replicas of this application;
            `none` leaves these experts out, and every response says so.
        url: URL of the server, such as `http://gpu-1:8001/v1`; null takes the URL in each bundle.
        model: Name of the model at `url`; null takes the name in each bundle.
        deadline_seconds: Maximum time that a verdict waits for its texts; after it, the verdict is returned without.
        most_waiting: Maximum number of images per replica that wait for texts; further ones are scored without.
        replicas: Number of vLLM replicas, for `deployment`.
        gpus: GPUs per vLLM replica.
    """

    kind: Literal["none", "endpoint", "deployment"] = "endpoint"
    url: str | None = None
    model: str | None = None
    deadline_seconds: float = Field(default=2.0, gt=0, le=60)
    most_waiting: int = Field(default=16, ge=1, le=1000)
    replicas: int = Field(default=1, ge=1, le=100)
    gpus: float = Field(default=1.0, ge=0, le=8)

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if (self.url or self.model) and self.kind != "endpoint":
            raise ValueError(f"url and model need kind: endpoint; this is kind: {self.kind}")
        if self.model and not self.url:
            raise ValueError("model: set url as well")
        if self.url:
            CaptionServerConfig(kind="server", url=self.url, model=self.model or "any")
        return self


class ServeSettings(StrictModel):
    """The arguments of `uniad_ray.serving.app:build_app`.

    Attributes:
        bundles: Root of the bundles, a path or `s3://` URI.
        runs: Folders of the runs to show, by display name.
        keys: YAML file of access keys, created by `uniad-ray serve-key`; null disables access control.
        reference_prefixes: Prefixes of the images that a request may reference by URI, such as `s3://plant/line-1/`.
        batch: Batching of images across requests.
        limits: Limits of one request.
        replicas: Scoring replicas.
        engine: The vision-language model for experts that need texts.
        gateways: Number of processes that accept requests.
        traces: URL of an OpenTelemetry collector for OTLP over HTTP, such as `http://collector:4318/v1/traces`; null
            disables traces. Needs the extra `traces`.
        refresh_seconds: Interval at which replicas check for newly published bundles, and gateways for changed keys.
    """

    bundles: str = Field(min_length=1)
    runs: dict[str, str] = Field(default_factory=dict)
    keys: str | None = None
    reference_prefixes: tuple[str, ...] = ()
    batch: BatchSettings = BatchSettings()
    limits: RequestLimits = RequestLimits()
    replicas: ReplicaSettings = ReplicaSettings()
    engine: EngineSettings = EngineSettings()
    gateways: int = Field(default=1, ge=1, le=100)
    traces: str | None = Field(default=None, pattern=r"^https?://[^/\s]+\S*$")
    refresh_seconds: float = Field(default=5.0, gt=0, le=3600)

    @field_validator("bundles")
    @classmethod
    def _locate(cls, root: str) -> str:
        # Replicas run in another folder, where a relative path has another meaning.
        try:
            return Location.parse(root).uri
        except StoreError as error:
            raise ValueError(str(error)) from error

    @field_validator("runs")
    @classmethod
    def _locate_runs(cls, runs: dict[str, str]) -> dict[str, str]:
        return {name: cls._locate(root) for name, root in runs.items()}

    @field_validator("keys")
    @classmethod
    def _locate_keys(cls, keys: str | None) -> str | None:
        return None if keys is None else str(Path(keys).expanduser().absolute())

    @field_validator("reference_prefixes")
    @classmethod
    def _check_prefixes(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in prefixes:
            bucket, slash, _ = prefix.removeprefix("s3://").partition("/")
            if not prefix.startswith("s3://") or not bucket or not slash or not prefix.endswith("/"):
                raise ValueError(f"{prefix!r}: write s3://BUCKET/ or s3://BUCKET/PREFIX/, with a trailing slash")
        return prefixes

    @property
    def images_in_a_replica(self) -> int:
        """Images that Serve passes to a replica at a time: the current batch and the next one."""
        return 2 * self.batch.images

    def scorer_options(self) -> dict[str, Any]:
        """Serve's options of the scoring deployment, derived from these settings to keep them consistent."""
        replicas = self.replicas
        options: dict[str, Any] = {
            "max_ongoing_requests": self.images_in_a_replica,
            "max_queued_requests": replicas.queued_images,
            "health_check_period_s": 5,
            "health_check_timeout_s": 30,
            "graceful_shutdown_timeout_s": self.limits.seconds,
        }
        if replicas.most == replicas.fewest:
            return {**options, "num_replicas": replicas.fewest}
        return {
            **options,
            "autoscaling_config": {
                "min_replicas": replicas.fewest,
                "initial_replicas": replicas.fewest,
                "max_replicas": replicas.most,
                "target_ongoing_requests": self.batch.images,
            },
        }


def named_runs(roots: Sequence[str]) -> dict[str, str]:
    """Map display names to runs; a name is the last part of the path.

    Raises:
        ConfigError: Two runs have the same name.
    """
    named: dict[str, str] = {}
    for root in roots:
        location = Location.parse(root)
        if location.name in named:
            raise ConfigError(f"--runs {root}: another run is also called {location.name!r}; rename or omit one")
        named[location.name] = location.uri
    return named
