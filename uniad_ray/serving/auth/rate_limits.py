"""How many images a key may send: a bucket of tokens that fills at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Bucket:
    tokens: float
    seen_at: float


class RateLimiter:
    """One bucket a key; each image takes a token. Buckets are of one process: N gateways allow N times the rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts with no key known.

        Args:
            clock: Seconds that never go back.
        """
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key: str, images: int, a_minute: float) -> float:
        """Takes tokens for some images, or none.

        A bucket holds a minute's worth, so that a key that was quiet may send so many at once. More images than that
        in one request pass from a full bucket, which then is in debt: they could never be sent otherwise.

        Args:
            key: Name of the key.
            images: How many.
            a_minute: The rate of the key, images.

        Returns:
            0.0 where they were taken, else the seconds after which they could be.
        """
        now = self._clock()
        bucket = self._buckets.setdefault(key, _Bucket(a_minute, now))
        bucket.tokens = min(a_minute, bucket.tokens + (now - bucket.seen_at) * a_minute / 60)
        bucket.seen_at = now
        wanted = min(float(images), a_minute)
        if bucket.tokens < wanted:
            return (wanted - bucket.tokens) * 60 / a_minute
        bucket.tokens -= images
        return 0.0
