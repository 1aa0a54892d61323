from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniad_ray.serving.auth.rate_limits import RateLimiter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_burst_of_one_minute_then_steady_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    assert limiter.take("a", 40, 60) == 0
    assert limiter.take("a", 20, 60) == 0
    assert limiter.take("a", 1, 60) == pytest.approx(1)
    assert limiter.take("b", 60, 60) == 0
    clock.now += 1
    assert limiter.take("a", 1, 60) == 0
    assert limiter.take("a", 3, 60) == pytest.approx(3)
    clock.now += 1000
    assert limiter.take("a", 60, 60) == 0
    assert limiter.take("a", 1, 60) > 0


def test_large_request_leaves_bucket_in_debt() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    assert limiter.take("a", 100, 60) == 0
    assert limiter.take("a", 1, 60) == pytest.approx(41)
    clock.now += 41
    assert limiter.take("a", 1, 60) == 0


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 20)), max_size=60))
def test_images_never_exceed_rate_plus_one_bucket(requests: list[tuple[float, int]]) -> None:
    clock, rate = Clock(), 20
    limiter = RateLimiter(clock)
    started, taken = clock.now, 0
    for pause, images in requests:
        clock.now += pause
        wait = limiter.take("a", images, rate)
        if not wait:
            taken += images
            assert taken <= rate + (clock.now - started) * rate / 60 + 1e-6
        else:
            # A client that waits as long as told gets through.
            clock.now += wait + 1e-9
            assert limiter.take("a", images, rate) == 0
            taken += images
