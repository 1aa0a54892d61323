"""Timings of a run by stage. Everything else in a run is independent of the clock."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import ValidationError

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import RunError

TIMINGS_FOLDER = "timings"


class StageSeconds(StrictModel):
    """Seconds per stage, summed over workers, and the elapsed wall time in seconds."""

    decode: float = 0.0
    score: float = 0.0
    write: float = 0.0
    wall: float = 0.0


class Timing(StrictModel):
    """Timing of one execution that finished the run; an interrupted execution leaves no record.

    Attributes:
        started_at: UTC, ISO 8601.
        images: Image rows scored by this execution.
        chunks: Chunks scored by this execution.
        workers: Actors with networks.
        threads: Threads per actor.
        device: Requested device: `cpu`, `cuda` or `auto`.
        seconds: Seconds per stage.
        store_retries: Requests to the store that were repeated while decoding and committing.
    """

    started_at: str
    images: int
    chunks: int
    workers: int
    threads: int
    device: str
    seconds: StageSeconds
    store_retries: int = 0


def write_timing(run: Location, timing: Timing) -> None:
    """Store a timing in the run."""
    started = datetime.fromisoformat(timing.started_at).astimezone(UTC)
    name = f"{started:%Y%m%dT%H%M%S.%fZ}.json"
    (run / TIMINGS_FOLDER / name).write_json(timing.model_dump(mode="json"))


def read_timings(run: Location) -> list[Timing]:
    """Read the timings of a run, oldest first.

    Raises:
        RunError: A timing is corrupt.
    """
    timings = []
    for info in (run / TIMINGS_FOLDER).list(suffix=".json"):
        try:
            timings.append(Timing.model_validate(info.location.read_json()))
        except ValidationError as error:
            raise RunError(f"{info.location}: corrupt timing; delete the file, no score depends on it") from error
    return timings
