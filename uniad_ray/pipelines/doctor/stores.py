"""Checks of a store: credentials, reading, writing, and its clock."""

from __future__ import annotations

import email.utils
import itertools
import time
import uuid
from collections.abc import Iterator
from typing import Final

from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import ObjectExistsError, StoreError
from uniad_ray.pipelines.doctor.checks import Check, failed, from_error, passed, warned
from uniad_ray.pipelines.doctor.machine import clock_check

PROBE: Final = ".uniad-ray-doctor-"
"""Beginning of the name of the object that is written and deleted."""
MAX_S3_CLOCK_SECONDS: Final = 300.0
"""S3 refuses requests of clocks that are off by 15 minutes; credentials of a role end by the clock, too."""


def store_checks(uri: str, *, write: bool) -> Iterator[Check]:
    """Checks a folder or prefix; a failure ends its checks.

    Args:
        uri: Local folder or S3 prefix.
        write: Also write, replace and delete a small object in it, as every verb does with its output.
    """
    try:
        location = Location.parse(uri)
        if not location.is_local:
            found = _credentials_check(location)
            yield found
            if found.status == "failed":
                return
        first = next(itertools.islice(location.list(), 1), None)
        if first is None and not write:
            yield warned("read", "there is no object", "check the path: an empty source cannot be ingested", uri)
        else:
            # Objects may be listed without the right to read them.
            if first is not None:
                with first.location.open_seekable() as file:
                    file.read(1)
            yield passed("read", "empty" if first is None else f"{first.relative}, {first.size} bytes", uri)
        if write:
            yield _write_check(location)
        if not location.is_local:
            yield _clock_check(location)
    except StoreError as error:
        yield from_error("store", error, uri)


def _credentials_check(location: Location) -> Check:
    import botocore.session

    session = botocore.session.get_session()
    credentials = session.get_credentials()
    if credentials is None:
        advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws configure`, or give the machine a role"
        return failed("credentials", "boto3 finds none", advice, location.uri)
    return passed("credentials", f"from {credentials.method}", location.uri)


def _write_check(location: Location) -> Check:
    """Writes an object, refuses to replace it, reads it back and deletes it."""
    probe = location / f"{PROBE}{uuid.uuid4().hex}"
    data = probe.name.encode()
    try:
        probe.write_bytes(data, if_absent=True)
        if probe.read_bytes() != data:
            advice = "use a store that is consistent: what was written must be read back at once"
            return failed("write", "other bytes were read than written", advice, location.uri)
        try:
            probe.write_bytes(b"", if_absent=True)
        except ObjectExistsError:
            return passed("write", "written, read back and deleted", location.uri)
        advice = "use a store with conditional writes (If-None-Match); two runs could overwrite each other's plans"
        return failed("write", "an object that exists was replaced although it must not be", advice, location.uri)
    finally:
        probe.delete()


def _clock_check(location: Location) -> Check:
    from uniad_ray.archive.stores.s3_client import s3_client, store_errors

    with store_errors(location.uri):
        sent = time.time()
        answer = s3_client().list_objects_v2(Bucket=location.bucket, Prefix=location.path, MaxKeys=1)
        now = (sent + time.time()) / 2
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is None:
        return passed("clock", "the store does not tell its time", location.uri)
    # The header has whole seconds.
    ahead = now - email.utils.parsedate_to_datetime(date).timestamp() - 0.5
    return clock_check(ahead, "the store", location.uri, most=MAX_S3_CLOCK_SECONDS)
