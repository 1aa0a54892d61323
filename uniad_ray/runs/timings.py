"""What each attempt at a run spent on its stages: the only part of a run that knows a clock."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import ValidationError

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import RunError

TIMINGS_FOLDER = "timings"


class StageSeconds(StrictModel):
    """Seconds that workers spent on each stage, summed over workers, and the seconds that passed meanwhile."""

    decode: float = 0.0
    score: float = 0.0
    write: float = 0.0
    wall: float = 0.0


class Timing(StrictModel):
    """One attempt at a run that scored to its end; one that was killed leaves no record.

    Attributes:
        started_at: UTC, ISO 8601.
        images: Image rows that it scored.
        chunks: Chunks that it scored.
        workers: Actors that held networks.
        threads: Threads of each actor.
        device: `cpu`, `cuda` or `auto`, as asked for.
        seconds: Time per stage.
    """

    started_at: str
    images: int
    chunks: int
    workers: int
    threads: int
    device: str
    seconds: StageSeconds


def write_timing(run: Location, timing: Timing) -> None:
    """Records an attempt beside the scores."""
    started = datetime.fromisoformat(timing.started_at).astimezone(UTC)
    name = f"{started:%Y%m%dT%H%M%S.%fZ}.json"
    (run / TIMINGS_FOLDER / name).write_json(timing.model_dump(mode="json"))


def read_timings(run: Location) -> list[Timing]:
    """Attempts that came to their end, oldest first.

    Raises:
        RunError: A record is damaged.
    """
    timings = []
    for info in (run / TIMINGS_FOLDER).list(suffix=".json"):
        try:
            timings.append(Timing.model_validate(info.location.read_json()))
        except ValidationError as error:
            raise RunError(
                f"{info.location}: damaged record of an attempt; delete it, no score depends on it"
            ) from error
    return timings
