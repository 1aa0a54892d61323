from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from uniad_ray.errors import CaptionError, ImageError
from uniad_ray.scoring.online_scorer import FirstVerdict
from uniad_ray.scoring.scorer import Verdict
from uniad_ray.serving.replica.captions import Completed, TextsWithinDeadline
from uniad_ray.serving.settings import EngineSettings


def verdict(score: float) -> Verdict:
    return Verdict(score, 2.0, {"patch": score}, {"patch": score}, None, ())


FIRST = FirstVerdict(verdict(1.0), "awaited", None)  # type: ignore[arg-type] # only handed on


@dataclass
class FakeScorer:
    """Stands for an OnlineScorer: takes as long as it is told, or fails, and calls everything 9."""

    seconds: float = 0.0
    error: Exception | None = None
    asked: int = 0
    threads: set[str] = field(default_factory=set)

    def ask(self, awaited: Any) -> str:
        assert awaited == "awaited"
        self.asked += 1
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return "perception"

    def finish(self, awaited: Any, perception: Any) -> Verdict:
        assert (awaited, perception) == ("awaited", "perception")
        self.threads.add(threading.current_thread().name.partition("_")[0])
        return verdict(9.0)


class Clock:
    """The real clock, and as much more as a test adds."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def texts(clock: Clock | None = None, **engine: Any) -> TextsWithinDeadline:
    settings = EngineSettings.model_validate({"deadline_seconds": 0.2, **engine})
    return TextsWithinDeadline(settings, computing=ThreadPoolExecutor(1, "computing"), clock=clock or Clock())


async def complete(
    asker: TextsWithinDeadline,
    scorer: FakeScorer,
    first: FirstVerdict = FIRST,
    unavailable: str | None = None,
    *,
    seconds: float = 0.2,
    clock: Clock | None = None,
) -> Completed:
    now = (clock or Clock())()
    return await asker.complete(scorer, first, now + seconds, unavailable)  # type: ignore[arg-type]


def score(completed: Completed) -> float:
    assert isinstance(completed.verdict, Verdict)
    return completed.verdict.score


def test_texts_in_time_give_the_verdict_of_all_experts_computed_where_networks_run() -> None:
    scorer = FakeScorer()
    completed = asyncio.run(complete(texts(), scorer))
    assert (score(completed), completed.reason) == (9.0, None)
    assert scorer.threads == {"computing"}


def test_after_the_deadline_the_verdict_comes_without() -> None:
    started = time.monotonic()
    completed = asyncio.run(complete(texts(), FakeScorer(seconds=1.0)))
    assert (score(completed), completed.reason) == (1.0, "no text within 0.2 seconds")
    assert time.monotonic() - started < 1.9  # asyncio.run waits for what has not come to its end


def test_a_model_that_fails_costs_its_experts_alone_and_tells_the_caller_nothing_of_the_inside() -> None:
    scorer = FakeScorer(error=CaptionError("http://gpu-1:8000/v1 cannot be reached"))
    completed = asyncio.run(complete(texts(), scorer))
    assert (score(completed), completed.reason) == (1.0, "the model that writes texts does not answer")


def test_what_was_never_awaited_or_cannot_be_asked_for_is_not() -> None:
    scorer = FakeScorer()
    final = FirstVerdict(verdict(1.0), None, None)
    assert asyncio.run(complete(texts(), scorer, final)) == Completed(verdict(1.0))
    found = asyncio.run(complete(texts(), scorer, unavailable="no engine is configured"))
    assert found == Completed(verdict(1.0), "no engine is configured")
    broken = FirstVerdict(ImageError("not_scorable", "no finite score"), "awaited", None)  # type: ignore[arg-type]
    assert asyncio.run(complete(texts(), scorer, broken)).verdict is broken.verdict
    assert scorer.asked == 0


def test_where_nothing_can_be_said_without_texts_the_image_has_an_error() -> None:
    silent = FirstVerdict(None, "awaited", None)  # type: ignore[arg-type]
    found = asyncio.run(complete(texts(), FakeScorer(error=CaptionError("x")), silent)).verdict
    assert isinstance(found, ImageError)
    assert found.kind == "no_text"
    assert score(asyncio.run(complete(texts(), FakeScorer(), silent))) == 9.0


def test_a_model_that_is_away_is_left_alone_for_a_while() -> None:
    clock = Clock()

    async def run() -> None:
        asker = texts(clock)
        scorer = FakeScorer(error=CaptionError("away"))
        for _ in range(3):
            await complete(asker, scorer, clock=clock)
        assert scorer.asked == 3
        scorer.error = None
        assert (await complete(asker, scorer, clock=clock)).reason == "the model that writes texts does not answer"
        assert scorer.asked == 3
        clock.ahead += 11
        assert score(await complete(asker, scorer, clock=clock)) == 9.0

    asyncio.run(run())


def test_a_success_in_between_keeps_the_model_asked() -> None:
    async def run() -> None:
        asker = texts()
        scorer = FakeScorer()
        for number in range(9):
            scorer.error = CaptionError("now and then") if number % 3 else None
            await complete(asker, scorer)
        assert scorer.asked == 9

    asyncio.run(run())


def test_more_images_than_may_wait_are_judged_without_and_the_others_come_to_their_end() -> None:
    async def run() -> list[Completed]:
        asker = texts(most_waiting=2, deadline_seconds=30)
        scorer = FakeScorer(seconds=0.05)
        return list(await asyncio.gather(*(complete(asker, scorer, seconds=30) for _ in range(5))))

    found = asyncio.run(run())
    assert [score(completed) for completed in found] == [9.0, 9.0, 1.0, 1.0, 1.0]
    assert found[-1].reason == "the model that writes texts has too much to do"
