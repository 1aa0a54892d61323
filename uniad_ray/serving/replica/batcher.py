"""Calls that come while others are at work, gathered into batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Makes a function of a list one that takes single items: what has come while a batch was at work is the next one.

    `serve.batch` takes what there is as soon as it is there, so that without a wait most batches would be of one; and
    it keeps its last batch, and with it the bundle that scored it, until there is another.
    """

    def __init__(
        self, function: Callable[[list[Item]], Awaitable[list[Result]]], *, most: int, wait_seconds: float = 0.0
    ) -> None:
        """Takes the function; nothing runs yet.

        Args:
            function: Gives a result for each item, in order.
            most: Most items of a batch.
            wait_seconds: How long a batch that is not full waits for more.
        """
        self._function = function
        self._most = most
        self._wait_seconds = wait_seconds
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._is_full = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """Gives the result of one item; whatever the function raises, all items of the batch get."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._waiting) >= self._most:
            self._is_full.set()
        if self._work is None:
            self._work = asyncio.create_task(self._work_off())
        return await future

    async def _work_off(self) -> None:
        try:
            while self._waiting:
                await self._wait_for_more()
                await self._run(self._take())
        finally:
            self._work = None

    async def _wait_for_more(self) -> None:
        if self._wait_seconds and len(self._waiting) < self._most:
            self._is_full.clear()
            try:
                await asyncio.wait_for(self._is_full.wait(), self._wait_seconds)
            except TimeoutError:
                return

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        """The next batch, without those that nobody waits for any more."""
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._most:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        if not batch:
            return
        try:
            results = await self._function([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
