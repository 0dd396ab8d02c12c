"""Which rows of L_t must be computed: at the end those that are read, before that their neighbors, and so on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..graph import Graph
from . import kernels
from .blocks import Block, Part, row_blocks
from .reading import entries_of

# Above this part of the rows, choosing them costs more than it saves.
_WORTH = 0.75
_MOST_MASKS = 8
_ROWS = 65536
_BLOCKS_BETWEEN_COUNTS = 8


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
    parts : dict of int to Part
        Copies of these rows of W, by iteration, where there are any.
    """

    n: int
    few: bool
    masks: list[np.ndarray | None]
    entries: list[int]
    parts: dict[int, Part] = field(default_factory=dict)

    def kind(self, t: int) -> str:
        """Return what the step to L_t is called where rows are gathered."""
        return "dense" if self.masks[t] is None else "masked"

    def count(self, t: int) -> int:
        """Return how many rows are needed."""
        mask = self.masks[t]
        return self.n if mask is None else _count(mask)

    def positions(self, t: int) -> np.ndarray:
        """Return the positions of the needed rows, uint32, ascending."""
        return np.concatenate(
            [begin + self.rows(t, begin, min(begin + _ROWS, self.n)) for begin in range(0, self.n, _ROWS)]
        ).astype(np.uint32)

    def holds(self, positions: np.ndarray, t: int) -> bool:
        """Return whether the rows at all of these positions, unsigned integers (m,), are needed."""
        mask = self.masks[t]
        return mask is None or bool((mask[positions >> 3] >> (7 - (positions & 7)) & 1).all())

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
    marked, few = read, _count(read) <= _WORTH * graph.n
    if not few:
        return needed
    for t in range(n_iter, max(0, n_iter - _MOST_MASKS), -1):
        needed.masks[t] = marked
        needed.entries[t] = _entries(graph, needed, t)
        neighbors = _neighbors(graph, needed, t) if t > 1 else None
        if neighbors is None:
            break
        marked = neighbors | read if every_iteration else neighbors
    return Needed(graph.n, True, needed.masks, needed.entries)


def blocks_of(graph: Graph, needed: Needed, t: int, *, ascending: bool = False) -> Iterator[Block]:
    """Go through the blocks of rows that are computed for L_t, those without any left out.

    Unless they are to ascend, every second pass goes through W backwards: what the one before has read last is still in the
    system's cache.
    """
    source = needed.parts.get(t, graph)
    blocks = list(row_blocks(source.indptr))
    for begin, end in blocks if ascending or t % 2 else blocks[::-1]:
        rows = needed.rows(t, begin, end) if source is graph else np.arange(end - begin, dtype=np.int32)
        if len(rows):
            yield Block(source, begin, end, rows)


def _read_rows(graph: Graph, queries: np.ndarray) -> np.ndarray:
    read = np.zeros(-(-graph.n // 8), np.uint8)
    for first in range(0, len(queries), _ROWS):
        kernels.mark_read(queries[first : first + _ROWS], graph.position, read)
    return read


def _count(mask: np.ndarray) -> int:
    return sum(int(np.bitwise_count(mask[i : i + _ROWS]).sum()) for i in range(0, len(mask), _ROWS))


def _entries(graph: Graph, needed: Needed, t: int) -> int:
    return sum(int(np.diff(block.indptr)[block.rows].sum()) for block in blocks_of(graph, needed, t))


def _neighbors(graph: Graph, needed: Needed, t: int) -> np.ndarray | None:
    """Return the bits of the neighbors of the needed rows, None as soon as they are too many to be worth choosing."""
    marked = np.zeros(-(-graph.n // 8), np.uint8)
    for number, (block, (indices, _)) in enumerate(entries_of(blocks_of(graph, needed, t))):
        kernels.mark_neighbors(block.rows, block.indptr, indices, marked)
        if number % _BLOCKS_BETWEEN_COUNTS == 0 and _count(marked) > _WORTH * graph.n:
            return None
    return None if _count(marked) > _WORTH * graph.n else marked
