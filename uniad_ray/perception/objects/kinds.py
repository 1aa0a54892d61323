"""Kinds of instances, found without labels: those groups of alike instances whose number is regular.

Normal images hold one bolt and two washers, whatever else varies. In a tree of likeness, those groups are the kinds
whose counts are the least like chance: pieces that are alike and come in steady numbers belong together, and pieces
that come and go are of no kind.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.cluster.hierarchy import linkage

from uniad_ray.perception.regularity import count_regularity

NO_KIND: Final = -1

# In nats an image: one part in every image has 1.28, a part in every other image 0.28.
_LEAST_REGULARITY: Final = 0.5


def find_kinds(descriptors: np.ndarray, owners: np.ndarray, images: int) -> tuple[np.ndarray, float]:
    """Divides instances into kinds: those disjoint groups of a tree (Ward's) with the most regularity in total.

    Args:
        descriptors: float, shape (n, D).
        owners: int64, shape (n,): the image of each instance, below `images`.
        images: The number of images; some may hold no instance.

    Returns:
        The kind of each instance, int64, shape (n,), counted from 0, or `NO_KIND`; and the total regularity.
    """
    kinds = np.full(len(descriptors), NO_KIND)
    if len(descriptors) < 2:
        return kinds, 0.0
    branches = linkage(descriptors, "ward")[:, :2].astype(np.int64)
    counts = np.zeros((len(descriptors) + len(branches), images), dtype=np.int32)
    counts[np.arange(len(descriptors)), owners] = 1
    most = np.zeros(len(counts))
    is_kind = np.zeros(len(counts), dtype=bool)
    for node, (first, second) in enumerate(branches, start=len(descriptors)):
        counts[node] = counts[first] + counts[second]
        together, apart = count_regularity(counts[node]), most[first] + most[second]
        is_kind[node] = together >= max(apart, _LEAST_REGULARITY)
        most[node] = together if is_kind[node] else apart
    found = 0
    pending = [(len(counts) - 1, NO_KIND)]
    while pending:
        node, kind = pending.pop()
        if kind == NO_KIND and is_kind[node]:
            kind, found = found, found + 1
        if node < len(descriptors):
            kinds[node] = kind
        else:
            pending += [(int(branch), kind) for branch in branches[node - len(descriptors)]]
    return kinds, float(most[-1])
