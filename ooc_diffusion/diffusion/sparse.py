"""Columns of L while few of their entries are not zero: pushing from these entries costs less than asking every row.

A value is sent along the edges of its row as a record of target and product. Records are added up by target afterwards, a range
of targets at a time, whose sums stay in cache: memory sees long reads and writes only, whatever the size of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..graph import Graph
from . import kernels, sparse_kernels
from .blocks import row_blocks
from .needed import Needed
from .precision import ELEMENTS
from .reading import Span, read_spans
from .room import columns_per_line, make_rows

# Sending and adding up this many records costs as much as one entry of W in the dense product, per line of the cache that a row
# of L fills: between 12 ns against 3.6 on hard data and 11 against 1.7 on clustered data of a million nodes, with two threads.
RECORDS_PER_LINE = 0.3
# Targets added up at once, as a power of two: their float64 sums fill 512 KiB.
RANGE_BITS = 16
# Columns added up at once, each with such sums.
_MOST_WORKERS = 8
# Records for needed targets, relative to the number expected; a batch with more of them takes the dense step.
_MARGIN = 1.5
_SPARE = 65536


@dataclass(frozen=True)
class SparseColumns:
    """Columns by their entries that are not zero.

    Parameters
    ----------
    starts : numpy.ndarray of shape (C' + 1,), int64
        Where each column begins.
    positions : numpy.ndarray of shape (entries,), uint32
        Rows, ascending in each column.
    values : numpy.ndarray of shape (entries,), float32
        Their values, rounded as entries of L are.
    dtype : numpy.dtype
        Type of these entries. Default float32.
    """

    starts: np.ndarray
    positions: np.ndarray
    values: np.ndarray
    dtype: np.dtype = ELEMENTS["float32"]

    @classmethod
    def of_seeds(
        cls, positions: np.ndarray, columns: np.ndarray, n_columns: int, dtype: np.dtype = ELEMENTS["float32"]
    ) -> SparseColumns:
        """Return L_0: a one for each seed; a seed given twice to a column counts once."""
        pairs = np.unique(np.stack([columns, positions], axis=1), axis=0) if len(columns) else np.empty((0, 2), np.int64)
        starts = np.searchsorted(pairs[:, 0], np.arange(n_columns + 1))
        return cls(starts, pairs[:, 1].astype(np.uint32), np.ones(len(pairs), np.float32), dtype)

    @property
    def n_columns(self) -> int:
        """Number of columns C'."""
        return len(self.starts) - 1

    @property
    def n_entries(self) -> int:
        """Number of entries that are not zero."""
        return int(self.starts[-1] - self.starts[0])

    def split(self, columns: int) -> tuple[SparseColumns, SparseColumns]:
        """Return the first columns and the others; both keep all entries in memory."""
        return self.part(0, columns), self.part(columns, self.n_columns)

    def part(self, begin: int, end: int) -> SparseColumns:
        """Return some columns; they keep all entries in memory."""
        return replace(self, starts=self.starts[begin : end + 1])

    def count_sent(self, graph: Graph) -> np.ndarray:
        """Return for each column the entries of W in the rows that are not zero, int64 (C',)."""
        sent = np.empty(self.n_columns, np.int64)
        sparse_kernels.count_sent(self.starts, self.positions, graph.indptr, sent)
        return sent

    def dense(self, out: np.ndarray) -> np.ndarray:
        """Write the columns into an array of shape (N, C') and return it."""
        sparse_kernels.spread(self.starts, self.positions, self.values, 0, out)
        return out

    def by_rows(self, n: int) -> SparseRows:
        """Return the same, row by row, of n rows."""
        starts = make_rows(n + 1, 1, np.dtype(np.uint32)).reshape(-1)
        sparse_kernels.count_in_rows(self.starts, self.positions, starts)
        sparse_kernels.add_before(starts)
        pairs = make_rows(self.n_entries, 2)
        sparse_kernels.put_in_rows(self.starts, self.positions, self.values, starts, pairs)
        return SparseRows(starts, pairs, self.n_columns, self.dtype)


@dataclass(frozen=True)
class SparseRows:
    """Columns by their entries that are not zero, row by row.

    Parameters
    ----------
    starts : numpy.ndarray of shape (N + 1,), uint32
        Where each row begins.
    pairs : numpy.ndarray of shape (entries, 2), float32
        Value and column of each entry.
    n_columns : int
        Number of columns C'.
    dtype : numpy.dtype
        Type of the entries of L.
    """

    starts: np.ndarray
    pairs: np.ndarray
    n_columns: int
    dtype: np.dtype


def push(
    graph: Graph, columns: SparseColumns, sent: np.ndarray, needed: Needed, t: int, *, memory_bytes: int, threads: int
) -> SparseColumns | None:
    """Return L_t from sparse columns of L_{t-1}, unless the dense product costs less or memory is short.

    Parameters
    ----------
    graph : Graph
        W.
    columns : SparseColumns
        L_{t-1}.
    sent : numpy.ndarray of shape (C',), int64
        Its `SparseColumns.count_sent`.
    needed : Needed
        Rows that must be right: no others are in the result.
    t : int
        The iteration of the result.
    memory_bytes : int
        What the columns and the result may take together.
    threads : int
        Threads.

    Returns
    -------
    SparseColumns or None
        L_t.
    """
    most = most_records(graph, sent, needed, t, columns.dtype.itemsize)
    if most is None or pushing_bytes(graph, columns.n_entries, most, threads) > memory_bytes:
        return None
    return _push(graph, columns, needed.masks[t], most, threads)


def push_into_rows(
    graph: Graph,
    columns: SparseColumns,
    sent: np.ndarray,
    needed: Needed,
    t: int,
    *,
    make_out: Callable[[], np.ndarray],
    memory_bytes: int,
    threads: int,
) -> np.ndarray | None:
    """Do the same for a few columns at a time where the records of all are too many; return L_t as an array (N, C').

    ``make_out`` returns that array, besides which columns and records may take ``memory_bytes``.
    """
    most = most_records(graph, sent, needed, t, columns.dtype.itemsize)
    if most is None:
        return None

    def largest(parts: list[slice]) -> int:
        return max(pushing_bytes(graph, columns.n_entries, most[part], threads) for part in parts)

    cuts = cuts_into_rows(columns.n_columns, columns.dtype.itemsize)
    parts = next((parts for parts in cuts if largest(parts) <= memory_bytes), None)
    if parts is None:
        return None
    out = make_out()
    for part in parts:
        pushed = _push(graph, columns.part(part.start, part.stop), needed.masks[t], most[part], threads)
        if pushed is None:
            return None
        sparse_kernels.spread(pushed.starts, pushed.positions, pushed.values, part.start, out)
        del pushed  # or it is kept while the next columns are pushed
    return out


def cuts_into_rows(columns: int, itemsize: int) -> Iterator[list[slice]]:
    """Cut columns into those pushed into rows together: a line of the cache, or fewer, as each takes a pass of W."""
    for passes in (1, 2, 4):
        some = min(columns, max(1, columns_per_line(itemsize) // passes))
        yield [slice(first, first + some) for first in range(0, columns, some)]


def most_records(graph: Graph, sent: np.ndarray, needed: Needed, t: int, itemsize: int) -> np.ndarray | None:
    """Return how many records each column may send to L_t, int64 (C',); None where the dense product costs less."""
    lines = -(-len(sent) // columns_per_line(itemsize))
    if int(sent.sum()) > RECORDS_PER_LINE * lines * needed.entries[t]:
        return None
    if needed.masks[t] is None:
        return sent
    # S is symmetric: this part of all entries leads to rows that are needed
    return np.minimum(sent, (_MARGIN * needed.entries[t] / max(1, graph.nnz) * sent).astype(np.int64) + _SPARE)


def pushing_bytes(graph: Graph, n_entries: int, most: np.ndarray, threads: int) -> int:
    """Return the bytes of columns, of the records of some of them, and of those of one column per thread again."""
    record = 8 if graph.weights is None else 16
    return 8 * n_entries + record * (int(most.sum()) + min(threads, _MOST_WORKERS) * int(most.max()))


def _push(
    graph: Graph, columns: SparseColumns, wanted: np.ndarray | None, most: np.ndarray, threads: int
) -> SparseColumns | None:
    limits = np.cumsum(most)
    starts, total = limits - most, int(limits[-1])
    # a value times 1 or 2 is exact in float32, times any other weight only in float64
    targets, products = np.empty(total, np.uint32), np.empty(total, np.float32 if graph.weights is None else np.float64)
    ends, cursors = starts.copy(), columns.starts[:-1].copy()
    wanted = np.empty(0, np.uint8) if wanted is None else wanted
    entries = (columns.starts, columns.positions, columns.values)
    for (begin, end), read in read_spans(_blocks(graph, columns)):
        block = (graph.indptr[begin : end + 1], *read)
        sparse_kernels.send(begin, end, entries, block, wanted, limits, threads, cursors, ends, targets, products)
    if (ends > limits).any():
        return None
    return _added(graph, columns.dtype, starts, ends, targets, products, threads)


def _blocks(graph: Graph, columns: SparseColumns) -> Iterator[tuple[tuple[int, int], Span]]:
    """Go through the blocks of rows, (begin, end), in which the columns have entries."""
    for begin, end in row_blocks(graph.indptr):
        indptr = graph.indptr[begin : end + 1]
        pieces = np.zeros(int(indptr[-1] - indptr[0]) // kernels.PIECE + 1, np.bool_)
        sparse_kernels.mark_pieces(begin, end, columns.starts, columns.positions, indptr, pieces)
        if pieces.any():
            yield (begin, end), Span(graph, int(indptr[0]), int(indptr[-1]), pieces)


def _added(
    graph: Graph,
    dtype: np.dtype,
    starts: np.ndarray,
    ends: np.ndarray,
    targets: np.ndarray,
    products: np.ndarray,
    threads: int,
) -> SparseColumns:
    """Return the sums of records, rounded to entries of L, in the place of the records where their type allows."""
    most = int((ends - starts).max(initial=0))
    workers = min(threads, _MOST_WORKERS)
    values = products if products.dtype == np.float32 else np.empty(len(products), np.float32)
    ranges = (graph.n >> RANGE_BITS) + 1
    scratch = (
        np.empty((workers, ranges), np.int64),
        np.empty((workers, most), np.uint32),
        np.empty((workers, most), products.dtype),
    )
    total = np.zeros((workers, 1 << RANGE_BITS), np.float64)
    touched = np.zeros((workers, -(-(1 << RANGE_BITS) // 64)), np.uint64)
    counts, like = np.empty(len(starts), np.int64), np.empty(0, dtype)
    sparse_kernels.add_up(
        starts, ends, (targets, products), graph.row_scale, like, RANGE_BITS, scratch, total, touched, counts, targets, values
    )
    sparse_kernels.pack(starts, counts, targets, values)
    packed = np.concatenate([[0], np.cumsum(counts)])
    targets.resize(packed[-1], refcheck=False)  # gives memory back without a copy
    values.resize(packed[-1], refcheck=False)
    return SparseColumns(packed, targets, values, dtype)
