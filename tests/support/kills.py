"""Stands for kill -9 at any step of a job: from that step on, the job's store does nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from uniad_ray.archive.stores import lease
from uniad_ray.archive.stores.base import temporary_name
from uniad_ray.archive.stores.local import LocalStore
from uniad_ray.archive.stores.location import Location

When = Literal["before", "during", "after"]
_CHANGES = ("write", "delete", "delete_tree")


class KilledError(BaseException):
    """Stands for kill -9: no handler of the package catches it."""


class Steps:
    """Counts the changes of the local store, and ends the job at one of them.

    Attributes:
        at: Number of the change, from 0; None kills nothing.
        when: Before the change, after it, or during a write, which leaves its temporary file.
        done: Names of the changes so far.
    """

    def __init__(self, at: int | None = None, when: When = "before") -> None:
        self.at, self.when = at, when
        self.done: list[str] = []
        self._is_dead = False

    def wrap(self, name: str) -> Callable[..., None]:
        change = getattr(LocalStore, name)

        def step(store: LocalStore, path: str, *arguments: Any, **options: Any) -> None:
            if self._is_dead:
                raise KilledError
            is_last = self.at == len(self.done)
            self.done.append(f"{name} {path}")
            if is_last and self.when != "after":
                if self.when == "during" and name == "write":
                    target = Path(path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.with_name(temporary_name("left")).write_bytes(arguments[0][: len(arguments[0]) // 2])
                self._die()
            try:
                change(store, path, *arguments, **options)
            finally:
                if is_last:
                    self._die()

        return step

    def _die(self) -> None:
        self._is_dead = True
        raise KilledError


@contextmanager
def killed_at(at: int | None, when: When = "before") -> Iterator[Steps]:
    """Ends the work in a `with` block at a change of the store; without a number, only counts.

    The lease that the work leaves behind is that of a dead process.
    """
    steps = Steps(at, when)
    with pytest.MonkeyPatch.context() as patch:
        for name in _CHANGES:
            patch.setattr(LocalStore, name, steps.wrap(name))
        patch.setattr(lease, "_start_of", lambda _: "a process that is dead by now")
        if at is None:
            yield steps
        else:
            with pytest.raises(KilledError):
                yield steps


def contents(root: Path | str) -> dict[str, bytes]:
    """Every object below a root, except the timings and leases, which depend on clock and process."""
    every = {info.relative: info.location.read_bytes() for info in Location.parse(root).list()}
    return {name: data for name, data in every.items() if not name.startswith(("timings/", "lease/", "_ingest/lease/"))}
