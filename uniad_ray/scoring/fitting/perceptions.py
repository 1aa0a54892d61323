"""Perceptions of the normal images of a fit, cached on disk if they are read more than once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from uniad_ray.perception.base import Originals, Perception, PerceptionStream, StoredFields
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.scoring.fitting.spill import Shelf, SpillOptions


@dataclass(frozen=True)
class NormalImage:
    """One normal image of a fit, before its pixels are read.

    Attributes:
        row_key: Key in the archive.
        image_id: sha256 of the encoded image.
        split: Split in the archive.
        chunk: Name of its chunk; images of one chunk are fastest to read together.
        copy_of: Key of the original of an altered copy; None for an image of the archive.
        source_uri: URI that it was ingested from.
    """

    row_key: str
    image_id: str
    split: str
    chunk: str = ""
    copy_of: str | None = None
    source_uri: str = ""


class NormalImages(Protocol):
    """The normal images of one category, in a fixed order.

    Attributes:
        rows: The images.
        originals: Encoded images by row key, before they are stretched; may be empty. Altered copies have none.
    """

    rows: Sequence[NormalImage]
    originals: Originals

    def read(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode images in the given order, and yield (index, uint8 array at the image size of the category).

        Images that cannot be decoded are skipped.
        """
        ...


ExtractElsewhere = Callable[[Sequence[Sequence[int]], frozenset[str], float], Iterator[Perception | None] | None]
"""Extract batches of images, given by their indices, in other processes.

Called with the batches, the fields, and the seconds that all of them take here. Yields the perception of each batch, in
order and without originals; None if none of its images can be decoded, and nothing for batches that are left to the
caller. Returns None if all are to be extracted here.
"""


class PerceptionSource(Protocol):
    """Repeatable source of the perceptions of normal images by index.

    Attributes:
        rows: The images.
        batch_size: Images per batch.
    """

    rows: Sequence[NormalImage]
    batch_size: int

    def extract(self, indices: Sequence[int], wanted: frozenset[str]) -> Iterator[Perception]:
        """Yield batches of the given images in order, with the wanted fields.

        Images that cannot be decoded are skipped.
        """
        ...


def stream(source: PerceptionSource, indices: Sequence[int], wanted: frozenset[str]) -> PerceptionStream:
    """Return a restartable stream over the given images."""
    return lambda: source.extract(indices, wanted)


class ImagePerceptions:
    """Extract the fields that need no fit; with a spill folder, every image passes the networks once."""

    def __init__(
        self,
        images: NormalImages,
        pipeline: PerceptionPipeline,
        fields: frozenset[str],
        *,
        batch_size: int,
        spill: Path | None,
        on_extracted: Callable[[Perception], None] | None = None,
        stored: StoredFields | None = None,
        options: SpillOptions | None = None,
        elsewhere: ExtractElsewhere | None = None,
        used: Sequence[int] = (),
    ) -> None:
        """Store the arguments; nothing is read yet.

        Args:
            images: The normal images.
            pipeline: The extractors.
            fields: Fields to compute and keep.
            batch_size: Images per batch.
            spill: Folder for perceptions that are read again; None if each is read once.
            on_extracted: Called with each extracted batch, once per image.
            stored: Stored fields of the pipeline that need not be computed.
            options: Precision and bound of the spilled fields, and where to read them to.
            elsewhere: Extracts batches in other processes.
            used: Images that are extracted elsewhere, all at once, when the first of them is asked for; with a spill
                folder only.
        """
        self.rows = images.rows
        self.batch_size = batch_size
        self._images = images
        self._pipeline = pipeline
        self._fields = fields
        self._shelf = None if spill is None else Shelf(spill, len(images.rows), options or SpillOptions())
        self._on_extracted = on_extracted
        self._stored = stored
        self._elsewhere = elsewhere
        self._ahead = used if elsewhere is not None else ()
        self._corrupt: set[int] = set()
        self._seen: set[int] = set()

    def extract(self, indices: Sequence[int], wanted: frozenset[str]) -> Iterator[Perception]:
        """Implement `PerceptionSource.extract`."""
        if self._shelf is None:
            yield from self._extracted(indices, wanted)
            return
        ahead, self._ahead = self._ahead, ()
        for perception in self._extracted([index for index in ahead if self._key(index) not in self._shelf]):
            self._shelf.put(perception, with_images=True)
        for start in range(0, len(indices), self.batch_size):
            batch = [index for index in indices[start : start + self.batch_size] if index not in self._corrupt]
            computed = self._compute([index for index in batch if self._key(index) not in self._shelf], self._fields)
            if computed is not None:
                self._shelf.put(computed, with_images=True)
            keys = [self._key(index) for index in batch if self._key(index) in self._shelf]
            if keys:
                originals = self._pipeline.seen_originals(self._images.originals)
                yield replace(self._shelf.get(keys, wanted), originals=originals)

    def _extracted(self, indices: Sequence[int], wanted: frozenset[str] | None = None) -> Iterator[Perception]:
        """Extract images in order, all but the first batch in other processes if that is worth it."""
        fields = self._fields if wanted is None else wanted
        known = [index for index in indices if index not in self._corrupt]
        batches = [known[start : start + self.batch_size] for start in range(0, len(known), self.batch_size)]
        elsewhere: Iterator[Perception | None] = iter(())
        for number, batch in enumerate(batches):
            started = time.monotonic()
            # Also without a perception from elsewhere: here, the reason of a corrupt image is recorded.
            given = next(elsewhere, None)
            computed = self._compute(batch, fields) if given is None else self._received(batch, given)
            if number == 0 and self._elsewhere is not None and len(batches) > 1:
                seconds = (time.monotonic() - started) * (len(batches) - 1)
                elsewhere = self._elsewhere(batches[1:], fields, seconds) or elsewhere
            if computed is not None:
                yield computed

    def _key(self, index: int) -> str:
        return self.rows[index].row_key

    def _received(self, indices: Sequence[int], perception: Perception) -> Perception:
        """Take in a batch from another process."""
        found = set(perception.row_keys)
        missing = [index for index in indices if self._key(index) not in found]
        # Reading them records the reasons.
        self._corrupt.update(set(missing) - {index for index, _ in self._images.read(missing)})
        received = replace(perception, originals=self._pipeline.seen_originals(self._images.originals))
        self._note(set(indices) - set(missing), received)
        return received

    def _note(self, indices: set[int], perception: Perception) -> None:
        """Report a batch whose images are new."""
        if self._on_extracted is not None and not indices & self._seen:
            self._on_extracted(perception)
        self._seen |= indices

    def _compute(self, indices: Sequence[int], fields: frozenset[str]) -> Perception | None:
        decoded = list(self._images.read(indices))
        self._corrupt.update(set(indices) - {index for index, _ in decoded})
        if not decoded:
            return None
        keys = [self._key(index) for index, _ in decoded]
        pixels = np.stack([image for _, image in decoded])
        perception = self._pipeline.extract(keys, pixels, fields, self._stored, self._images.originals)
        self._note({index for index, _ in decoded}, perception)
        return perception


class ExtendedPerceptions:
    """Add the fields of one more extractor to another source, cached on disk."""

    def __init__(
        self,
        source: PerceptionSource,
        pipeline: PerceptionPipeline,
        fields: frozenset[str],
        spill: Path,
        options: SpillOptions | None = None,
    ) -> None:
        """Store the arguments; nothing is read yet.

        Args:
            source: Source of the images and of the needed fields.
            pipeline: Pipeline with the extractor of the fields, which must be fitted.
            fields: Fields to add, all of one extractor.
            spill: Folder for the fields; stored ones are not computed again.
            options: Precision and bound of the fields, and where to read them to.
        """
        self.rows = source.rows
        self.batch_size = source.batch_size
        self._source = source
        self._pipeline = pipeline
        self._fields = fields
        self._shelf = Shelf(spill, len(source.rows), options or SpillOptions())
        self._needs = frozenset(
            need for extractor in pipeline.extractors if extractor.provides & fields for need in extractor.needs
        )

    def extract(self, indices: Sequence[int], wanted: frozenset[str]) -> Iterator[Perception]:
        """Implement `PerceptionSource.extract`."""
        added = wanted & self._fields
        below = wanted - self._fields
        if not added:
            yield from self._source.extract(indices, wanted)
            return
        for start in range(0, len(indices), self.batch_size):
            batch = indices[start : start + self.batch_size]
            is_stored = all(self.rows[index].row_key in self._shelf for index in batch)
            for perception in self._source.extract(batch, below if is_stored else below | self._needs):
                if not is_stored:
                    self._shelf.put(self._pipeline.extend(perception, self._fields), with_images=False)
                own = self._shelf.get(perception.row_keys, added)
                yield perception.restricted(wanted).joined(own)
