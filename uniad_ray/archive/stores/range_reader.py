"""A seekable file over a store that serves byte ranges."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

WINDOW_BYTES = 128 * 2**10


class RangeReader(io.RawIOBase):
    """Reads an object of known size by byte ranges; not safe for several threads.

    A read of at least `WINDOW_BYTES` is exactly one range request and is not cached. A smaller read fetches a window of
    `WINDOW_BYTES`, which also serves the reads that follow. At the end of the object the window covers its last bytes,
    so a Parquet footer takes one request.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        """Opens the object at position 0.

        Args:
            fetch: Returns the bytes from `start` (inclusive) to `end` (exclusive).
            size: Size of the object, bytes.
        """
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._position = 0
        self._window = b""
        self._window_start = 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """The position, in bytes from the start."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves the position; it may lie beyond the end, as in files."""
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        if whence not in base:
            raise ValueError(f"invalid whence ({whence})")
        if base[whence] + offset < 0:
            raise ValueError(f"negative seek position {base[whence] + offset}")
        self._position = base[whence] + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, fewer only at the end; all remaining bytes if `size` is None or negative."""
        self._check_open()
        end = self._size if size is None or size < 0 else min(self._position + size, self._size)
        if end <= self._position:
            return b""
        data = self._slice(self._position, end)
        self._position = end
        return data

    def readall(self) -> bytes:
        """All remaining bytes."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fills a writable buffer up to the end of the object; returns the number of bytes."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _slice(self, start: int, end: int) -> bytes:
        if not (self._window_start <= start and end <= self._window_start + len(self._window)):
            if end - start >= WINDOW_BYTES:
                return self._fetch(start, end)
            self._window_start = max(0, min(start, self._size - WINDOW_BYTES))
            self._window = self._fetch(self._window_start, min(self._size, self._window_start + WINDOW_BYTES))
        return self._window[start - self._window_start : end - self._window_start]

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
