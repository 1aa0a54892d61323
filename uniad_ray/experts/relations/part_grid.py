"""A grid learned from normal images, with lines where almost no parts lie.

Trays, blisters and boards have fixed places for parts. If parts lie anywhere, there are no such lines, and the grid is
a single cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

_MOST_LINES: Final = 5
# A segmentation may fail in one of this many images.
_CROSSED_SHARE: Final = 1.0 / 32.0
_POSITIONS: Final = 256
# Narrower gaps are chance: other images may have a part there.
_LEAST_GAP: Final = 8


@dataclass(frozen=True)
class PartGrid:
    """Rows and columns of cells.

    Attributes:
        row_lines: Positions of the lines between rows, ascending, float64, shape (r - 1,), each in 0..1.
        column_lines: Positions of the lines between columns, ascending, float64, shape (c - 1,), each in 0..1.
    """

    row_lines: np.ndarray
    column_lines: np.ndarray

    @classmethod
    def learn(cls, boxes: np.ndarray, owners: np.ndarray, images: int) -> Self:
        """Puts a line in the middle of each gap between parts; of more than five gaps per axis, uses the widest.

        Args:
            boxes: float, shape (n, 4): top, left, bottom and right of each part of the normal images, each in 0..1.
            owners: int64, shape (n,): image index of each part, below `images`.
            images: Number of images.
        """
        return cls(*(_lines(boxes[:, axis], boxes[:, axis + 2], owners, images) for axis in (0, 1)))

    def __len__(self) -> int:
        """Number of cells."""
        return (len(self.row_lines) + 1) * (len(self.column_lines) + 1)

    def position(self, cell: int) -> tuple[int, int]:
        """Row and column of a cell, from 0; cells are numbered row by row."""
        return divmod(cell, len(self.column_lines) + 1)

    def shares(self, boxes: np.ndarray) -> np.ndarray:
        """Fraction of each box in each cell, so that a part on a line counts in both cells.

        Args:
            boxes: float, shape (n, 4), each in 0..1.

        Returns:
            float64, shape (n, cells), each row with sum 1.
        """
        rows = _overlaps(boxes[:, 0], boxes[:, 2], self.row_lines)
        columns = _overlaps(boxes[:, 1], boxes[:, 3], self.column_lines)
        return np.asarray((rows[:, :, None] * columns[:, None, :]).reshape(len(boxes), len(self)))

    def cells(self, height: int, width: int) -> np.ndarray:
        """Cell index of each pixel of an image: int64, shape (height, width)."""
        rows = np.searchsorted(self.row_lines, (np.arange(height) + 0.5) / height)
        columns = np.searchsorted(self.column_lines, (np.arange(width) + 0.5) / width)
        return np.asarray(rows[:, None] * (len(self.column_lines) + 1) + columns)


def _lines(starts: np.ndarray, ends: np.ndarray, owners: np.ndarray, images: int) -> np.ndarray:
    places = (np.arange(_POSITIONS) + 0.5) / _POSITIONS
    crossed = np.zeros((images, _POSITIONS), dtype=bool)
    np.logical_or.at(crossed, owners, (places >= starts[:, None]) & (places <= ends[:, None]))
    is_taken = np.concatenate([[True], crossed.mean(axis=0) > _CROSSED_SHARE, [True]])
    taken = np.flatnonzero(is_taken)
    widths = np.diff(taken) - 1
    # The first and the last gap are the margins of the image, without parts beyond them.
    inner = np.flatnonzero(widths >= _LEAST_GAP)
    inner = inner[(taken[inner] > 0) & (taken[inner + 1] < len(is_taken) - 1)]
    widest = np.sort(inner[np.argsort(-widths[inner], kind="stable")[:_MOST_LINES]])
    return np.asarray((taken[widest] + taken[widest + 1] - 1) / 2 / _POSITIONS)


def _overlaps(starts: np.ndarray, ends: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Fractions of intervals between lines: float64, shape (n, lines + 1)."""
    edges = np.concatenate([[-np.inf], lines, [np.inf]])
    ends = np.maximum(ends, starts + 1e-6)
    inside = np.minimum(ends[:, None], edges[1:]) - np.maximum(starts[:, None], edges[:-1])
    return np.asarray(np.maximum(inside, 0.0) / (ends - starts)[:, None])
