"""Pseudo-random sampling priorities that depend only on the row keys of the images."""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def sampling_priorities(row_key: str, count: int, seed: int = 0) -> np.ndarray:
    """Pseudo-random priorities of the patches of one image, computed from its row key (splitmix64).

    Args:
        row_key: The image's key in the archive.
        count: The number of patches P.
        seed: Seed; different seeds give independent samples.

    Returns:
        uint64, shape (P,), distinct within the image.
    """
    digest = hashlib.blake2b(f"{seed}:{row_key}".encode(), digest_size=8).digest()
    with np.errstate(over="ignore"):
        mixed = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN + np.uint64(int.from_bytes(digest, "little"))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)
