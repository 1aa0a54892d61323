"""Objects in S3 or an S3-compatible store."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import time
from collections.abc import Iterator
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError

from uniad_ray.archive.stores.base import StoredObject, too_large
from uniad_ray.archive.stores.patience import patient
from uniad_ray.archive.stores.range_reader import RangeReader
from uniad_ray.archive.stores.s3_client import (
    MAX_ATTEMPTS,
    NOT_FOUND_CODES,
    endpoint,
    error_code,
    no_such_bucket,
    note_retry,
    s3_client,
    store_errors,
)
from uniad_ray.errors import ObjectExistsError, ObjectNotFoundError, StoreError

MAX_PUT_BYTES = 5 * 2**30
_FIRST_PAUSE_SECONDS = 0.05
# boto3 retries requests, but not a body that breaks off while it is read.
_BROKEN_BODY = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_CONFLICT_CODES = frozenset({"409", "ConditionalRequestConflict", "OperationAborted"})
_PRECONDITION_CODES = frozenset({"412", "PreconditionFailed"})
_AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn")
_DIRECTORY_BUCKET = "--x-s3"


class S3Store:
    """The store of `bucket/key` paths; see `Store` for the methods."""

    def read(self, path: str, max_bytes: int | None) -> bytes:
        """The whole object in one GET; the headers give its size before the body is read."""
        return _get(path, max_bytes=max_bytes)

    @patient
    def write(self, path: str, data: bytes, *, if_absent: bool) -> None:
        """A single PUT, because some stores ignore conditions on multipart uploads."""
        bucket, key = _object(path)
        if len(data) > MAX_PUT_BYTES:
            raise too_large(_uri(path), len(data), MAX_PUT_BYTES)
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        with store_errors(_uri(path)):
            for attempt in itertools.count(1):
                try:
                    s3_client().put_object(Bucket=bucket, Key=key, Body=data, **condition)
                except ClientError as error:
                    code = error_code(error)
                    if if_absent and code in _PRECONDITION_CODES:
                        raise ObjectExistsError(f"{_uri(path)} already exists") from error
                    # Another writer was writing this key; once it is done we win or get a 412.
                    if not if_absent or code not in _CONFLICT_CODES or attempt == MAX_ATTEMPTS:
                        raise
                    _pause(attempt)
                else:
                    return

    def exists(self, path: str) -> bool:
        """A HEAD request; a bucket is not an object."""
        if not _folder(path)[1]:
            return False
        try:
            _head(path)
        except ObjectNotFoundError:
            return False
        return True

    def status(self, path: str) -> StoredObject:
        """A HEAD request."""
        head = _head(path)
        size = int(head["ContentLength"])
        return StoredObject("", size, _version({**head, "Size": size}))

    def list(self, path: str, *, with_unusable: bool = False) -> Iterator[StoredObject]:  # noqa: ARG002
        """The objects below, without the empty `folder/` markers that consoles create; S3 lists no unusable ones."""
        pages = _pages(path)
        first, second = next(pages, ()), next(pages, None)
        if second is None:
            yield from sorted(_objects([first]), key=_relative)
            return
        entries = _objects(itertools.chain((first, second), pages))
        if _order_is_guaranteed(path) or _is_ordered(_objects(_pages(path))):
            yield from entries
        else:
            yield from sorted(entries, key=_relative)

    def open_seekable(self, path: str) -> BinaryIO:
        """Ranged GETs, each on the condition that the object has not changed since it was opened."""
        head = _head(path)
        fetch = functools.partial(_get_range, path, head["ETag"])
        # RawIOBase has the methods of a binary file, but the typing of the standard library does not say so.
        return cast("BinaryIO", cast("io.IOBase", RangeReader(fetch, int(head["ContentLength"]))))

    @patient
    def delete(self, path: str) -> None:
        """A DELETE request; S3 reports success even if the object does not exist."""
        bucket, key = _object(path)
        try:
            with store_errors(_uri(path)):
                s3_client().delete_object(Bucket=bucket, Key=key)
        except ObjectNotFoundError:
            return

    @patient
    def delete_tree(self, path: str) -> None:
        """One batch request per page."""
        bucket, prefix = _folder(path)
        for page in _pages(path):
            keys = [{"Key": prefix + entry.relative} for entry in page]
            if not keys:
                continue
            with store_errors(_uri(path)):
                answer = s3_client().delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            for failure in answer.get("Errors", ()):
                key, reason = failure.get("Key"), failure.get("Code")
                raise StoreError(f"s3://{bucket}/{key}: cannot be deleted ({reason}); check the rights and try again")


def _uri(path: str) -> str:
    return f"s3://{path.rstrip('/')}"


def _object(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    if not key:
        raise StoreError(f"s3://{bucket} is a bucket, not an object; add a key")
    return bucket, key


def _folder(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, f"{key}/" if key else ""


def _relative(entry: StoredObject) -> str:
    # Python orders text by code points, which equals the byte order of its UTF-8.
    return entry.relative


@patient
def _head(path: str) -> Any:
    """Size and ETag of an object; ObjectNotFoundError if the bucket exists but the object does not."""
    bucket, key = _object(path)
    with store_errors(_uri(path)):
        try:
            return s3_client().head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            # A HEAD response has no body to tell a missing bucket from a missing object.
            if error_code(error) in NOT_FOUND_CODES and not _bucket_is_there(s3_client(), bucket):
                raise no_such_bucket(_uri(path)) from error
            raise


def _bucket_is_there(client: Any, bucket: str) -> bool:
    try:
        return _find_bucket(client, bucket)
    except ClientError as error:
        # Without the right to ask for the bucket, the response is 403 whether it exists or not.
        return error_code(error) not in {*NOT_FOUND_CODES, "NoSuchBucket"}


@functools.lru_cache(maxsize=64)
def _find_bucket(client: Any, bucket: str) -> bool:
    """Checks that a bucket exists. Asks once per existing bucket: the cache does not keep errors."""
    client.head_bucket(Bucket=bucket)
    return True


@patient
def _get(path: str, *, max_bytes: int | None = None, **options: str) -> bytes:
    """The body of a GET; retried if it breaks off."""
    bucket, key = _object(path)
    with store_errors(_uri(path)):
        attempt = 0
        while True:
            attempt += 1
            answer = s3_client().get_object(Bucket=bucket, Key=key, **options)
            # Closing an unread body drops the connection without reading it to the end. Not `with body`: that gives
            # the raw stream, whose errors are not those of boto3.
            with contextlib.closing(answer["Body"]) as body:
                size = int(answer["ContentLength"])
                if max_bytes is not None and size > max_bytes:
                    raise too_large(_uri(path), size, max_bytes)
                try:
                    return cast("bytes", body.read())
                except _BROKEN_BODY:
                    if attempt == MAX_ATTEMPTS:
                        raise
            _pause(attempt)


def _get_range(path: str, etag: str, start: int, end: int) -> bytes:
    try:
        data = _get(path, Range=f"bytes={start}-{end - 1}", IfMatch=etag, max_bytes=end - start)
    except StoreError as error:
        cause = error.__cause__
        if isinstance(cause, ClientError) and error_code(cause) in _PRECONDITION_CODES:
            raise StoreError(f"{_uri(path)}: replaced while it was being read; try again") from error
        raise
    if len(data) != end - start:
        raise StoreError(f"{_uri(path)}: received {len(data)} bytes for a range of {end - start}; try again")
    return data


def _pages(path: str) -> Iterator[tuple[StoredObject, ...]]:
    """All objects below in the order of the store, 1,000 keys per page."""
    prefix = _folder(path)[1]
    # Not boto3's paginator: after an error it ends, as if there were no more pages.
    page: dict[str, Any] = {"NextContinuationToken": None}
    while "NextContinuationToken" in page:
        page = _page(path, page["NextContinuationToken"])
        yield tuple(
            StoredObject(entry["Key"].removeprefix(prefix), int(entry["Size"]), _version(entry))
            for entry in page.get("Contents", ())
        )


@patient
def _page(path: str, token: str | None) -> dict[str, Any]:
    """One page of a listing; without a token, the first."""
    bucket, prefix = _folder(path)
    options = {} if token is None else {"ContinuationToken": token}
    with store_errors(_uri(path)):
        found = s3_client().list_objects_v2(Bucket=bucket, Prefix=prefix, **options)
    return cast("dict[str, Any]", found)


def _version(entry: Any) -> str:
    """The ETag of a listed object, or else, in stores that list none, the time of its last change."""
    return entry.get("ETag", "").strip('"') or f"{entry['Size']}-{entry.get('LastModified', '')}"


def _objects(pages: Any) -> Iterator[StoredObject]:
    for page in pages:
        for entry in page:
            if entry.relative and not entry.relative.endswith("/"):
                yield entry


def _order_is_guaranteed(path: str) -> bool:
    """Whether the store lists in byte order, as Amazon's general purpose buckets do.

    Amazon's directory buckets do not. Some other stores list folder by folder: `a/x` before `a-b`.
    """
    host = urlsplit(endpoint()).hostname or ""
    return host.endswith(_AWS_DOMAINS) and not _folder(path)[0].endswith(_DIRECTORY_BUCKET)


def _is_ordered(entries: Iterator[StoredObject]) -> bool:
    return all(before.relative < after.relative for before, after in itertools.pairwise(entries))


def _pause(attempt: int) -> None:
    note_retry()
    time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
