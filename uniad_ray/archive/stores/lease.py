"""A lease: at most one process writes a run or an archive, and one that lost its lease finds out before it commits."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import platform
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from uniad_ray.archive.stores.location import Location
from uniad_ray.config.base import StrictModel
from uniad_ray.errors import LeaseError, ObjectExistsError, ObjectNotFoundError, StoreError, UniadRayError

BEAT_SECONDS: Final = 10.0
"""How often a holder renews its lease."""
EXPIRY_SECONDS: Final = 60.0
"""A lease that was not renewed for so long may be taken over. Watched with one clock, so clocks need not agree."""
_POLL_SECONDS: Final = 1.0
_logger = logging.getLogger(__name__)


class LeaseRecord(StrictModel):
    """The content of a lease.

    Attributes:
        nonce: Random name of the holder.
        holder: The holder, for people: user, host, process.
        machine: Boot and process namespace of the holder; empty if the system does not tell.
        pid: Process id within that namespace.
        started: When that process started, in the system's ticks; process ids are used again.
        since: UTC, ISO 8601.
        beat: Number of renewals.
    """

    nonce: str
    holder: str
    machine: str
    pid: int
    started: str
    since: str
    beat: int = 0


@dataclass(frozen=True)
class Lease:
    """A lease that a process holds. It can be pickled, so that workers can check it.

    Attributes:
        folder: Folder of the lease.
        token: Number of the lease: higher than all before it.
        nonce: Random name of the holder.
    """

    folder: Location
    token: int
    nonce: str

    def check(self) -> None:
        """Call before a commit: one listing and one read.

        Raises:
            LeaseError: Another process has taken over.
        """
        if not _is_held_by(self.folder, self.token, self.nonce):
            raise LeaseError(
                f"{self.folder}: another process has taken over, because this one was silent for "
                f"{EXPIRY_SECONDS:g} s or more; it completes the work"
            )


@contextlib.contextmanager
def hold(folder: Location, what: str) -> Iterator[Lease]:
    """Holds the lease of a folder within a `with` block.

    A lease of a process that has died on this machine is taken over at once. A lease of another machine is watched: if
    it is not renewed for `EXPIRY_SECONDS`, its holder is gone. Every lease is an object that is created only if it is
    absent, so of several processes exactly one gets it.

    Args:
        folder: Folder of the lease.
        what: What the lease protects, for messages, such as `the run s3://bucket/run`.

    Raises:
        LeaseError: Another process holds it; the message names it.
        StoreError: The store fails.
    """
    record = _own_record()
    token = _acquire(folder, what, record)
    lease = Lease(folder, token, record.nonce)
    stop = threading.Event()
    beats = threading.Thread(target=_renew, args=(lease, record, stop), name="lease", daemon=True)
    beats.start()
    try:
        yield lease
    finally:
        stop.set()
        # A renewal may wait for a store that is away. It releases what it writes after this.
        beats.join(BEAT_SECONDS)
        _release(lease)


def _release(lease: Lease) -> None:
    """Deletes a lease that is still held; one that cannot be deleted expires."""
    with contextlib.suppress(UniadRayError):
        lease.check()
        _location(lease.folder, lease.token).delete()


def _acquire(folder: Location, what: str, record: LeaseRecord) -> int:
    while True:
        held = _held(folder)
        if held:
            _wait_for_end(folder, held, what)
        token = held + 1
        try:
            _location(folder, token).write_json(record.model_dump(mode="json"), if_absent=True)
        except ObjectExistsError:
            # The response to an earlier attempt of this very request may be lost.
            if _is_held_by(folder, token, record.nonce):
                return _with_only(folder, token)
            continue
        if _held(folder) == token:
            return _with_only(folder, token)
        # Between the listing and the write, others came and went.
        _location(folder, token).delete()


def _with_only(folder: Location, token: int) -> int:
    """Deletes the leases of dead holders."""
    for number in _tokens(folder):
        if number < token:
            _location(folder, number).delete()
    return token


def _wait_for_end(folder: Location, token: int, what: str) -> None:
    """Returns once a lease has expired or is released.

    Raises:
        LeaseError: Its holder is alive.
    """
    try:
        first = _read(folder, token)
    except ObjectNotFoundError:
        return
    here = _own_record()
    if first.machine and first.machine == here.machine:
        if _start_of(first.pid) == first.started:
            raise _refusal(what, first)
        return
    _logger.info("%s is held by %s; waiting to see if it is alive", what, first.holder)
    deadline = time.monotonic() + EXPIRY_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        try:
            seen = _read(folder, token)
        except ObjectNotFoundError:
            return
        if (seen.nonce, seen.beat) != (first.nonce, first.beat):
            raise _refusal(what, seen)
    _logger.warning("%s: %s has been silent for %g s; taking over", what, first.holder, EXPIRY_SECONDS)


def _refusal(what: str, record: LeaseRecord) -> LeaseError:
    return LeaseError(
        f"{what} is being written by {record.holder} since {record.since}; wait until it has ended, or stop it, and "
        "run the same command again"
    )


def _renew(lease: Lease, record: LeaseRecord, stop: threading.Event) -> None:
    """Renews a lease until it is lost or released."""
    beat = 0
    while not stop.wait(BEAT_SECONDS):
        beat += 1
        try:
            lease.check()
            document = record.model_copy(update={"beat": beat}).model_dump(mode="json")
            _location(lease.folder, lease.token).write_json(document)
            if stop.is_set():
                # This process lives on: to others on this machine, it would hold the lease for ever.
                _release(lease)
        except LeaseError as error:
            _logger.warning("%s", error)
            return
        except StoreError as error:
            _logger.warning("the lease cannot be renewed: %s", error)


def _tokens(folder: Location) -> list[int]:
    names = (info.relative.removesuffix(".json") for info in folder.list(suffix=".json"))
    return [int(name) for name in names if name.isdecimal()]


def _held(folder: Location) -> int:
    """The highest number of a lease; 0 if nobody holds one."""
    return max(_tokens(folder), default=0)


def _is_held_by(folder: Location, token: int, nonce: str) -> bool:
    try:
        return _held(folder) == token and _read(folder, token).nonce == nonce
    except ObjectNotFoundError:
        return False


def _read(folder: Location, token: int) -> LeaseRecord:
    """The record of a lease; ObjectNotFoundError if it was released."""
    location = _location(folder, token)
    try:
        return LeaseRecord.model_validate(location.read_json())
    except ValidationError as error:
        raise StoreError(f"{location}: corrupt lease; delete it if nobody writes here") from error


def _location(folder: Location, token: int) -> Location:
    return folder / f"{token:08d}.json"


def user_name() -> str:
    """Name of the user of this process; the number if there is no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _own_record() -> LeaseRecord:
    return LeaseRecord(
        nonce=uuid.uuid4().hex,
        holder=f"{user_name()}@{socket.gethostname()}, process {os.getpid()}",
        machine=_machine(),
        pid=os.getpid(),
        started=_start_of(os.getpid()),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _machine() -> str:
    """Names what process ids refer to; empty if the system is not Linux."""
    if platform.system() != "Linux":
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """When a process started, in ticks since the boot; empty if there is no such process, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
