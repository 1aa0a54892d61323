"""Thread-safe LRU cache with a budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class BoundedCache(Generic[ValueT]):
    """Thread-safe LRU cache with a cost budget. Concurrent requests for one key compute its value once."""

    def __init__(self, budget: int, cost: Callable[[ValueT], int] = lambda _: 1) -> None:
        """Start empty.

        Args:
            budget: Maximum total cost of all values; the newest value is always kept.
            cost: Returns the cost of a value.
        """
        self._budget = budget
        self._cost = cost
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[ValueT, int]] = OrderedDict()
        self._spent = 0
        self._being_made: dict[Hashable, Future[ValueT]] = {}

    def get(self, key: Hashable, make: Callable[[], ValueT]) -> ValueT:
        """Return the value of a key; if another thread is already computing it, wait for that.

        Args:
            key: The key.
            make: Computes the value; its exceptions are raised and not cached.
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
