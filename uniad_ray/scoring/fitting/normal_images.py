"""Read the normal images of one category from an archive, chunk by chunk."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from uniad_ray.archive.images import ImageLimits, decode_image
from uniad_ray.archive.manifest import ArchiveManifest, Chunk
from uniad_ray.archive.normal_rows import read_normal_rows
from uniad_ray.archive.shards import read_chunk
from uniad_ray.archive.stores.location import Location
from uniad_ray.config.normal_images import NormalImagesConfig
from uniad_ray.config.value_range import ValueRange
from uniad_ray.errors import FitError, ImageError
from uniad_ray.perception.base import Originals
from uniad_ray.perception.region import Region
from uniad_ray.scoring.fitting.altered_copies import altered, copies_of
from uniad_ray.scoring.fitting.perceptions import NormalImage

_ROW_KEY = re.compile(r"\b[0-9a-f]{32}\b")


class ArchiveNormalImages:
    """Normal images of the train and validation splits of a category, or of the split `archive` if there are none.

    Attributes:
        rows: The images in archive order, followed by altered copies if there are few images.
        skipped: Reason by source URI for images that could not be decoded.
    """

    def __init__(
        self,
        archive: Location,
        manifest: ArchiveManifest,
        category: str,
        image_size: tuple[int, int],
        choice: NormalImagesConfig | None = None,
        region: Region | None = None,
        value_range: ValueRange | None = None,
    ) -> None:
        """Read keys and labels; pixels are read later.

        Args:
            archive: The archive.
            manifest: Its manifest.
            category: Category.
            image_size: Height and width of the decoded images, pixels.
            choice: Selection of images and number of copies; default takes all without copies.
            region: Part of the images that counts; pixels outside are replaced by the nearest ones inside.
            value_range: As in `decode_image`.

        Raises:
            FitError: The category has no normal images.
        """
        self._archive = archive
        self._image_size = image_size
        self._region = region
        self._value_range = value_range
        self._limits = ImageLimits()
        self.skipped: dict[str, str] = {}
        found = [
            (NormalImage(key, image_id, chunk.split, chunk.name, source_uri=uri), chunk, position)
            for (key, image_id, uri), chunk, position in read_normal_rows(
                archive,
                manifest,
                category,
                ("row_key", "image_id", "source_uri"),
                () if choice is None else choice.exclude,
            )
        ]
        if not found:
            raise FitError(
                f"{archive}: category {category!r} has no normal images to fit on; ingest some under train/good, "
                "or a plain folder with --label normal, or withdraw exclusions"
            )
        places = {row: (chunk, position) for row, chunk, position in found}
        images = list(places)
        copies: list[NormalImage] = []
        if choice is not None:
            images = _drawn(images, choice)
            copies = copies_of(images, choice.copies_of_each(len({row.image_id for row in images})))
        originals = {row.row_key: row for row in images}
        self.rows: Sequence[NormalImage] = [*images, *copies]
        self._places = [places[originals[row.copy_of or row.row_key]] for row in self.rows]
        self._cached: tuple[Chunk, pa.Table] | None = None
        self.originals: Originals = _Originals(
            {row.row_key: index for index, row in enumerate(self.rows) if row.copy_of is None}, self._encoded
        )

    @property
    def has_copies(self) -> bool:
        """Whether there are altered copies; no sidecar contains them."""
        return any(row.copy_of is not None for row in self.rows)

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode images; those that cannot be decoded are skipped and recorded in `skipped`."""
        for index in indices:
            chunk, position = self._places[index]
            table = self._table(chunk)
            try:
                image = self._decoded(table.column("image")[position].as_py())
            except ImageError as error:
                self.skipped[table.column("source_uri")[position].as_py()] = f"{error.kind}: {error}"
            else:
                row = self.rows[index]
                # Otherwise a copy would move pixels of the outside inside, and twins would be told apart by them.
                image = image if self._region is None else self._region.filled(image)
                yield index, image if row.copy_of is None else altered(image, row.row_key)

    def by_source_uri(self, notes: Mapping[str, str]) -> dict[str, str]:
        """Replace row keys by source URIs as the keys of notes."""
        wanted = [index for index, row in enumerate(self.rows) if row.row_key in notes]
        found = {}
        for index in wanted:
            chunk, position = self._places[index]
            found[self._table(chunk).column("source_uri")[position].as_py()] = notes[self.rows[index].row_key]
        return dict(sorted(found.items()))

    @contextmanager
    def naming_images(self) -> Iterator[None]:
        """Replace row keys by source URIs in the message of a `FitError` that leaves the block.

        Raises:
            FitError: The raised error with the new message.
        """
        try:
            yield
        except FitError as error:
            names = {
                key: uri for uri, key in self.by_source_uri({key: key for key in _ROW_KEY.findall(str(error))}).items()
            }
            if not names:
                raise
            raise FitError(_ROW_KEY.sub(lambda key: names.get(key[0], key[0]), str(error))) from error

    def _decoded(self, data: bytes) -> np.ndarray:
        return decode_image(data, self._image_size, self._limits, self._value_range)

    def _encoded(self, index: int) -> bytes:
        chunk, position = self._places[index]
        return bytes(self._table(chunk).column("image")[position].as_py())

    def _table(self, chunk: Chunk) -> pa.Table:
        if self._cached is None or self._cached[0] != chunk:
            self._cached = (chunk, read_chunk(self._archive, chunk, columns=["image", "source_uri"]))
        return self._cached[1]


class _Originals(Mapping[str, bytes]):
    """Encoded images by row key, read when they are needed."""

    def __init__(self, indices: Mapping[str, int], read: Callable[[int], bytes]) -> None:
        self._indices = indices
        self._read = read

    def __getitem__(self, row_key: str) -> bytes:
        return self._read(self._indices[row_key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def _drawn(rows: Sequence[NormalImage], choice: NormalImagesConfig) -> list[NormalImage]:
    """Draw at most `most` distinct images by hash; a larger draw with the same seed contains the smaller one."""
    if choice.most is None:
        return list(rows)
    different = {row.image_id: row for row in reversed(rows)}
    order = sorted(different.values(), key=lambda row: hashlib.sha256(f"{choice.draw} {row.row_key}".encode()).digest())
    chosen = {row.row_key for row in order[: choice.most]}
    return [row for row in rows if row.row_key in chosen]
