"""Unsupervised discovery of object kinds: groups of similar instances with regular counts.

Normal images hold, for example, one bolt and two washers, whatever else varies. Kinds are the groups in a similarity
tree whose counts per image are least likely by chance. Instances that come and go belong to no kind.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.cluster.hierarchy import linkage

from uniad_ray.perception.regularity import count_regularity

NO_KIND: Final = -1

# In nats per image: a part in every image has 1.28, a part in every second image 0.28.
_LEAST_REGULARITY: Final = 0.5


def find_kinds(descriptors: np.ndarray, owners: np.ndarray, images: int) -> tuple[np.ndarray, float]:
    """Divides instances into kinds: the disjoint groups of Ward's tree with the highest total regularity.

    Args:
        descriptors: float, shape (n, D).
        owners: int64, shape (n,): index of the image of each instance, below `images`.
        images: Number of images, including those without instances.

    Returns:
        The kind of each instance, int64, shape (n,), numbered from 0, or `NO_KIND`; and the total regularity.
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
