"""Which rows of L_t must be computed: at the end those that are read, before that their neighbors, and so on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph import Graph
from . import kernels, room

# Above this part of the rows, choosing them costs more than it saves.
_WORTH = 0.75
_MOST_MASKS = 8
_ROWS = 65536


@dataclass(frozen=True)
class Needed:
    """The rows that must be right at each iteration.

    Parameters
    ----------
    n : int
        Number of all rows N.
    few : bool
        Whether so few rows are read in the end that not all of L_T is computed; its column sums then come from elsewhere.
    masks : list
        For t = 0 .. T the needed rows as bits, uint8 (N / 8,), or None for all of them.
    entries : list of int
        Entries of W in these rows.
    """

    n: int
    few: bool
    masks: list[np.ndarray | None]
    entries: list[int]

    def count(self, t: int) -> int:
        """Return how many rows are needed."""
        mask = self.masks[t]
        return self.n if mask is None else int(np.bitwise_count(mask).sum())

    def rows(self, t: int, begin: int, end: int) -> np.ndarray:
        """Return the needed rows between two positions, counted from the first (int32); ``begin`` is a multiple of 8."""
        mask = self.masks[t]
        if mask is None:
            return np.arange(end - begin, dtype=np.int32)
        bits = np.unpackbits(mask[begin // 8 : -(-end // 8)], count=end - begin)
        return np.flatnonzero(bits).astype(np.int32)


def all_rows(graph: Graph, n_iter: int) -> Needed:
    """Return what is needed where every row is read."""
    return Needed(graph.n, False, [None] * (n_iter + 1), [graph.nnz] * (n_iter + 1))


def needed_rows(graph: Graph, queries: np.ndarray | None, n_iter: int, *, every_iteration: bool) -> Needed:
    """Go back from the rows that queries read to those that L_t must have.

    Parameters
    ----------
    graph : Graph
        W.
    queries : numpy.ndarray of shape (q, k), integers, or None
        Neighbor ids of the queries, -1 = none; None reads all rows.
    n_iter : int
        Number of iterations T.
    every_iteration : bool
        Whether the queries read each L_t.

    Returns
    -------
    Needed
        Each row of L_t whose neighbors are needed at t + 1, or that is read at t, is among the needed rows of t.
    """
    needed = all_rows(graph, n_iter)
    if queries is None:
        return needed
    read = _read_rows(graph, queries)
    marked, few = read, read.mean() <= _WORTH
    if not few:
        return needed
    for t in range(n_iter, max(0, n_iter - _MOST_MASKS), -1):
        needed.masks[t] = np.packbits(marked)
        needed.entries[t] = int(np.diff(graph.indptr)[marked].sum()) if graph.n <= _ROWS else _count(graph, marked)
        marked = _neighbors(graph, needed, t)
        if every_iteration:
            marked |= read
        if marked.mean() > _WORTH:
            break
    return Needed(graph.n, True, needed.masks, needed.entries)


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


def _read_rows(graph: Graph, queries: np.ndarray) -> np.ndarray:
    read = np.zeros(graph.n, np.bool_)
    for first in range(0, len(queries), _ROWS):
        block = queries[first : first + _ROWS]
        read[graph.position[block[block >= 0]]] = True
    return read


def _count(graph: Graph, marked: np.ndarray) -> int:
    return sum(int(np.diff(graph.indptr[b : e + 1])[marked[b:e]].sum()) for b, e in row_blocks(graph.indptr))


def _neighbors(graph: Graph, needed: Needed, t: int) -> np.ndarray:
    marked = np.zeros(graph.n, np.bool_)
    for begin, end in row_blocks(graph.indptr):
        rows = needed.rows(t, begin, end)
        if len(rows):
            indptr = graph.indptr[begin : end + 1]
            kernels.mark_neighbors(rows, indptr, graph.indices[indptr[0] : indptr[-1]], marked)
    return marked
