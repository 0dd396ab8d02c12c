"""The last two steps together, where queries read few rows.

A row of L_{T-1} goes at once along its edges into the sums of the few rows of L_T and is then forgotten. For an L_{T-2} that is
dense this spares a file for L_{T-1}. For one that is sparse, all that is held are its entries and these sums, so that one pass of
W serves hundreds of columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..graph import Graph
from . import room, sparse_kernels
from .blocks import Block
from .iterate import Product, product
from .needed import Needed, blocks_of
from .reading import NO_WEIGHTS, Entries, entries_of
from .room import make_rows
from .sparse import SparseRows

# Where the rows of L_{T-2} begin is kept in uint32.
MOST_ENTRIES = 2**32 - 1
# Rows of L_{T-1} that are made at once, and how far apart they lie: all sums are asked for each such tile, so few are better.
_TILE_BYTES = 2**26
_TILE_SPAN = 2**18
_PARTS_PER_THREAD = 4
# Looking up a row of the sparse L costs as much as reading so many lines of a dense one; adding one of its entries, this part.
_LINES_PER_ROW = 2.0
_LINES_PER_ENTRY = 0.2
# Asking a sum whether it takes some of the rows at hand costs as much as writing and reading back so many bytes.
_BYTES_PER_QUESTION = 1.0


def possible(needed: Needed, n_iter: int, *, every_iteration: bool) -> bool:
    """Return whether L_{T-1} may be forgotten and L_T has few rows."""
    return n_iter >= 2 and needed.few and not every_iteration


def better_than_a_file(graph: Graph, needed: Needed, n_iter: int, columns: int, itemsize: int, *, memory_bytes: int) -> bool:
    """Return whether the last two steps of a dense L of so many columns are better taken together, and fit beside it."""
    few, blocks = needed.count(n_iter), max(graph.nnz // room.BLOCK_ENTRIES, graph.n // room.BLOCK_ROWS) + 1
    asking = few * blocks * _BYTES_PER_QUESTION
    held = _sums_bytes(few, columns, itemsize) + _tile_bytes(columns, itemsize)
    return asking < needed.count(n_iter - 1) * columns * itemsize and held <= memory_bytes


def held_bytes(graph: Graph, needed: Needed, n_iter: int, columns: int, entries: int, itemsize: int) -> int:
    """Return the bytes that so many columns of L_{T-2} with so many entries take at most, these columns included."""
    starts, few = 4 * (graph.n + 1), needed.count(n_iter)
    made = 16 * entries + starts
    # sums and L_T, one after the other beside the pairs
    tile = _tile_bytes(columns, itemsize)
    return max(made, 8 * entries + starts + _sums_bytes(few, columns, itemsize) + tile)


def worth(sent: int, columns: int, columns_per_line: int, nnz: int) -> bool:
    """Return whether that costs less than a dense product for each line of columns; ``sent``: see `SparseColumns.count_sent`."""
    return lines(sent, nnz) < -(-columns // columns_per_line)


def lines(sent: int, nnz: int) -> float:
    """Return with how many lines of a dense L an entry of W costs as much as with a sparse one."""
    return _LINES_PER_ROW + _LINES_PER_ENTRY * sent / max(1, nnz)


def _sums_bytes(few: int, columns: int, itemsize: int) -> int:
    return few * (32 + columns * (8 + itemsize))


def _tile_bytes(columns: int, itemsize: int) -> int:
    return _tile_rows(columns, itemsize) * (8 + columns * itemsize) + 12 * _TILE_SPAN


def last_two(
    graph: Graph, L: SparseRows | np.ndarray, needed: Needed, n_iter: int, *, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return L_T from L_{T-2}.

    Parameters
    ----------
    graph : Graph
        W.
    L : SparseRows or numpy.ndarray of shape (N, C')
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
    columns = L.n_columns if isinstance(L, SparseRows) else L.shape[1]
    multiply: Product = _Sparse(L, threads) if isinstance(L, SparseRows) else product(L, threads)
    positions = needed.positions(n_iter)
    sums = make_rows(len(positions), columns, np.dtype(np.float64))
    sums[:] = 0.0
    take = _Taken(graph, needed, n_iter, positions, threads)
    tile = make_rows(_tile_rows(columns, L.dtype.itemsize), columns, L.dtype)
    # ascending, so that the sums are made as where the steps are taken one by one
    for block, entries in entries_of(blocks_of(graph, needed, n_iter - 1, ascending=True)):
        for some in _tiles(block.rows_at(block.rows), len(tile)):
            part = replace(block, rows=block.rows[some])
            rows = tile[: len(part.rows)]
            multiply(part, entries, rows)
            take(part.rows_at(part.rows), rows, sums)
    done = make_rows(len(positions), columns, L.dtype)
    sparse_kernels.scale_rows(sums, positions, graph.row_scale, done)
    return positions, done


class _Sparse:
    """Products of rows of W with an L of which the entries that are not zero are given."""

    def __init__(self, L: SparseRows, threads: int) -> None:
        self._L, self._parts = L, _PARTS_PER_THREAD * threads

    def __call__(self, block: Block, entries: Entries, out: np.ndarray) -> None:
        """Write the rows at work in a block, W L, to ``out`` (rows, C')."""
        rows, scale = block.rows, block.source.row_scale[block.begin : block.end]
        bounds = np.linspace(0, len(rows), self._parts + 1).astype(np.int64)
        sparse_kernels.multiply_sparse(bounds, rows, (block.indptr, *entries), scale, self._L.starts, self._L.pairs, out)


class _Taken:
    """How far the sums that make the rows of L_T have come: their neighbors ascend, as the rows of L_{T-1} do."""

    def __init__(self, graph: Graph, needed: Needed, n_iter: int, positions: np.ndarray, threads: int) -> None:
        part = needed.parts.get(n_iter)
        source = graph if part is None else part
        rows = positions if part is None else slice(0, -1)
        self._cursors, self._ends = source.indptr[rows].copy(), source.indptr[1:][positions if part is None else slice(None)]
        self._entries = source.indices, NO_WEIGHTS if source.weights is None else source.weights
        self._bounds = np.linspace(0, len(positions), _PARTS_PER_THREAD * threads + 1).astype(np.int64)
        self._following = np.empty(len(positions), np.uint32)
        sparse_kernels.find_following(self._cursors, self._ends, source.indices, self._following)

    def __call__(self, positions: np.ndarray, rows: np.ndarray, sums: np.ndarray) -> None:
        """Add what these rows, ascending, contribute; those in between are not needed by any sum."""
        first = int(positions[0])
        places = np.zeros(int(positions[-1]) - first + 1, np.int32)
        places[positions - first] = np.arange(len(positions))
        sparse_kernels.take_rows(
            self._bounds, self._cursors, self._ends, self._following, self._entries, first, places, rows, sums
        )


def _tile_rows(columns: int, itemsize: int) -> int:
    return int(max(1, min(room.BLOCK_ROWS, _TILE_BYTES // (columns * itemsize))))


def _tiles(positions: np.ndarray, most: int) -> Iterator[slice]:
    """Cut rows at ascending positions into tiles of few rows that do not lie far apart."""
    first = 0
    while first < len(positions):
        near = int(np.searchsorted(positions, int(positions[first]) + _TILE_SPAN))
        yield slice(first, min(near, first + most))
        first = min(near, first + most)
