"""Dynamic batching of concurrent calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Call a list function with single items: items that arrive during a batch form the next one.

    `serve.batch` starts a batch as soon as an item arrives; without a wait, most batches would hold one item. It also
    keeps a reference to its last batch, and thus to the bundle that scored it.
    """

    def __init__(
        self, function: Callable[[list[Item]], Awaitable[list[Result]]], *, most: int, wait_seconds: float = 0.0
    ) -> None:
        """Take the function; nothing runs yet.

        Args:
            function: Returns one result per item, in order.
            most: Maximum batch size.
            wait_seconds: Maximum time to wait for a full batch.
        """
        self._function = function
        self._most = most
        self._wait_seconds = wait_seconds
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._is_full = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """Return the result of one item; an exception of the function is raised for every item of the batch."""
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
        """Take the next batch, without cancelled items."""
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
