"""Rate limits per key: token buckets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Bucket:
    tokens: float
    seen_at: float


class RateLimiter:
    """One bucket per key; each image takes a token. Buckets are per process: N gateways allow N times the rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without buckets.

        Args:
            clock: Monotonic clock, in seconds.
        """
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key: str, images: int, a_minute: float) -> float:
        """Take one token per image, or none at all.

        A bucket holds the tokens of one minute, which allows bursts of that size. A larger request passes if the bucket
        is full and leaves it in debt; otherwise it could never be sent.

        Args:
            key: Name of the key.
            images: Number of images.
            a_minute: Rate of the key, in images per minute.

        Returns:
            0.0 if the tokens were taken, else the seconds to wait.
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
