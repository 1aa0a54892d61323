"""Leases: one holder at a time, takeover from the dead, and a former holder that finds out."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from uniad_ray.archive.stores import lease as module
from uniad_ray.archive.stores.lease import Lease, LeaseRecord, hold
from uniad_ray.archive.stores.location import Location
from uniad_ray.errors import LeaseError


@pytest.fixture
def folder(store_root: str) -> Location:
    return Location.parse(store_root) / "lease"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    # A busy machine may delay a beat.
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 2.0)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.05)


def leave(folder: Location, token: int = 1, **changes: Any) -> LeaseRecord:
    """Writes a lease that its holder did not release."""
    record = module._own_record().model_copy(update={"nonce": "other", "holder": "ann@host, process 7", **changes})
    (folder / f"{token:08d}.json").write_json(record.model_dump(mode="json"))
    return record


def names(folder: Location) -> list[str]:
    return [info.relative for info in folder.list()]


def test_second_holder_is_told_who_holds_it(folder: Location) -> None:
    with hold(folder, "the run r") as lease:
        lease.check()
        with pytest.raises(LeaseError, match=r"^the run r is being written by \S+@\S+, process \d+ since 2"):
            hold(folder, "the run r").__enter__()
        lease.check()
    assert names(folder) == []
    with hold(folder, "the run r") as lease:
        assert lease.token == 1


def test_one_of_many_racing_processes_holds_it(folder: Location) -> None:
    ready = threading.Barrier(8)
    done = threading.Barrier(8)

    def race(_: int) -> bool:
        ready.wait()
        try:
            with hold(folder, "it") as lease:
                done.wait()
                lease.check()
                return True
        except LeaseError:
            done.wait()
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(race, range(8))) == 1
    assert names(folder) == []


def test_lease_of_a_process_that_died_here_is_taken_over_at_once(folder: Location) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    leave(folder, token=4, pid=ended.pid, started="1")
    with hold(folder, "it") as lease:
        assert lease.token == 5
        assert names(folder) == ["00000005.json"]


def test_process_id_that_is_used_again_is_not_the_holder(folder: Location) -> None:
    leave(folder, started="1")
    with hold(folder, "it") as lease:
        assert lease.token == 2


@pytest.mark.usefixtures("quick")
def test_silent_holder_on_another_machine_expires(folder: Location) -> None:
    leave(folder, machine="elsewhere")
    started = time.monotonic()
    with hold(folder, "it") as lease:
        assert lease.token == 2
        assert time.monotonic() - started >= 2.0


@pytest.mark.usefixtures("quick")
def test_living_holder_on_another_machine_is_named(folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_machine", lambda: "elsewhere")
        holder = hold(folder, "it")
        lease = holder.__enter__()
    with pytest.raises(LeaseError, match="it is being written by"):
        hold(folder, "it").__enter__()
    lease.check()
    holder.__exit__(None, None, None)
    assert names(folder) == []


@pytest.fixture
def lost(folder: Location, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lease]:
    """A lease that another process has taken over."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "_machine", lambda: "elsewhere")
        holder = hold(folder, "it")
        former = holder.__enter__()
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 0.0)
    with hold(folder, "it") as later:
        yield former
        later.check()
        # Its release leaves the lease of the other one alone.
        holder.__exit__(None, None, None)
        later.check()


def test_former_holder_finds_out_before_it_commits(lost: Lease) -> None:
    with pytest.raises(LeaseError, match="another process has taken over"):
        lost.check()
    # Workers get copies.
    with pytest.raises(LeaseError, match="another process has taken over"):
        copy.deepcopy(lost).check()


def test_released_lease_is_not_valid_for_workers_that_live_on(folder: Location) -> None:
    with hold(folder, "it") as first:
        pass
    with pytest.raises(LeaseError):
        first.check()
    with hold(folder, "it") as second:
        assert second.token == first.token
        with pytest.raises(LeaseError):
            first.check()


@pytest.mark.usefixtures("quick")
def test_store_that_is_away_for_a_while_costs_no_lease(folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(folder, "it") as lease:
        with monkeypatch.context() as patch:

            def away(*_: object, **__: object) -> None:
                raise module.StoreError("away")

            patch.setattr(Location, "write_bytes", away)
            time.sleep(0.2)
        while (folder / "00000001.json").read_json()["beat"] <= 1:
            time.sleep(0.05)
        lease.check()


@pytest.mark.usefixtures("quick")
def test_renewal_that_ends_after_the_release_leaves_no_lease(folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    write, begun, go_on = Location.write_bytes, threading.Event(), threading.Event()

    def hang(self: Location, data: bytes, **options: Any) -> None:
        if not options.get("if_absent"):
            begun.set()
            go_on.wait(10)
        write(self, data, **options)

    monkeypatch.setattr(Location, "write_bytes", hang)
    with hold(folder, "it"):
        (beats,) = [thread for thread in threading.enumerate() if thread.name == "lease"]
        assert begun.wait(10)
    assert names(folder) == []
    go_on.set()
    beats.join(10)
    assert names(folder) == []
    with hold(folder, "it"):
        pass
