"""W in blocks of rows: how it is cut, and which rows of a block are at work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph import Graph
from . import room


@dataclass(frozen=True)
class Part:
    """Some rows of W, copied together: to read them alone costs no more than their size.

    Parameters
    ----------
    rows : numpy.ndarray of shape (m,), uint32
        Their positions, ascending.
    indptr : numpy.ndarray of shape (m + 1,), int64
        Where each begins in ``indices``.
    indices : numpy.ndarray of shape (entries,), uint32
        As in `Graph`: the neighbors' positions in all of W.
    row_scale : numpy.ndarray of shape (m,), float32
        As in `Graph`.
    weights : numpy.ndarray of shape (entries,), float32, or None
        As in `Graph`.
    """

    rows: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    row_scale: np.ndarray
    weights: np.ndarray | None


@dataclass(frozen=True)
class Block:
    """Some rows of W or of a part of it.

    Parameters
    ----------
    source : Graph or Part
        Where they are read.
    begin, end : int
        The rows of the source among which they are.
    rows : numpy.ndarray of shape (m,), int32
        Which these are, counted from ``begin``, ascending.
    """

    source: Graph | Part
    begin: int
    end: int
    rows: np.ndarray

    @property
    def indptr(self) -> np.ndarray:
        """Offsets of the rows from begin to end, int64."""
        return self.source.indptr[self.begin : self.end + 1]

    def rows_at(self, rows: np.ndarray) -> np.ndarray:
        """Return where some rows, counted from ``begin``, stand in L."""
        return self.source.rows[self.begin + rows] if isinstance(self.source, Part) else self.begin + rows


def row_blocks(indptr: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut the rows of W into blocks with a bounded number of rows and, but for single groups of 8 rows, of entries.

    Blocks begin at multiples of 8, where a byte of a mask does.
    """
    begin, n = 0, len(indptr) - 1
    while begin < n:
        window = indptr[begin : begin + room.BLOCK_ROWS + 1]
        end = begin + int(np.searchsorted(window, window[0] + room.BLOCK_ENTRIES, side="right")) - 1
        end = min(n, max(begin + 8, end // 8 * 8))
        yield begin, end
        begin = end
