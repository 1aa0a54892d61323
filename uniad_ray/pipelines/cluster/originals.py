"""The encoded images of a chunk, read only if a vision-language model asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from uniad_ray.archive.manifest import Chunk
from uniad_ray.archive.shards import read_chunk
from uniad_ray.archive.stores.location import Location


class ChunkOriginals(Mapping[str, bytes]):
    """Encoded images of one chunk by row key; the chunk is read on first use."""

    def __init__(self, archive: str, chunk: Chunk, row_keys: Sequence[str]) -> None:
        """Keeps the arguments; nothing is read yet.

        Args:
            archive: Root of the archive.
            chunk: The chunk.
            row_keys: Keys of its rows, in order.
        """
        self._archive = archive
        self._chunk = chunk
        self._places = {key: place for place, key in enumerate(row_keys)}
        self._images: list[bytes] | None = None

    def __getitem__(self, row_key: str) -> bytes:
        """Returns the encoded image of a row.

        Raises:
            ArchiveError: The shard is corrupt.
            KeyError: The chunk has no such row.
        """
        place = self._places[row_key]
        if self._images is None:
            table = read_chunk(Location.parse(self._archive), self._chunk, columns=["image"])
            self._images = table.column("image").to_pylist()
        return self._images[place]

    def __iter__(self) -> Iterator[str]:
        """Iterates over the row keys."""
        return iter(self._places)

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self._places)
