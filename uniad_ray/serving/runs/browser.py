"""Read finished runs, with bounded caches: a finished run never changes."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate
from typing import Any, Final

import numpy as np

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import ImageError, RunError, UserError
from uniad_ray.perception.region import Region
from uniad_ray.runs.parts import Part
from uniad_ray.runs.plan import RunChunk
from uniad_ray.runs.reader import RunReader, SourceRow
from uniad_ray.runs.regions import region_of, value_range_of
from uniad_ray.runs.reviews import Mark, MarkLog
from uniad_ray.runs.scored_images import COLUMNS, scored_images
from uniad_ray.serving.http.problems import ProblemError
from uniad_ray.serving.runs.cache import BoundedCache
from uniad_ray.serving.runs.category_scores import CategoryScores
from uniad_ray.serving.runs.pictures import large_picture, thumbnail

_logger = logging.getLogger(__name__)
MAX_RUNS: Final = 32
MAX_ROWS: Final = 4_000_000
"""Maximum number of rows whose scores are cached, over all runs; about 300 MB."""
MAX_PARTS: Final = 200_000
"""Maximum number of cached parts, over all runs."""
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
    "metadata",
)


class OpenRun:
    """A finished run.

    Attributes:
        name: Its display name.
        reader: Its reader.
        marks: Its marks.
        created_at: Start of the last scoring, UTC, ISO 8601; None if no timings are recorded.
    """

    def __init__(self, name: str, location: Location) -> None:
        """Read the manifest and the list of chunks.

        Raises:
            UserError: The run does not exist, is not finished, or is corrupt.
        """
        self.name = name
        self.reader = RunReader(location)
        self.marks = MarkLog(location)
        self.created_at = _created_at(self.reader)


class OpenCategory:
    """One category of a finished run.

    Attributes:
        run: The run.
        name: Name of the category.
        images: Its images, with the columns kept in memory.
        scores: Their scores, sorted.
    """

    def __init__(self, run: OpenRun, name: str) -> None:
        """Read the scores.

        Raises:
            UserError: A file of the run is missing or corrupt.
        """
        self.run = run
        self.name = name
        self.images = scored_images(name, run.reader.scores(COLUMNS, categories=[name]))
        self.scores = CategoryScores(self.images)
        self._chunks = [chunk for chunk in run.reader.chunks if chunk.category == name]
        self._starts = [0, *accumulate(chunk.rows for chunk in self._chunks)]

    @cached_property
    def region(self) -> Region | None:
        """Part of the images that counts, by the bundle of the run; None if all of it does."""
        return region_of(self.run.reader, self.name)

    @cached_property
    def value_range(self) -> ValueRange | None:
        """Values of 16-bit images that become black and white, by the bundle of the run."""
        return value_range_of(self.run.reader, self.name)

    def place(self, position: int) -> tuple[RunChunk, int]:
        """Return the chunk that holds a row, and the row's index in it."""
        index = bisect_right(self._starts, position) - 1
        return self._chunks[index], position - self._starts[index]

    def chunk_of(self, row_key: str) -> RunChunk:
        """Return the chunk that holds an image.

        Raises:
            ProblemError: `not-found`.
        """
        position = self.images.position(row_key)
        if position is None:
            raise ProblemError("not-found", f"no such image in category {self.name!r} of run {self.run.name!r}")
        return self.place(position)[0]


class RunBrowser:
    """Runs by name. Every method reads files and may be slow: do not call it on the event loop."""

    def __init__(self, runs: Mapping[str, str]) -> None:
        """Name the runs; nothing is read yet.

        Args:
            runs: Root of each run, by display name.
        """
        self._locations = {name: Location.parse(uri) for name, uri in runs.items()}
        self._runs: BoundedCache[OpenRun] = BoundedCache(MAX_RUNS)
        self._categories: BoundedCache[OpenCategory] = BoundedCache(MAX_ROWS, lambda opened: len(opened.images))
        self._parts: BoundedCache[list[Part]] = BoundedCache(MAX_PARTS, len)
        self._sources: BoundedCache[dict[str, SourceRow]] = BoundedCache(MAX_SOURCE_BYTES, _bytes_of)
        self._thumbnails: BoundedCache[bytes] = BoundedCache(MAX_THUMBNAIL_BYTES, len)

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._locations)

    def open(self, name: str) -> OpenRun:
        """Open a run.

        Raises:
            ProblemError: `not-found`, or `store-unavailable` if it is unfinished, corrupt or unreachable.
        """
        if name not in self._locations:
            raise ProblemError("not-found", f"no run {name[:100]!r}; GET /v1/runs lists the runs")
        with _readable(f"run {name!r}"):
            return self._runs.get(name, lambda: OpenRun(name, self._locations[name]))

    def category(self, name: str, category: str) -> OpenCategory:
        """Open a category of a run, with its scores.

        Raises:
            ProblemError: As `open`.
        """
        run = self.open(name)
        if category not in run.reader.manifest.categories:
            raise ProblemError("not-found", f"no category {category[:100]!r} in run {name!r}")
        with _readable(f"run {name!r}"):
            return self._categories.get((name, category), lambda: OpenCategory(run, category))

    def parts(self, opened: OpenRun) -> list[Part]:
        """Return the verdicts of the parts of a run, sorted by serial.

        Raises:
            ProblemError: `store-unavailable`.
        """
        with _readable(f"the parts of run {opened.name!r}"):
            return self._parts.get(opened.name, opened.reader.parts)

    def marks(self, opened: OpenCategory) -> dict[int, Mark]:
        """Return the current marks of a category, by row position.

        Raises:
            ProblemError: `store-unavailable`.
        """
        with _readable(f"the marks of run {opened.run.name!r}"):
            return opened.scores.by_position(opened.run.marks.read())

    def rows(self, opened: OpenCategory, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Read rows of a category with all shown columns, in the given order.

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
        """Return a small JPEG of an image.

        Raises:
            ProblemError: `not-found`, `unusable-image` or `store-unavailable`.
        """
        key = (opened.run.name, opened.name, row_key)
        return self._thumbnails.get(key, lambda: self._thumbnail(opened, row_key))

    def image(self, opened: OpenCategory, row_key: str) -> bytes:
        """Return a large JPEG of an image.

        Raises:
            ProblemError: `not-found`, `unusable-image` or `store-unavailable`.
        """
        return _drawn(
            lambda source: large_picture(source, opened.region, opened.value_range), self._source(opened, row_key)
        )

    def anomaly_map(self, opened: OpenCategory, row_key: str) -> np.ndarray:
        """Return the stored anomaly map of an image: float32, shape (h, w), on the calibrated scale.

        Raises:
            ProblemError: `not-found` or `store-unavailable`.
        """
        chunk, reader = opened.chunk_of(row_key), opened.run.reader
        kept = reader.manifest.plan.options.maps
        with _readable(f"run {opened.run.name!r}"):
            maps = reader.chunk_maps(chunk) if kept == "all" else reader.maps(opened.name, [row_key])
        if row_key not in maps:
            raise ProblemError("not-found", f"run {opened.run.name!r} stored no map of this image (--maps {kept})")
        return maps[row_key].astype(np.float32)

    def _thumbnail(self, opened: OpenCategory, row_key: str) -> bytes:
        return _drawn(lambda source: thumbnail(source, opened.value_range), self._source(opened, row_key))

    def _source(self, opened: OpenCategory, row_key: str) -> SourceRow:
        chunk, reader = opened.chunk_of(row_key), opened.run.reader
        with _readable(f"the archive of run {opened.run.name!r}"):
            sources = self._sources.get(
                (opened.run.name, chunk.chunk), lambda: dict(reader.source_rows(chunk, with_images=True))
            )
        if row_key not in sources:
            raise ProblemError("not-found", "the image is no longer in the archive")
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
    """Turn read errors into problems; only the logs name the files."""
    try:
        yield
    except UserError as error:
        _logger.warning("cannot read %s: %s", what, error)
        raise ProblemError(
            "store-unavailable", f"{what} is unfinished, corrupt or unreachable; see the logs for the reason"
        ) from error
