"""Reads the runs that the endpoint shows; keeps what is used again, within bounds: a finished run never changes."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, Final

import numpy as np

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ImageError, RunError, UserError
from uniad_ray.runs.plan import RunChunk
from uniad_ray.runs.reader import RunReader, SourceRow
from uniad_ray.runs.reviews import Mark, MarkLog
from uniad_ray.runs.scored_images import COLUMNS, scored_images
from uniad_ray.serving.http.problems import ProblemError
from uniad_ray.serving.runs.cache import BoundedCache
from uniad_ray.serving.runs.category_scores import CategoryScores
from uniad_ray.serving.runs.pictures import large_picture, thumbnail

_logger = logging.getLogger(__name__)
MAX_RUNS: Final = 32
MAX_ROWS: Final = 4_000_000
"""Rows whose scores are kept, of all runs together; about 300 MB."""
MAX_SOURCE_BYTES: Final = 128 << 20
MAX_THUMBNAIL_BYTES: Final = 32 << 20
_READ_THREADS: Final = 16
_ROW_COLUMNS: Final = (
    "row_key",
    "source_uri",
    "category",
    "split",
    "label",
    "defect_kind",
    "status",
    "error_kind",
    "error",
    "experts",
    "score",
    "threshold",
    "decision",
    "reasons",
)


class OpenRun:
    """A finished run.

    Attributes:
        name: What it is called here.
        reader: Reads it.
        marks: Its marks.
        created_at: When its last attempt started, UTC, ISO 8601; None where no attempt is recorded.
    """

    def __init__(self, name: str, location: Location) -> None:
        """Reads manifest and list of chunks.

        Raises:
            UserError: There is no run, it is not finished, or it is damaged.
        """
        self.name = name
        self.reader = RunReader(location)
        self.marks = MarkLog(location)
        self.created_at = _created_at(self.reader)


class OpenCategory:
    """One category of a finished run.

    Attributes:
        run: The run.
        name: The category.
        images: Its images, with what is kept in memory of each.
        scores: Their scores, sorted.
    """

    def __init__(self, run: OpenRun, name: str) -> None:
        """Reads the scores.

        Raises:
            UserError: A file of the run is missing or damaged.
        """
        self.run = run
        self.name = name
        self.images = scored_images(name, run.reader.scores(COLUMNS, categories=[name]))
        self.scores = CategoryScores(self.images)
        self._chunks = [chunk for chunk in run.reader.chunks if chunk.category == name]
        self._starts = [0, *accumulate(chunk.rows for chunk in self._chunks)]

    def place(self, position: int) -> tuple[RunChunk, int]:
        """The chunk that holds a row, and the row's place in it."""
        index = bisect_right(self._starts, position) - 1
        return self._chunks[index], position - self._starts[index]

    def chunk_of(self, row_key: str) -> RunChunk:
        """The chunk that holds an image.

        Raises:
            ProblemError: `not-found`.
        """
        position = self.images.position(row_key)
        if position is None:
            raise ProblemError("not-found", f"run {self.run.name!r} has no such image in category {self.name!r}")
        return self.place(position)[0]


class RunBrowser:
    """Runs by name. Every method reads files and may take a while: none is for the event loop."""

    def __init__(self, runs: Mapping[str, str]) -> None:
        """Names the runs; nothing is read yet.

        Args:
            runs: Root of each run, by the name that callers know it under.
        """
        self._locations = {name: Location.parse(uri) for name, uri in runs.items()}
        self._runs: BoundedCache[OpenRun] = BoundedCache(MAX_RUNS)
        self._categories: BoundedCache[OpenCategory] = BoundedCache(MAX_ROWS, lambda opened: len(opened.images))
        self._sources: BoundedCache[dict[str, SourceRow]] = BoundedCache(MAX_SOURCE_BYTES, _bytes_of)
        self._thumbnails: BoundedCache[bytes] = BoundedCache(MAX_THUMBNAIL_BYTES, len)

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._locations)

    def open(self, name: str) -> OpenRun:
        """A run.

        Raises:
            ProblemError: `not-found`, or `store-unavailable` where it is not finished, damaged or out of reach.
        """
        if name not in self._locations:
            raise ProblemError("not-found", f"no run {name[:100]!r} is shown here; GET /v1/runs lists those that are")
        with _readable(f"run {name!r}"):
            return self._runs.get(name, lambda: OpenRun(name, self._locations[name]))

    def category(self, name: str, category: str) -> OpenCategory:
        """A category of a run, with its scores.

        Raises:
            ProblemError: As `open`.
        """
        run = self.open(name)
        if category not in run.reader.manifest.categories:
            raise ProblemError("not-found", f"run {name!r} has no category {category[:100]!r}")
        with _readable(f"run {name!r}"):
            return self._categories.get((name, category), lambda: OpenCategory(run, category))

    def marks(self, opened: OpenCategory) -> dict[int, Mark]:
        """The marks that are there now on the rows of a category, by position.

        Raises:
            ProblemError: `store-unavailable`.
        """
        with _readable(f"the marks of run {opened.run.name!r}"):
            return opened.scores.by_position(opened.run.marks.read())

    def rows(self, opened: OpenCategory, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Some rows of a category with all that is shown of them, in the order given.

        Raises:
            ProblemError: `store-unavailable`.
        """
        rows_of: dict[RunChunk, list[int]] = {}
        for chunk, row in map(opened.place, positions):
            rows_of.setdefault(chunk, []).append(row)

        def read(chunk: RunChunk) -> dict[tuple[RunChunk, int], dict[str, Any]]:
            table = opened.run.reader.chunk_scores(chunk, _ROW_COLUMNS).take(rows_of[chunk])
            return {(chunk, row): values for row, values in zip(rows_of[chunk], table.to_pylist(), strict=True)}

        with _readable(f"run {opened.run.name!r}"), ThreadPoolExecutor(_READ_THREADS) as pool:
            found = {place: values for part in pool.map(read, rows_of) for place, values in part.items()}
        return [found[opened.place(position)] for position in positions]

    def thumbnail(self, opened: OpenCategory, row_key: str) -> bytes:
        """A small JPEG of an image.

        Raises:
            ProblemError: `not-found`, `unusable-image` or `store-unavailable`.
        """
        key = (opened.run.name, opened.name, row_key)
        return self._thumbnails.get(key, lambda: _drawn(thumbnail, self._source(opened, row_key)))

    def image(self, opened: OpenCategory, row_key: str) -> bytes:
        """A large JPEG of an image.

        Raises:
            ProblemError: `not-found`, `unusable-image` or `store-unavailable`.
        """
        return _drawn(large_picture, self._source(opened, row_key))

    def anomaly_map(self, opened: OpenCategory, row_key: str) -> np.ndarray:
        """The kept map of an image: float32, shape (h, w), on the calibrated scale.

        Raises:
            ProblemError: `not-found` or `store-unavailable`.
        """
        chunk, reader = opened.chunk_of(row_key), opened.run.reader
        kept = reader.manifest.plan.options.maps
        with _readable(f"run {opened.run.name!r}"):
            maps = reader.chunk_maps(chunk) if kept == "all" else reader.maps(opened.name, [row_key])
        if row_key not in maps:
            raise ProblemError("not-found", f"run {opened.run.name!r} keeps no map of this image (--maps {kept})")
        return maps[row_key].astype(np.float32)

    def _source(self, opened: OpenCategory, row_key: str) -> SourceRow:
        chunk, reader = opened.chunk_of(row_key), opened.run.reader
        with _readable(f"the archive of run {opened.run.name!r}"):
            sources = self._sources.get(
                (opened.run.name, chunk.chunk), lambda: dict(reader.source_rows(chunk, with_images=True))
            )
        if row_key not in sources:
            raise ProblemError("not-found", "the archive does not hold the image any more")
        return sources[row_key]


def _drawn(draw: Callable[[SourceRow], bytes], source: SourceRow) -> bytes:
    try:
        return draw(source)
    except ImageError as error:
        raise ProblemError("unusable-image", f"the image cannot be shown: {error}") from error


def _bytes_of(sources: Mapping[str, SourceRow]) -> int:
    return sum(len(source.image or b"") + sum(len(mask.data) for mask in source.masks) for source in sources.values())


def _created_at(reader: RunReader) -> str | None:
    try:
        timings = reader.timings()
    except RunError:
        return None
    return timings[-1].started_at if timings else None


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """What cannot be read is a problem of the endpoint's; where things lie is for its logs alone."""
    try:
        yield
    except UserError as error:
        _logger.warning("%s cannot be read: %s", what, error)
        raise ProblemError(
            "store-unavailable", f"{what} is unfinished, damaged or out of reach; the logs have the reason"
        ) from error
