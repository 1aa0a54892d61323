"""Complete verdicts with captions within a deadline, or return them without."""

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
_NO_RESPONSE: Final = "the captioning model does not respond"


@dataclass(frozen=True)
class Completed:
    """The final verdict.

    Attributes:
        verdict: The verdict of all experts if the captions arrived in time, else of the others.
        reason: Why experts that need captions are left out; None if none are.
    """

    verdict: Verdict | ImageError
    reason: str | None = None


class CaptionsWithinDeadline:
    """Requests captions of single images and scores the images with them.

    After three consecutive failures, no captions are requested for ten seconds: an unavailable model delays no verdict.
    """

    def __init__(
        self, engine: EngineSettings, *, computing: Executor, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare the threads; each starts when it is needed.

        Args:
            engine: Settings of the vision-language model.
            computing: Executor that runs the networks.
            clock: Monotonic clock, in seconds.
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
        """Return the verdict of all experts, or of those that need no captions.

        Args:
            scorer: Scorer of the image's bundle.
            first: Its verdict without captions.
            deadline: Deadline of the verdict, on the clock.
            unavailable: Why there is no captioner; None if there is one.
        """
        if first.awaited is None or isinstance(first.verdict, ImageError):
            return Completed(_certain(first, "no verdict"))
        reason = unavailable or self._refusal()
        if reason is None:
            self._waiting += 1
            scored = asyncio.get_running_loop().create_task(self._score_with_captions(scorer, first.awaited))
            # A thread cannot be interrupted: it runs past the deadline, and counts until it ends.
            scored.add_done_callback(self._finished)
            done, _ = await asyncio.wait({scored}, timeout=max(0.0, deadline - self._clock()))
            if not done:
                self._failures += 1
                self._pause()
                reason = f"no text within {self._engine.deadline_seconds:g} seconds"
            elif scored.exception() is None:
                self._failures = 0
                return Completed(scored.result())
            else:
                reason = _NO_RESPONSE
        return Completed(_certain(first, reason), reason)

    def close(self) -> None:
        """Release the threads."""
        self._asking.shutdown(wait=False, cancel_futures=True)

    async def _score_with_captions(self, scorer: OnlineScorer, completer: CaptionCompleter) -> Verdict | ImageError:
        loop = asyncio.get_running_loop()
        features = await loop.run_in_executor(self._asking, scorer.ask, completer)
        return await loop.run_in_executor(self._computing, scorer.finish, completer, features)

    def _refusal(self) -> str | None:
        if self._clock() < self._paused_until:
            return _NO_RESPONSE
        if self._waiting >= self._engine.most_waiting:
            return "the captioning model is overloaded"
        return None

    def _finished(self, scored: asyncio.Task[Verdict | ImageError]) -> None:
        self._waiting -= 1
        error = None if scored.cancelled() else scored.exception()
        if error is None:
            return
        self._failures += 1
        self._pause()
        level = logging.WARNING if isinstance(error, UniadRayError) else logging.ERROR
        _logger.log(level, "returning a verdict without texts: %s", error)

    def _pause(self) -> None:
        if self._failures >= _FAILURES:
            self._paused_until = self._clock() + _PAUSE_SECONDS
            self._failures = 0


def _certain(first: FirstVerdict, reason: str) -> Verdict | ImageError:
    return first.verdict or ImageError("no_text", f"the bundle cannot score without texts: {reason}")
