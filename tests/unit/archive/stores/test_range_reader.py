"""Reads files by ranges: local disk, a real S3 server and `io.BytesIO`."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.archive.stores import s3_client
from uniad_ray.archive.stores.location import Location
from uniad_ray.archive.stores.range_reader import WINDOW_BYTES, RangeReader


@pytest.fixture
def root(store_root: str) -> Location:
    return Location.parse(store_root)


class TestSeekable:
    def test_like_a_file(self, root: Location) -> None:
        data = np.random.default_rng(0).bytes(3 * WINDOW_BYTES)
        (root / "object").write_bytes(data)
        with (root / "object").open_seekable() as file:
            assert file.seek(-10, os.SEEK_END) == len(data) - 10
            assert file.read() == data[-10:]
            file.seek(5)
            assert file.read(10) == data[5:15]
            assert file.read(2 * WINDOW_BYTES) == data[15 : 15 + 2 * WINDOW_BYTES]
            assert file.tell() == 15 + 2 * WINDOW_BYTES
        assert file.closed

    def test_parquet_row_group_without_the_rest(self, root: Location) -> None:
        rows, groups = 64, 8
        images = [np.random.default_rng(row).bytes(16 * 2**10) for row in range(rows)]
        table = pa.table({"row": range(rows), "image": images})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=rows // groups, compression="none", use_dictionary=False)
        (root / "shard.parquet").write_bytes(buffer.getvalue())
        with fetched_bytes(root) as sizes, (root / "shard.parquet").open_seekable() as file:
            parquet = pq.ParquetFile(file)
            assert parquet.read_row_group(3).equals(table.slice(24, 8))
            if not root.is_local:
                assert sum(sizes) < 8 * 16 * 2**10 + 3 * WINDOW_BYTES < buffer.tell() / 2
                assert len(sizes) <= 3
            assert parquet.read(columns=["row"])["row"].to_pylist() == [*range(rows)]

    def test_requests(self) -> None:
        size = 10 * WINDOW_BYTES
        ranges = []

        def fetch(start: int, end: int) -> bytes:
            ranges.append((start, end))
            return bytes(end - start)

        reader = RangeReader(fetch, size)
        reader.seek(-8, os.SEEK_END)
        reader.read(8)
        reader.seek(-WINDOW_BYTES // 2, os.SEEK_END)
        reader.read()
        assert ranges == [(size - WINDOW_BYTES, size)]
        reader.seek(100)
        reader.read(3 * WINDOW_BYTES)
        assert ranges[1:] == [(100, 100 + 3 * WINDOW_BYTES)]
        reader.seek(50)
        reader.read(10)
        reader.read(1000)
        assert ranges[2:] == [(50, 50 + WINDOW_BYTES)]

    @given(
        size=st.integers(0, 3 * WINDOW_BYTES),
        steps=st.lists(
            st.one_of(
                st.tuples(st.just("seek"), st.integers(0, 4 * WINDOW_BYTES)),
                st.tuples(st.just("read"), st.integers(-1, 2 * WINDOW_BYTES)),
                st.tuples(st.just("readinto"), st.integers(0, 2 * WINDOW_BYTES)),
            ),
            max_size=12,
        ),
    )
    def test_range_reader_agrees_with_bytesio(self, size: int, steps: list[tuple[str, int]]) -> None:
        data = np.arange(size, dtype=np.uint32).view(np.uint8)[:size].tobytes()

        def fetch(start: int, end: int) -> bytes:
            assert 0 <= start < end <= size
            return data[start:end]

        reader, reference = RangeReader(fetch, size), io.BytesIO(data)
        for operation, argument in steps:
            if operation == "readinto":
                ours, theirs = bytearray(argument), bytearray(argument)
                assert reader.readinto(ours) == reference.readinto(theirs)
                assert ours == theirs
            else:
                assert getattr(reader, operation)(argument) == getattr(reference, operation)(argument)
            assert reader.tell() == reference.tell()


class fetched_bytes:  # noqa: N801 - used like a function
    """Collects the sizes of the bodies that S3 sends; stays empty for a local store."""

    def __init__(self, root: Location) -> None:
        self._client = None if root.is_local else s3_client.s3_client()
        self._sizes: list[int] = []

    def __enter__(self) -> list[int]:
        if self._client is not None:
            self._client.meta.events.register("after-call.s3.GetObject", self._count)
        return self._sizes

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.meta.events.unregister("after-call.s3.GetObject", self._count)

    def _count(self, parsed: dict[str, Any], **_: object) -> None:
        self._sizes.append(int(parsed["ContentLength"]))
