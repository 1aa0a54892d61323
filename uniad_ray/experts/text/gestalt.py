"""Finds the most similar text by Gestalt pattern matching (Ratcliff and Obershelp) without comparing all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from cydifflib import SequenceMatcher
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

# More than the rounding error of a ratio of two integers.
_ROUNDING: Final = 1e-9


class Match(NamedTuple):
    """The most similar text.

    Attributes:
        position: Index of the text; the first one of equal texts.
        ratio: Similarity in 0..1; 1 for the same text.
    """

    position: int
    ratio: float


def gestalt_ratio(text: str, query: str) -> float:
    """Similarity by Gestalt pattern matching, as `difflib.SequenceMatcher(None, text, query, autojunk=False).ratio()`.

    It is twice the number of characters in matching blocks, divided by the number of all characters. The order of the
    two texts matters if there are several longest blocks.

    Args:
        text: A text of the bank.
        query: The text to look up.

    Returns:
        A number in 0..1; 1 for equal texts, including two empty ones.
    """
    return float(SequenceMatcher(None, text, query, autojunk=False).ratio())


class GestaltIndex:
    """Finds exactly the result of comparing with every text.

    The matching blocks form a common subsequence, so the longest common subsequence gives an upper bound of the ratio
    and is much faster to compute. Texts are compared in the order of their bounds, until the best ratio exceeds the
    remaining bounds.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Builds the index; repeated texts cost nothing.

        Raises:
            ValueError: There are no texts.
        """
        first: dict[str, int] = {}
        for position, text in enumerate(texts):
            first.setdefault(text, position)
        self._single = {text for text, count in Counter(texts).items() if count == 1}
        if not first:
            raise ValueError("there is no text to compare with")
        self._positions = first
        self._texts = list(first)
        self._lengths = np.array([len(text) for text in self._texts])

    def nearest(self, query: str) -> Match:
        """The most similar text; the first one of equal texts."""
        if query in self._positions:
            return Match(self._positions[query], 1.0)
        return self._search(query, self._bounds(query))

    def nearest_other(self, query: str) -> Match:
        """The most similar text without one copy of the query itself, for comparing texts of the bank.

        Raises:
            ValueError: There is no other text.
        """
        if query not in self._single:
            return self.nearest(query)
        bounds = self._bounds(query)
        bounds[self._texts.index(query)] = -np.inf
        if not np.isfinite(bounds).any():
            raise ValueError("there is no other text")
        return self._search(query, bounds)

    def _bounds(self, query: str) -> np.ndarray:
        shared = cdist([query], self._texts, scorer=LCSseq.similarity, dtype=np.int32)[0]
        return np.asarray(2.0 * shared / np.maximum(self._lengths + len(query), 1))

    def _search(self, query: str, bounds: np.ndarray) -> Match:
        best = Match(-1, -1.0)
        for candidate in np.argsort(-bounds, kind="stable"):
            if bounds[candidate] < best.ratio - _ROUNDING or np.isneginf(bounds[candidate]):
                break
            text = self._texts[candidate]
            found = Match(self._positions[text], gestalt_ratio(text, query))
            if (found.ratio, -found.position) > (best.ratio, -best.position):
                best = found
        return best
