"""The kinds of synthetic anomalies, and their families."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np

from uniad_ray.scoring.fitting.synthetic import arrangement, surface
from uniad_ray.scoring.fitting.synthetic.joining import joined
from uniad_ray.scoring.fitting.synthetic.parts import Parts

Family = Literal["surface", "amount", "place", "combination"]
"""Families: the surface; how much or how many; where and in which direction; what occurs together."""


class _Kind(NamedTuple):
    family: Family
    apply: Callable[[Parts, Sequence[Parts], np.random.Generator], np.ndarray | None]


_KINDS: Final[Mapping[str, _Kind]] = {
    "missing": _Kind("amount", arrangement.missing),
    "extra": _Kind("amount", arrangement.extra),
    "wrong_ratio": _Kind("amount", arrangement.wrong_ratio),
    "stretched": _Kind("amount", arrangement.stretched),
    "moved": _Kind("place", arrangement.moved),
    "swapped": _Kind("place", arrangement.swapped),
    "turned": _Kind("place", arrangement.turned),
    "wrong_kind": _Kind("combination", arrangement.wrong_kind),
    "other_copy": _Kind("combination", arrangement.other_copy),
    "joined": _Kind("combination", joined),
    "cut_paste": _Kind("surface", surface.cut_paste),
    "scratch": _Kind("surface", surface.scratch),
    "stain": _Kind("surface", surface.stain),
    "warp": _Kind("surface", surface.warp),
    "fleck": _Kind("surface", surface.fleck),
    "nick": _Kind("surface", surface.nick),
}

_OF_PARTS: Final = frozenset(name for name, kind in _KINDS.items() if kind.family != "surface" and name != "joined")

SYNTHETIC_ANOMALIES: Final[Sequence[str]] = tuple(_KINDS)
"""Names of the kinds of synthetic anomalies."""
LOGICAL_FAMILIES: Final[Sequence[Family]] = ("amount", "place", "combination")
"""Families of synthetic logical anomalies."""


def family_of(name: str) -> Family:
    """Return the family of a kind of synthetic anomaly."""
    return _KINDS[name].family


def uses_parts(name: str) -> bool:
    """Whether a kind of synthetic anomaly changes parts of the image, and so needs segments."""
    return name in _OF_PARTS


def make_synthetic_anomaly(
    name: str, row_key: str, parts: Parts, others: Sequence[Parts], seed: int
) -> np.ndarray | None:
    """Make a synthetic anomaly from one image, deterministic in name, key and seed.

    Args:
        name: One of `SYNTHETIC_ANOMALIES`.
        row_key: Key of the image; seeds the random numbers.
        parts: The image.
        others: Other normal images of the same shape; some kinds take pixels from them.
        seed: Seed of the random numbers.

    Returns:
        uint8, the shape of the image; None if the kind does not apply, such as a missing part without parts.
    """
    digest = hashlib.blake2b(f"{seed}:{name}:{row_key}".encode(), digest_size=8).digest()
    made = _KINDS[name].apply(parts, others, np.random.default_rng(int.from_bytes(digest, "little")))
    return None if made is None or np.array_equal(made, parts.image) else made
