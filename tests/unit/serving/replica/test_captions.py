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
from uniad_ray.serving.replica.captions import CaptionsWithinDeadline, Completed
from uniad_ray.serving.settings import EngineSettings


def verdict(score: float) -> Verdict:
    return Verdict(score, 2.0, {"patch": score}, {"patch": score}, None, ())


FIRST = FirstVerdict(verdict(1.0), "awaited", None)  # type: ignore[arg-type] # only passed on


@dataclass
class FakeScorer:
    """Fake OnlineScorer that waits until it may answer, or has an error; its final score is always 9."""

    may_answer: threading.Event | None = None
    error: Exception | None = None
    asked: int = 0
    threads: set[str] = field(default_factory=set)

    def ask(self, awaited: Any) -> str:
        assert awaited == "awaited"
        self.asked += 1
        assert self.may_answer is None or self.may_answer.wait(60)
        if self.error is not None:
            raise self.error
        return "features"

    def finish(self, awaited: Any, features: Any) -> Verdict:
        assert (awaited, features) == ("awaited", "features")
        self.threads.add(threading.current_thread().name.partition("_")[0])
        return verdict(9.0)


class Clock:
    """The real clock plus an offset set by the test."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def captions(clock: Clock | None = None, **engine: Any) -> CaptionsWithinDeadline:
    settings = EngineSettings.model_validate({"deadline_seconds": 0.2, **engine})
    return CaptionsWithinDeadline(settings, computing=ThreadPoolExecutor(1, "computing"), clock=clock or Clock())


async def complete(
    asker: CaptionsWithinDeadline,
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


def test_captions_in_time_complete_the_verdict() -> None:
    scorer = FakeScorer()
    completed = asyncio.run(complete(captions(), scorer))
    assert (score(completed), completed.reason) == (9.0, None)
    assert scorer.threads == {"computing"}


def test_verdict_without_captions_after_deadline() -> None:
    async def complete_before_the_captions() -> Completed:
        may_answer = threading.Event()
        try:
            return await complete(captions(), FakeScorer(may_answer))
        finally:
            may_answer.set()

    completed = asyncio.run(complete_before_the_captions())
    assert (score(completed), completed.reason) == (1.0, "no text within 0.2 seconds")


def test_failed_model_is_left_out_without_details() -> None:
    scorer = FakeScorer(error=CaptionError("http://gpu-1:8000/v1 cannot be reached"))
    completed = asyncio.run(complete(captions(), scorer))
    assert (score(completed), completed.reason) == (1.0, "the captioning model does not respond")


def test_no_captions_requested_if_not_needed() -> None:
    scorer = FakeScorer()
    final = FirstVerdict(verdict(1.0), None, None)
    assert asyncio.run(complete(captions(), scorer, final)) == Completed(verdict(1.0))
    found = asyncio.run(complete(captions(), scorer, unavailable="no engine is configured"))
    assert found == Completed(verdict(1.0), "no engine is configured")
    broken = FirstVerdict(ImageError("not_scorable", "no finite score"), "awaited", None)  # type: ignore[arg-type]
    assert asyncio.run(complete(captions(), scorer, broken)).verdict is broken.verdict
    assert scorer.asked == 0


def test_image_error_if_all_experts_need_captions() -> None:
    silent = FirstVerdict(None, "awaited", None)  # type: ignore[arg-type]
    found = asyncio.run(complete(captions(), FakeScorer(error=CaptionError("x")), silent)).verdict
    assert isinstance(found, ImageError)
    assert found.kind == "no_text"
    assert score(asyncio.run(complete(captions(), FakeScorer(), silent))) == 9.0


def test_failing_model_is_paused() -> None:
    clock = Clock()

    async def run() -> None:
        asker = captions(clock)
        scorer = FakeScorer(error=CaptionError("away"))
        for _ in range(3):
            await complete(asker, scorer, clock=clock)
        assert scorer.asked == 3
        scorer.error = None
        assert (await complete(asker, scorer, clock=clock)).reason == "the captioning model does not respond"
        assert scorer.asked == 3
        clock.ahead += 11
        assert score(await complete(asker, scorer, clock=clock)) == 9.0

    asyncio.run(run())


def test_success_resets_failure_count() -> None:
    async def run() -> None:
        asker = captions()
        scorer = FakeScorer()
        for number in range(9):
            scorer.error = CaptionError("now and then") if number % 3 else None
            await complete(asker, scorer)
        assert scorer.asked == 9

    asyncio.run(run())


def test_excess_images_are_scored_without_captions() -> None:
    async def run() -> list[Completed]:
        asker = captions(most_waiting=2, deadline_seconds=30)
        may_answer = threading.Event()
        scorer = FakeScorer(may_answer)
        all_of_them = asyncio.gather(*(complete(asker, scorer, seconds=30) for _ in range(5)))
        await asyncio.sleep(0)  # starts all of them
        may_answer.set()
        return list(await all_of_them)

    found = asyncio.run(run())
    assert [score(completed) for completed in found] == [9.0, 9.0, 1.0, 1.0, 1.0]
    assert found[-1].reason == "the captioning model is overloaded"
