from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from uniad_ray.serving.runs.cache import BoundedCache


def test_least_recently_used_value_is_evicted() -> None:
    made: list[str] = []

    def make(text: str) -> str:
        made.append(text)
        return text

    cache: BoundedCache[str] = BoundedCache(5, len)
    for text in ("aa", "bb", "aa", "cc", "aa", "bb"):
        assert cache.get(text, lambda text=text: make(text)) == text  # type: ignore[misc]
    assert made == ["aa", "bb", "cc", "bb"]
    # A value above the whole budget is still kept, alone.
    for _ in range(2):
        cache.get("all", lambda: make("x" * 9))
    assert made[4:] == ["x" * 9]


def test_concurrent_requests_compute_value_once() -> None:
    cache: BoundedCache[int] = BoundedCache(10)
    calls = 0
    all_ask = threading.Barrier(4)
    made = threading.Event()

    def make() -> int:
        nonlocal calls
        calls += 1
        made.wait(5)
        return 7

    def ask() -> int:
        all_ask.wait(5)
        return cache.get("key", make)

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        threading.Timer(0.1, made.set).start()
        assert [future.result(5) for future in asked] == [7] * 4
    assert calls == 1


def test_failures_are_raised_and_not_cached() -> None:
    cache: BoundedCache[int] = BoundedCache(10)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 // 0)
    assert cache.get("key", lambda: 3) == 3
