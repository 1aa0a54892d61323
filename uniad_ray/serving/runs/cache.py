"""Keeps what was used last within a budget, and makes nothing twice at the same time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class BoundedCache(Generic[ValueT]):
    """Values by key, for many threads; what was not asked for longest goes first."""

    def __init__(self, budget: int, cost: Callable[[ValueT], int] = lambda _: 1) -> None:
        """Starts empty.

        Args:
            budget: What all values may cost together; the newest is kept whatever it costs.
            cost: What a value costs.
        """
        self._budget = budget
        self._cost = cost
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[ValueT, int]] = OrderedDict()
        self._spent = 0
        self._being_made: dict[Hashable, Future[ValueT]] = {}

    def get(self, key: Hashable, make: Callable[[], ValueT]) -> ValueT:
        """The value of a key; a thread that asks while another makes it waits for that one.

        Args:
            key: The key.
            make: Makes the value; what it raises is raised here, and nothing is kept.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
            waited_for = self._being_made.get(key)
            if waited_for is None:
                made: Future[ValueT] = Future()
                self._being_made[key] = made
        if waited_for is not None:
            return waited_for.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._being_made[key]
            made.set_exception(error)
            raise
        with self._lock:
            del self._being_made[key]
            self._keep(key, value)
        made.set_result(value)
        return value

    def _keep(self, key: Hashable, value: ValueT) -> None:
        cost = self._cost(value)
        self._values[key] = (value, cost)
        self._spent += cost
        while self._spent > self._budget and len(self._values) > 1:
            _, (_, freed) = self._values.popitem(last=False)
            self._spent -= freed
