"""W in blocks of rows: how it is cut, which rows of a block are at work, and asking the system for those that come next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..graph import Graph
from ..store.npy import read_ahead
from . import room
from .kernels import PIECE

T = TypeVar("T")

# Blocks of W, of 16 MiB mostly, that are read while one is at work.
_AHEAD = 2
# From this part on a block is read whole: scattered pages cost more each.
_WHOLE = 0.5


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

    @property
    def entries(self) -> slice:
        """Their entries."""
        return slice(int(self.source.indptr[self.begin]), int(self.source.indptr[self.end]))

    def rows_at(self, rows: np.ndarray) -> np.ndarray:
        """Return where some rows, counted from ``begin``, stand in L."""
        return self.source.rows[self.begin + rows] if isinstance(self.source, Part) else self.begin + rows

    @property
    def positions(self) -> slice | np.ndarray:
        """Where the rows at work stand in L."""
        if isinstance(self.source, Part):
            return self.source.rows[self.begin : self.end]
        return slice(self.begin, self.end) if len(self.rows) == self.end - self.begin else self.begin + self.rows


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


def ahead(blocks: Iterable[T], ask: Callable[[T], None]) -> Iterator[T]:
    """Go through blocks while what ``ask`` asks for of the next ones is read from disk."""
    waiting: deque[T] = deque()
    for block in blocks:
        ask(block)
        waiting.append(block)
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


def ask_for_rows(block: Block) -> None:
    """Have the rows of a block read from disk."""
    indptr, rows = block.indptr, block.rows
    pieces = np.zeros(int(indptr[-1] - indptr[0]) // PIECE + 1, np.bool_)
    if len(rows) == len(indptr) - 1:
        pieces[:] = True
    else:  # few rows are longer than a piece: what lies between is read when its turn comes
        pieces[(indptr[rows] - indptr[0]) // PIECE] = True
        pieces[(indptr[rows + 1] - indptr[0]) // PIECE] = True
    ask_for_pieces(block.source, int(indptr[0]), pieces)


def ask_for_pieces(source: Graph | Part, begin: int, pieces: np.ndarray) -> None:
    """Have pieces of W, each of `PIECE` entries and 4 KiB of neighbors, read from disk.

    Parameters
    ----------
    source : Graph or Part
        W.
    begin : int
        Entry at which the first piece begins.
    pieces : numpy.ndarray of shape (m,), bool
        Which are wanted.
    """
    wanted = np.ones_like(pieces) if pieces.mean() > _WHOLE else pieces
    edges = np.flatnonzero(np.diff(wanted.view(np.int8), prepend=np.int8(0), append=np.int8(0)))
    for first, last in edges.reshape(-1, 2).tolist():
        entries = begin + PIECE * first, min(begin + PIECE * last, len(source.indices))
        read_ahead(source.indices, *entries)
        if source.weights is not None:
            read_ahead(source.weights, *entries)
