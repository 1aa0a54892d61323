"""Prometheus metrics of runs and of the endpoint, exported by Ray on every node beside its own."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class MetricSpec:
    """One metric; Ray exports it as `ray_<name>`, and a counter as `ray_<name>_total`.

    Attributes:
        name: Its name.
        kind: `counter` only rises, `gauge` is a present value, `histogram` counts values by size.
        description: What it measures.
        tags: Names of its labels; Ray adds its own, such as the node.
        boundaries: Upper bounds of the buckets of a histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()

    @property
    def exported(self) -> tuple[str, ...]:
        """Names of its time series for Prometheus."""
        base = f"ray_{self.name}"
        match self.kind:
            case "counter":
                return (f"{base}_total",)
            case "histogram":
                return (f"{base}_bucket", f"{base}_count", f"{base}_sum")
            case _:
                return (base,)


METRICS: Final = {
    spec.name: spec
    for spec in (
        MetricSpec("uniad_ray_ingest_files", "counter", "Image files that were read.", ("outcome",)),
        MetricSpec("uniad_ray_run_images", "counter", "Images of score rows.", ("category", "decision")),
        MetricSpec("uniad_ray_run_stage_seconds", "counter", "Seconds of work of all workers.", ("category", "stage")),
        MetricSpec("uniad_ray_run_store_retries", "counter", "Requests to the store that were repeated."),
        MetricSpec("uniad_ray_run_chunks_waiting", "gauge", "Chunks of the run that are not scored yet."),
        MetricSpec("uniad_ray_requests", "counter", "HTTP requests.", ("operation", "status")),
        MetricSpec("uniad_ray_request_seconds", "histogram", "Time to the response.", ("operation",), SECONDS),
        MetricSpec("uniad_ray_problems", "counter", "Requests that ended with a problem.", ("kind",)),
        MetricSpec("uniad_ray_request_images", "counter", "Images of requests.", ("category", "decision")),
        MetricSpec("uniad_ray_images_inside", "gauge", "Images of a gateway that wait for their verdict."),
        MetricSpec("uniad_ray_replica_retries", "counter", "Calls of replicas that were repeated."),
        MetricSpec("uniad_ray_replica_stage_seconds", "histogram", "Seconds of a stage.", ("stage",), SECONDS),
        MetricSpec("uniad_ray_replica_batch_images", "histogram", "Images of a batch.", (), BATCHES),
    )
}
"""All metrics by name."""


class Recorder(Protocol):
    """Records values of metrics, by their names in `METRICS`."""

    def count(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Raises a counter; a value of 0 is not recorded."""
        ...

    def set(self, name: str, value: float, **tags: str) -> None:
        """Sets a gauge."""
        ...

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Adds a value to a histogram."""
        ...


class NoMetrics:
    """Records nothing, outside of Ray."""

    def count(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Does nothing."""

    def set(self, name: str, value: float, **tags: str) -> None:
        """Does nothing."""

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Does nothing."""


class RayMetrics:
    """Records with Ray, in a driver or a worker. Each process reports every few seconds."""

    def count(self, name: str, value: float = 1.0, **tags: str) -> None:
        """See `Recorder`."""
        if value > 0:
            _metric(name).inc(value, tags)

    def set(self, name: str, value: float, **tags: str) -> None:
        """See `Recorder`."""
        _metric(name).set(value, tags)

    def observe(self, name: str, value: float, **tags: str) -> None:
        """See `Recorder`."""
        _metric(name).observe(value, tags)


@functools.cache
def _metric(name: str) -> Any:
    """The metric of this process; created once, since Ray keeps one of a name."""
    from ray.util import metrics

    spec = METRICS[name]
    if spec.kind == "histogram":
        return metrics.Histogram(spec.name, spec.description, list(spec.boundaries), spec.tags)
    kind = metrics.Counter if spec.kind == "counter" else metrics.Gauge
    return kind(spec.name, spec.description, spec.tags)
