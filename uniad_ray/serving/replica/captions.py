"""Completes verdicts with texts, within a deadline; where there are none in time, the verdict stands without."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from uniad_ray.errors import ImageError, UniadRayError
from uniad_ray.scoring.online_scorer import CaptionCompleter, FirstVerdict, OnlineScorer
from uniad_ray.scoring.scorer import Verdict
from uniad_ray.serving.settings import EngineSettings

_logger = logging.getLogger(__name__)
_FAILURES: Final = 3
_PAUSE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Completed:
    """The verdict that is given.

    Attributes:
        verdict: With texts where they came in time.
        reason: Why experts that need texts are left out; None where all took part.
    """

    verdict: Verdict | ImageError
    reason: str | None = None


class TextsWithinDeadline:
    """Has texts written for single images and judges with them.

    After three failures in a row nothing is asked for ten seconds, so that a model that is away delays no verdict.
    """

    def __init__(
        self, engine: EngineSettings, *, computing: Executor, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Starts threads as they are needed.

        Args:
            engine: What the operator decided.
            computing: Where networks run.
            clock: Seconds that never go back.
        """
        self._engine = engine
        self._computing = computing
        self._clock = clock
        self._asking = ThreadPoolExecutor(engine.most_waiting, "asking")
        self._waiting = 0
        self._failures = 0
        self._paused_until = -_PAUSE_SECONDS

    async def complete(
        self, scorer: OnlineScorer, first: FirstVerdict, deadline: float, unavailable: str | None
    ) -> Completed:
        """The verdict of all experts, or of those that need no texts.

        Args:
            scorer: Of the image's bundle.
            first: What it said without texts.
            deadline: When the verdict is to be given, on the clock.
            unavailable: Why there is nothing to ask; None where there is.
        """
        if first.awaited is None or isinstance(first.verdict, ImageError):
            return Completed(_certain(first, "no verdict"))
        reason = unavailable or self._refusal()
        if reason is None:
            self._waiting += 1
            written = asyncio.get_running_loop().create_task(self._judge_with_texts(scorer, first.awaited))
            # A thread cannot be interrupted: it goes on past the deadline, and counts until it comes to its end.
            written.add_done_callback(self._finished)
            done, _ = await asyncio.wait({written}, timeout=max(0.0, deadline - self._clock()))
            if not done:
                self._failures += 1
                self._pause()
                reason = f"no text within {self._engine.deadline_seconds:g} seconds"
            elif written.exception() is None:
                self._failures = 0
                return Completed(written.result())
            else:
                reason = "the model that writes texts does not answer"
        return Completed(_certain(first, reason), reason)

    def close(self) -> None:
        """Lets the threads end."""
        self._asking.shutdown(wait=False, cancel_futures=True)

    async def _judge_with_texts(self, scorer: OnlineScorer, awaited: CaptionCompleter) -> Verdict | ImageError:
        loop = asyncio.get_running_loop()
        perception = await loop.run_in_executor(self._asking, scorer.ask, awaited)
        return await loop.run_in_executor(self._computing, scorer.finish, awaited, perception)

    def _refusal(self) -> str | None:
        if self._clock() < self._paused_until:
            return "the model that writes texts does not answer"
        if self._waiting >= self._engine.most_waiting:
            return "the model that writes texts has too much to do"
        return None

    def _finished(self, written: asyncio.Task[Verdict | ImageError]) -> None:
        self._waiting -= 1
        error = None if written.cancelled() else written.exception()
        if error is None:
            return
        self._failures += 1
        self._pause()
        level = logging.WARNING if isinstance(error, UniadRayError) else logging.ERROR
        _logger.log(level, "a verdict is given without texts: %s", error)

    def _pause(self) -> None:
        if self._failures >= _FAILURES:
            self._paused_until = self._clock() + _PAUSE_SECONDS
            self._failures = 0


def _certain(first: FirstVerdict, reason: str) -> Verdict | ImageError:
    return first.verdict or ImageError("no_text", f"the bundle says nothing without texts: {reason}")
