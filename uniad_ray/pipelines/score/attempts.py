"""Finds the image that ends its worker each time, such as by using up the memory, and leaves it out.

A worker that dies takes with it what it knew, and its chunk is scored again by another one. So an object outside of the
workers counts what was begun and not ended. After two deaths with a chunk, its images are scored one by one first; the
image of two further deaths gets an error. The others are then scored in their usual batches, with the usual bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from uniad_ray.errors import ImageError
from uniad_ray.scoring.scorer import Verdict

Outcome = Verdict | ImageError
Score = Callable[[Sequence[int]], Sequence[Outcome]]
"""Scores the images with these numbers, in order."""

DEATHS: Final = 2
"""Deaths with a chunk after which its images are looked at one by one, and with an image after which it is left out."""
_ALONE: Final = "the image needs more memory than a worker has; use an image or a machine of another size"
_DIED: Final = f"the worker ended without a word {DEATHS} times while it scored this image alone, as without memory"
_MEMORY_TEXTS: Final = ("out of memory", "can't allocate memory", "not enough memory")


class Attempts(Protocol):
    """Counts what was begun and not ended, by name."""

    def begun(self, chunk: str) -> dict[str, int]:
        """How often the parts of a chunk were begun since they last ended."""

    def begin(self, chunk: str, part: str) -> None:
        """Notes that a part is begun."""

    def end(self, chunk: str, part: str | None = None) -> None:
        """Notes that a part has ended well; without a part, that the whole chunk is written."""


class AttemptCounter:
    """Counts in this process; on Ray, as an actor."""

    def __init__(self) -> None:
        """Starts without counts."""
        self._begun: dict[str, Counter[str]] = {}

    def begun(self, chunk: str) -> dict[str, int]:
        """See `Attempts`."""
        return dict(self._begun.get(chunk, {}))

    def begin(self, chunk: str, part: str) -> None:
        """See `Attempts`."""
        self._begun.setdefault(chunk, Counter())[part] += 1

    def end(self, chunk: str, part: str | None = None) -> None:
        """See `Attempts`."""
        if part is None:
            self._begun.pop(chunk, None)
        else:
            self._begun.setdefault(chunk, Counter())[part] = 0


class RemoteAttempts:
    """An `AttemptCounter` that runs as a Ray actor."""

    def __init__(self, actor: Any) -> None:
        """Keeps the handle of the actor."""
        self._actor = actor

    @classmethod
    def start(cls) -> RemoteAttempts:
        """Starts the actor; it lives as long as its handles."""
        import ray

        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        return cls(ray.remote(AttemptCounter).options(**options).remote())

    def begun(self, chunk: str) -> dict[str, int]:
        """See `Attempts`."""
        import ray

        found: dict[str, int] = ray.get(self._actor.begun.remote(chunk))
        return found

    def begin(self, chunk: str, part: str) -> None:
        """See `Attempts`."""
        import ray

        ray.get(self._actor.begin.remote(chunk, part))

    def end(self, chunk: str, part: str | None = None) -> None:
        """See `Attempts`."""
        import ray

        ray.get(self._actor.end.remote(chunk, part))


_WHOLE: Final = "whole"


def score_surviving(attempts: Attempts, chunk: str, count: int, score: Score) -> list[Outcome]:
    """Scores the images of a chunk; those that end their worker get an error instead.

    Args:
        attempts: What was begun before. The caller ends the chunk once it is written.
        chunk: Name of the chunk.
        count: Number of images.
        score: Scores some of them; it may end the process.

    Returns:
        One outcome per image. A chunk that only ended its workers as a whole is scored image by image: its scores may
        then differ in the last digit from those of whole batches.
    """
    begun = attempts.begun(chunk)
    deaths = begun.get(_WHOLE, 0)
    is_apart = deaths >= 2 * DEATHS
    alone = _one_by_one(attempts, chunk, count, score, begun, again=is_apart) if deaths >= DEATHS else {}
    if is_apart:
        return [alone[number] for number in range(count)]
    attempts.begin(chunk, _WHOLE)
    try:
        return _together(count, score, alone)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    alone = _one_by_one(attempts, chunk, count, score, attempts.begun(chunk), again=True)
    try:
        return _together(count, score, alone)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return [alone[number] for number in range(count)]


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is used up, of the machine or of a GPU."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MEMORY_TEXTS)
    )


def _together(count: int, score: Score, alone: Mapping[int, Outcome]) -> list[Outcome]:
    """Scores all images but those that failed alone in their usual batches."""
    failed = {number: found for number, found in alone.items() if _is_fatal(found)}
    kept = [number for number in range(count) if number not in failed]
    found = dict(zip(kept, score(kept), strict=True)) if kept else {}
    return [failed[number] if number in failed else found[number] for number in range(count)]


def _is_fatal(outcome: Outcome) -> bool:
    return isinstance(outcome, ImageError) and outcome.kind in ("out_of_memory", "worker_died")


def _one_by_one(
    attempts: Attempts, chunk: str, count: int, score: Score, begun: Mapping[str, int], *, again: bool
) -> dict[int, Outcome]:
    """Scores each image alone; those that have ended well before are left out, unless they are wanted `again`."""
    found: dict[int, Outcome] = {}
    for number in range(count):
        part = str(number)
        before = begun.get(part)
        if before is not None and before >= DEATHS:
            found[number] = ImageError("worker_died", _DIED)
            continue
        if before == 0 and not again:
            continue
        attempts.begin(chunk, part)
        try:
            (found[number],) = score([number])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            found[number] = ImageError("out_of_memory", _ALONE)
        attempts.end(chunk, part)
    return found
