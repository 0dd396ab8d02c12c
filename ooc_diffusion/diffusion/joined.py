"""The last two steps together, for more sparse columns at once than an L that is dense has room for.

Where queries read few rows, a row of L_{T-1} goes at once along its edges into the sums of the few rows of L_T and is then
forgotten: what is held are the entries of L_{T-2} and these sums, so that one pass of W serves hundreds of columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..graph import Graph
from . import kernels
from .blocks import Block
from .needed import Needed, blocks_of
from .reading import entries_of
from .room import make_rows
from .sparse import SparseRows

# Where the rows of L_{T-2} begin is kept in uint32.
MOST_ENTRIES = 2**32 - 1
# Rows of L_{T-1} that are made at once: with some hundred columns they stay near the cores.
_TILE_ROWS = 16384
_TILE_SPAN = 2**18
_PARTS_PER_THREAD = 4
# Looking up a row of the sparse L costs as much as reading so many lines of a dense one; adding one of its entries, this part.
_LINES_PER_ROW = 2.0
_LINES_PER_ENTRY = 0.2
_NO_WEIGHTS = np.empty(0, np.float32)


def possible(needed: Needed, n_iter: int, *, every_iteration: bool) -> bool:
    """Return whether L_{T-1} may be forgotten and L_T has few rows."""
    return n_iter >= 3 and needed.few and not every_iteration


def held_bytes(graph: Graph, needed: Needed, n_iter: int, columns: int, entries: int, itemsize: int) -> int:
    """Return the bytes that so many columns of L_{T-2} with so many entries take at most, these columns included."""
    starts, few = 4 * (graph.n + 1), needed.count(n_iter)
    made = 16 * entries + starts
    # sums and L_T, one after the other beside the pairs
    sums = 8 * entries + starts + few * (24 + columns * (8 + itemsize)) + _TILE_ROWS * (8 + columns * itemsize) + 12 * _TILE_SPAN
    return max(made, sums)


def worth(sent: int, columns: int, columns_per_line: int, nnz: int) -> bool:
    """Return whether that costs less than a dense product for each line of columns; ``sent``: see `SparseColumns.count_sent`."""
    return _LINES_PER_ROW + _LINES_PER_ENTRY * sent / max(1, nnz) < -(-columns // columns_per_line)


def last_two(graph: Graph, L: SparseRows, needed: Needed, n_iter: int, *, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Return L_T from L_{T-2}.

    Parameters
    ----------
    graph : Graph
        W.
    L : SparseRows
        L_{T-2}.
    needed : Needed
        Rows that must be right.
    n_iter : int
        T.
    threads : int
        Threads.

    Returns
    -------
    positions : numpy.ndarray of shape (m,), uint32
        The rows of L_T that are needed, ascending.
    rows : numpy.ndarray of shape (m, C'), float32 or the bits of bfloat16
        These rows. Each entry has the same bytes as where the steps are taken one after the other.
    """
    positions = needed.positions(n_iter)
    sums = make_rows(len(positions), L.n_columns, np.dtype(np.float64))
    sums[:] = 0.0
    take = _Taken(graph, needed, n_iter, positions, threads)
    tile = make_rows(_TILE_ROWS, L.n_columns, L.dtype)
    for block, entries in entries_of(_ascending(graph, needed, n_iter - 1)):
        scale = block.source.row_scale[block.begin : block.end]
        for some in _tiles(block.rows_at(block.rows)):
            rows = block.rows[some]
            bounds = np.linspace(0, len(rows), _PARTS_PER_THREAD * threads + 1).astype(np.int64)
            kernels.multiply_sparse(bounds, rows, (block.indptr, *entries), scale, L.starts, L.pairs, tile)
            take(block.rows_at(rows), tile, sums)
    done = make_rows(len(positions), L.n_columns, L.dtype)
    kernels.scale_rows(sums, positions, graph.row_scale, done)
    return positions, done


class _Taken:
    """How far the sums that make the rows of L_T have come: their neighbors ascend, as the rows of L_{T-1} do."""

    def __init__(self, graph: Graph, needed: Needed, n_iter: int, positions: np.ndarray, threads: int) -> None:
        part = needed.parts.get(n_iter)
        source = graph if part is None else part
        rows = positions if part is None else slice(0, -1)
        self._cursors, self._ends = source.indptr[rows].copy(), source.indptr[1:][positions if part is None else slice(None)]
        self._entries = source.indices, _NO_WEIGHTS if source.weights is None else source.weights
        self._bounds = np.linspace(0, len(positions), _PARTS_PER_THREAD * threads + 1).astype(np.int64)

    def __call__(self, positions: np.ndarray, tile: np.ndarray, sums: np.ndarray) -> None:
        """Add what these rows, ascending, contribute; those in between are not needed by any sum."""
        first = int(positions[0])
        places = np.zeros(int(positions[-1]) - first + 1, np.int32)
        places[positions - first] = np.arange(len(positions))
        kernels.take_rows(self._bounds, self._cursors, self._ends, self._entries, first, places, tile, sums)


def _ascending(graph: Graph, needed: Needed, t: int) -> list[Block]:
    # in this order the sums are made as where the steps are taken one by one
    blocks = list(blocks_of(graph, needed, t))
    return blocks if t % 2 else blocks[::-1]


def _tiles(positions: np.ndarray) -> Iterator[slice]:
    """Cut rows at ascending positions into tiles of few rows that do not lie far apart."""
    first = 0
    while first < len(positions):
        near = int(np.searchsorted(positions, int(positions[first]) + _TILE_SPAN))
        yield slice(first, min(near, first + _TILE_ROWS))
        first = min(near, first + _TILE_ROWS)
