"""Access keys and rate limits."""

from __future__ import annotations

from uniad_ray.serving.auth.key_file import add_key, revoke_key
from uniad_ray.serving.auth.keys import (
    AccessDeniedError,
    AccessKey,
    KeyRing,
    NotAllowedError,
    NotAuthenticatedError,
    read_keys,
)
from uniad_ray.serving.auth.rate_limits import RateLimiter

__all__ = [
    "AccessDeniedError",
    "AccessKey",
    "KeyRing",
    "NotAllowedError",
    "NotAuthenticatedError",
    "RateLimiter",
    "add_key",
    "read_keys",
    "revoke_key",
]
