"""Chunks whose images end their worker: each death loses what the worker knew, and another worker goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from uniad_ray.errors import ImageError
from uniad_ray.pipelines.score.attempts import AttemptCounter, Attempts, Outcome, score_surviving


class DiedError(BaseException):
    """Stands for SIGKILL: nothing of the package catches it."""


class Worker:
    """Scores images by their number and the size of their batch; some end it."""

    def __init__(self, deadly: set[int], *, most: int = 100, error: Callable[[], BaseException] = DiedError) -> None:
        self.deadly, self.most, self.error = deadly, most, error
        self.deaths = 0

    def score(self, numbers: Sequence[int]) -> list[Outcome]:
        if self.deadly & set(numbers) or len(numbers) > self.most:
            self.deaths += 1
            raise self.error()
        return [ImageError(f"score of {number} in {len(numbers)}", "") for number in numbers]


def outcomes(worker: Worker, attempts: Attempts, count: int = 5) -> list[str]:
    """Repeats a chunk with new workers until one ends it."""
    for _ in range(20):
        try:
            found = score_surviving(attempts, "chunk", count, worker.score)
        except DiedError:
            continue
        attempts.end("chunk")
        return [outcome.kind for outcome in found if isinstance(outcome, ImageError)]
    raise AssertionError("the chunk never ends")


def test_image_that_ends_its_worker_costs_itself_alone() -> None:
    worker, attempts = Worker({1}), AttemptCounter()
    expected = ["score of 0 in 4", "worker_died", "score of 2 in 4", "score of 3 in 4", "score of 4 in 4"]
    assert outcomes(worker, attempts) == expected
    # Twice with its chunk, twice alone.
    assert worker.deaths == 4
    assert attempts.begun("chunk") == {}


def test_several_images_that_end_their_worker() -> None:
    worker = Worker({0, 4})
    assert outcomes(worker, AttemptCounter()) == [
        "worker_died",
        "score of 1 in 3",
        "score of 2 in 3",
        "score of 3 in 3",
        "worker_died",
    ]
    assert worker.deaths == 6


@pytest.mark.parametrize("deaths", [1, 2, 3])
def test_deaths_for_another_reason_change_no_score(deaths: int) -> None:
    worker, attempts = Worker(set()), AttemptCounter()
    for _ in range(deaths):
        attempts.begin("chunk", "whole")
    assert outcomes(worker, attempts) == [f"score of {number} in 5" for number in range(5)]


def test_chunk_that_only_ends_its_workers_as_a_whole_is_scored_image_by_image() -> None:
    worker = Worker(set(), most=3)
    assert outcomes(worker, AttemptCounter()) == [f"score of {number} in 1" for number in range(5)]


@pytest.mark.parametrize(
    "error",
    [MemoryError, lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 GB")],
)
def test_error_of_memory_costs_its_image_alone_without_a_death(error: Callable[[], BaseException]) -> None:
    worker = Worker({2}, error=error)
    found = score_surviving(AttemptCounter(), "chunk", 4, worker.score)
    assert [outcome.kind for outcome in found if isinstance(outcome, ImageError)] == [
        "score of 0 in 3",
        "score of 1 in 3",
        "out_of_memory",
        "score of 3 in 3",
    ]
    whole = Worker(set(), most=1, error=error)
    found = score_surviving(AttemptCounter(), "chunk", 2, whole.score)
    assert [str(getattr(outcome, "kind", "")) for outcome in found] == ["score of 0 in 1", "score of 1 in 1"]


def test_other_errors_pass() -> None:
    worker = Worker({0}, error=lambda: RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        score_surviving(AttemptCounter(), "chunk", 2, worker.score)
