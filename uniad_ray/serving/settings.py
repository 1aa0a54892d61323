"""What the operator of an endpoint decides; the typed arguments of the application builder."""

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
"""How often a replica or a gateway tries to reach a store: somebody waits for the answer."""

OF_REPLICAS: Final = {
    # Their code never blocks, and three event loops in three threads would wait for each other.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    # An image goes with the call; by way of the object store, as all above 100 kB by default, it takes twice as long.
    "RAY_max_direct_call_object_size": str(2 << 20),
}
"""Environment of the processes of an endpoint."""


class BatchSettings(StrictModel):
    """How images of different requests are scored together.

    Attributes:
        images: Most images of one category in a batch.
        wait_seconds: How long a batch waits to be filled; 0 takes what is there.
    """

    images: int = Field(default=8, ge=1, le=256)
    wait_seconds: float = Field(default=0.0, ge=0, le=1)


class RequestLimits(StrictModel):
    """What one request may cost; all but the time is checked before an image is decoded.

    Attributes:
        request_bytes: Size of a body.
        image_bytes: Size of one encoded image.
        image_pixels: Width times height of one image.
        images: Images of one request.
        bytes_inside: Size of all bodies that a gateway holds at a time; further requests are told that it is
            overloaded.
        seconds: From the first byte to the answer.
    """

    request_bytes: int = Field(default=64 << 20, ge=1 << 10, le=1 << 30)
    image_bytes: int = Field(default=32 << 20, ge=1 << 10, le=1 << 28)
    image_pixels: int = Field(default=50_000_000, ge=1, le=178_956_970)
    images: int = Field(default=32, ge=1, le=1024)
    bytes_inside: int = Field(default=1 << 30, ge=1 << 10, le=1 << 36)
    seconds: float = Field(default=30.0, gt=0, le=600)

    @property
    def of_an_image(self) -> ImageLimits:
        """The bounds that decoding holds an image against."""
        return ImageLimits(max_bytes=self.image_bytes, max_pixels=self.image_pixels)


class ReplicaSettings(StrictModel):
    """Processes that hold networks and bundles.

    Attributes:
        fewest: Replicas that are always there.
        most: Replicas under load; more than `fewest` lets Serve add and remove some.
        categories: Bundles that a replica keeps; the one that was not asked for longest goes first.
        threads: Threads of a replica on the CPU; null takes the cores of the machine, shared among `most` replicas.
        device: `cpu`, `cuda` or `auto`.
        queued_images: Images that wait for a replica before the endpoint says that it is overloaded.
        loaded_at_start: Categories whose bundles are loaded and checked before a replica takes requests; null takes
            the first `categories` of the store.
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
            raise ValueError(f"most: {self.most} is below fewest, {self.fewest}")
        return self


class EngineSettings(StrictModel):
    """The vision-language model behind experts that need texts.

    Attributes:
        kind: `none` leaves such experts out, and every answer says so; `endpoint` asks a server with the chat interface
            of OpenAI; `deployment` runs vLLM in replicas of this application.
        url: The server, such as `http://gpu-1:8000/v1`; null takes that of each bundle.
        model: The model's name at `url`; null takes that of each bundle.
        deadline_seconds: How long a verdict waits for its texts before it is given without them.
        most_waiting: Images of a replica that wait for texts at a time; further ones are judged without.
        replicas: Processes with vLLM, for `deployment`.
        gpus: GPUs of each.
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
            raise ValueError(f"url and model are of kind: endpoint; this is kind: {self.kind}")
        if self.model and not self.url:
            raise ValueError("model: give the url as well at which it is asked for")
        if self.url:
            CaptionServerConfig(kind="server", url=self.url, model=self.model or "any")
        return self


class ServeSettings(StrictModel):
    """The arguments of `uniad_ray.serving.app:build_app`.

    Attributes:
        bundles: Root of the bundles, a path or `s3://` URI.
        runs: Folders of runs that the page may show, by the name it shows them under.
        keys: YAML file of access keys, made by `uniad-ray serve-key`; null lets everybody do everything.
        reference_prefixes: Prefixes below which an image may be named instead of sent, such as `s3://plant/line-1/`.
        batch: How requests share a batch.
        limits: What one request may cost.
        replicas: Processes that score.
        engine: The model that writes texts.
        gateways: Processes that take requests.
        refresh_seconds: How often replicas look for newly published bundles, and gateways for changed keys.
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
    refresh_seconds: float = Field(default=5.0, gt=0, le=3600)

    @field_validator("bundles")
    @classmethod
    def _locate(cls, root: str) -> str:
        # Replicas run elsewhere, where a relative path would lead to another place.
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
                raise ValueError(f"{prefix!r}: write s3://BUCKET/ or s3://BUCKET/PREFIX/, with the slash at its end")
        return prefixes

    @property
    def images_in_a_replica(self) -> int:
        """Images that Serve hands to a replica at a time: a batch at work, and the next one."""
        return 2 * self.batch.images

    def scorer_options(self) -> dict[str, Any]:
        """Serve's options of the scoring deployment; all follow from what is set here, so that none contradict."""
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
    """Runs by the name that the page shows them under: the last part of their path.

    Raises:
        ConfigError: Two have the same name.
    """
    named: dict[str, str] = {}
    for root in roots:
        location = Location.parse(root)
        if location.name in named:
            raise ConfigError(f"--runs {root}: there is another run called {location.name!r}; move one, or serve one")
        named[location.name] = location.uri
    return named
