"""Shares the counting of pixels among Ray workers, if there are enough images to pay for the start of Ray."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

from uniad_ray.evaluation.pixel_counts import LabelledChunk, PixelCounts, PixelTask, count_chunks
from uniad_ray.metrics.wording import count
from uniad_ray.pipelines.cluster.session import ray_session, unwrap
from uniad_ray.pipelines.cluster.sizing import Cluster

_logger = logging.getLogger(__name__)

SHARED_FROM: Final = 20_000
"""Labelled images of a category from which on Ray is started. One process counts fewer in the time that Ray takes to
start on a busy machine: it needs about 1 ms for an image of 256 pixels."""
_CHUNKS_OF_A_TASK: Final = 8
_AHEAD: Final = 4
"""Results that may wait for an earlier one, per worker."""


class SharedCounter:
    """Counts pixels in this process, or in Ray tasks; the counts are equal to the last bit.

    A context manager, which starts Ray when it is first needed, and ends it. An instance is a
    `uniad_ray.evaluation.pixel_counts.CountChunks`.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        """Starts nothing yet.

        Args:
            workers: Number of tasks that run at the same time; 1 counts in this process. By default, the number of
                images decides.
            address: Ray cluster to join; by default, Ray starts on this machine.
        """
        self._workers = workers
        self._address = address
        self._session = contextlib.ExitStack()
        self._cluster: Cluster | None = None

    def __enter__(self) -> Self:
        """Starts nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the Ray that was started."""
        self._session.close()

    def __call__(self, task: PixelTask, chunks: Sequence[LabelledChunk]) -> Iterator[PixelCounts]:
        """Counts chunks, and yields their results in order.

        Args:
            task: What is the same for all chunks.
            chunks: Chunks of one category.

        Raises:
            ArchiveError: The archive or a file of the run is corrupt.
            RunError: Ray cannot be started or joined.
            StoreError: A file cannot be read.
        """
        if not chunks:
            return iter(())
        images = sum(len(chunk.images) for chunk in chunks)
        is_shared, reason = self._decide(images)
        if not is_shared:
            _logger.info("pixels of %s: counted in this process, %s", count(images, "image"), reason)
            return count_chunks(task, chunks)
        if self._cluster is None:
            self._cluster = self._session.enter_context(ray_session(self._address))
        workers = min(self._workers or self._cluster.physical_cpus, len(chunks))
        _logger.info("pixels of %s: counted by %s, %s", count(images, "image"), count(workers, "worker"), reason)
        return _on_ray(task, chunks, workers, self._cluster)

    def _decide(self, images: int) -> tuple[bool, str]:
        """Whether workers share the images, and why."""
        if self._workers is not None:
            return self._workers > 1, f"as --workers {self._workers} says"
        if self._cluster is not None:
            return True, "since Ray is running"
        if images >= SHARED_FROM:
            return True, f"since they are {SHARED_FROM:,} or more"
        return False, f"since they are under {SHARED_FROM:,}; --workers shares them"


def count_batch(task: PixelTask, chunks: Sequence[LabelledChunk]) -> list[PixelCounts]:
    """Counts some chunks, as a Ray task."""
    return list(count_chunks(task, chunks))


def _on_ray(task: PixelTask, chunks: Sequence[LabelledChunk], workers: int, cluster: Cluster) -> Iterator[PixelCounts]:
    import ray

    # Each task opens the run; several chunks share that.
    size = max(1, min(_CHUNKS_OF_A_TASK, math.ceil(len(chunks) / (2 * workers))))
    batches = [chunks[start : start + size] for start in range(0, len(chunks), size)]
    shared = ray.put(task)
    remote = ray.remote(count_batch).options(num_cpus=cluster.cpu_share, max_retries=3)
    try:
        for found in _in_order(lambda batch: remote.remote(shared, batch), batches, workers):
            yield from found
    except Exception as error:
        raise unwrap(error) from error


def _in_order(
    submit: Callable[[Sequence[LabelledChunk]], Any], batches: Sequence[Sequence[LabelledChunk]], workers: int
) -> Iterator[list[PixelCounts]]:
    """Runs at most `workers` tasks at a time, and yields their results in the order of the batches."""
    import ray

    left = deque(batches)
    started: deque[Any] = deque()
    running: set[Any] = set()
    while left or started:
        while left and len(running) < workers and len(started) < _AHEAD * workers:
            started.append(submit(left.popleft()))
            running.add(started[-1])
        if started[0] in running:
            ready, _ = ray.wait(list(running), num_returns=1)
            running -= set(ready)
        else:
            yield ray.get(started.popleft())
