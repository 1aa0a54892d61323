from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from uniad_ray.serving.replica.batcher import Batcher


class Doubling:
    """Doubles numbers once released; records its batches."""

    def __init__(self) -> None:
        self.may_go = asyncio.Event()
        self.batches: list[list[int]] = []

    async def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        await self.may_go.wait()
        if 13 in numbers:
            raise ValueError("13")
        return [2 * number for number in numbers]


def test_items_arriving_during_batch_form_next_one() -> None:
    async def run() -> None:
        double = Doubling()
        batcher = Batcher(double, most=4)
        first = asyncio.create_task(batcher(1))
        await asyncio.sleep(0.01)
        later = [asyncio.create_task(batcher(number)) for number in range(2, 8)]
        await asyncio.sleep(0.01)
        assert double.batches == [[1]]
        double.may_go.set()
        assert await first == 2
        assert await asyncio.gather(*later) == [4, 6, 8, 10, 12, 14]
        assert double.batches == [[1], [2, 3, 4, 5], [6, 7]]
        assert await batcher(8) == 16

    asyncio.run(run())


def test_partial_batch_waits_for_configured_time() -> None:
    async def run() -> None:
        double = Doubling()
        double.may_go.set()
        batcher = Batcher(double, most=2, wait_seconds=0.2)
        clock = asyncio.get_running_loop().time
        started = clock()
        await batcher(5)
        assert clock() - started > 0.15
        assert double.batches == [[5]]

    asyncio.run(run())


def test_full_batch_does_not_wait() -> None:
    async def run() -> None:
        double = Doubling()
        double.may_go.set()
        batcher = Batcher(double, most=3, wait_seconds=3600)

        async def later(number: int) -> int:
            await asyncio.sleep(0.05 * number)
            return await batcher(number)

        assert await asyncio.wait_for(asyncio.gather(later(0), later(1), later(2)), 60) == [0, 2, 4]
        assert double.batches == [[0, 1, 2]]

    asyncio.run(run())


def test_error_affects_only_its_batch() -> None:
    async def run() -> None:
        double = Doubling()
        batcher = Batcher(double, most=2)
        tasks = [asyncio.create_task(batcher(number)) for number in (12, 13, 14)]
        double.may_go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(entry) for entry in found] == [ValueError, ValueError, int]
        assert await batcher(1) == 2

    asyncio.run(run())


def test_cancelled_items_are_skipped() -> None:
    async def run() -> None:
        double = Doubling()
        batcher = Batcher(double, most=4)
        tasks = [asyncio.create_task(batcher(number)) for number in range(3)]
        await asyncio.sleep(0.01)
        more = [asyncio.create_task(batcher(number)) for number in (5, 6)]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        more[0].cancel()
        double.may_go.set()
        with pytest.raises(asyncio.CancelledError):
            await more[0]
        assert (await tasks[0], await tasks[2], await more[1]) == (0, 4, 12)
        assert double.batches == [[0, 1, 2], [6]]

    asyncio.run(run())


def test_batches_are_not_retained() -> None:
    class Thing:
        pass

    async def name(things: list[Thing]) -> list[str]:
        return [type(thing).__name__ for thing in things]

    async def run() -> None:
        batcher = Batcher(name, most=4)
        thing = Thing()
        gone = weakref.ref(thing)
        assert await batcher(thing) == "Thing"
        del thing
        await asyncio.sleep(0.01)
        gc.collect()
        assert gone() is None

    asyncio.run(run())
