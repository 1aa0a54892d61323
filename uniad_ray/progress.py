"""Progress of a job: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import math
import sys
import time
from types import TracebackType
from typing import Final, NoReturn, Self, TextIO

from tqdm import tqdm

LOG_INTERVAL_SECONDS = 10.0
_FEWEST_SECONDS: Final = 5.0
_LEAST_SHARE: Final = 0.02
"""Seconds, and share of the images, after which the rate tells how much time is left."""
_ALMOST_DONE: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, almost done{postfix}]"

_logger = logging.getLogger(__name__)


class Progress:
    """Tracks the images, rate, errors and remaining time of one job."""

    def __init__(self, task: str, total: int, *, stream: TextIO | None = None) -> None:
        """Starts the clock.

        Args:
            task: Name of the job, such as `scoring`.
            total: Number of images.
            stream: Stream for the bar; default stderr.
        """
        self._task = task
        self._total = total
        self._stream = stream or sys.stderr
        self._done = 0
        self._errors = 0
        self._phase = ""
        self._logged_at = -1
        self._started = self._logged = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Self:
        """Opens the bar if the stream is a terminal."""
        if self._stream.isatty():
            self._bar = tqdm(total=self._total, desc=self._task, unit="image", file=self._stream, dynamic_ncols=True)
        elif self._total:
            _logger.info("%s: %d images", self._task, self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the bar, or logs the last line; also after an error."""
        if self._bar is not None:
            self._bar.close()
        elif self._total and self._done != self._logged_at:
            _logger.info(self.line())

    def say(self, phase: str) -> None:
        """Names what the job does now, such as `calibration`; the next line shows it.

        Args:
            phase: A few words; empty if the job has no phases.
        """
        if phase != self._phase:
            self._phase = phase
            if self._bar is not None:
                self._bar.set_description(self._named, refresh=True)

    def advance(self, images: int, errors: int = 0) -> None:
        """Counts finished images.

        Args:
            images: Number of images finished since the last call.
            errors: Number of those that failed.
        """
        self._done += images
        self._errors += errors
        if self._bar is not None:
            if self._done >= self._total:
                self._bar.bar_format = _ALMOST_DONE
            self._bar.update(images)
            self._bar.set_postfix(errors=self._errors)
        elif time.monotonic() - self._logged >= LOG_INTERVAL_SECONDS:
            self._logged = time.monotonic()
            self._logged_at = self._done
            _logger.info(self.line())

    def line(self) -> str:
        """Returns the state as text, such as `scoring: 640 of 1000 images, 41.2 images/s, 0 errors, 9 s left`.

        The time left is missing before it is known, and once all images are counted: then it is the job's last step.
        """
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = self._done / seconds
        line = f"{self._named}: {self._done} of {self._total} images, {rate:.1f} images/s, {self._errors} errors"
        if self._done >= self._total or self._done < _LEAST_SHARE * self._total or seconds < _FEWEST_SECONDS:
            return line
        return f"{line}, {math.ceil((self._total - self._done) / rate)} s left"

    @property
    def _named(self) -> str:
        return f"{self._task}, {self._phase}" if self._phase else self._task
