"""From a neighbor table to the CSR of W on disk, streaming under the memory budget.

The table is read from its first row to its last, once to count and once per row range of the result; a range is as long as the
budget allows. Random access stays inside the range, so the disk sees long reads and appends only.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import BadInput, CorruptStore, DoesNotFit
from ..memory import Clock, MemoryBudget, format_size
from ..store import Job
from . import kernels, mutual_kernels
from .check import REMEDY, GraphArrays, check_graph
from .degrees import in_degrees
from .steady import Advance, Steady

_TABLE_ROWS = 65536
_LEAST_WEIGHT = 1e-20
# The system hands out memory for large arrays in pages of 2 MiB.
_ROUNDED_UP_BYTES = 12 * 2**20
_MAX_NODES = 2**31 - 1
# sorting, merging and writing a row, in reads of a row of the table (measured)
_MERGING = 4
# position and counts, whatever the range; order, where the caller holds it
_NODE_BYTES = 8
_ORDER_BYTES = 4
# where the keys of a row begin
_ROW_BYTES = 8
# lengths (4), scale (4) and offsets twice (16) of the rows that are merged at once
_MERGED_BYTES = 24
# a weighted row is sorted through an index of 8 bytes and copies of its keys and weights
_WEIGHTED_SORT_BYTES = 24


def write_graph(
    job: Job,
    neighbor_ids: np.ndarray,
    *,
    weights: np.ndarray | None,
    order: np.ndarray | None,
    budget: MemoryBudget,
    threads: int,
    mutual: bool = False,
    advance: Advance = lambda nodes: None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Symmetrize and normalize a neighbor table into the arrays of `Graph`, and check them.

    Parameters
    ----------
    job : Job
        The stage that publishes the arrays; resumed behind the last rows that it had noted.
    neighbor_ids : numpy.ndarray of shape (N, k), integers
        Neighbors of each node; -1 = none; a repeated id counts once.
    weights : numpy.ndarray of shape (N, k), float32, or None
        Positive weights of the edges of W0.
    order : numpy.ndarray of shape (N,), uint32, or None
        Locality order; None keeps the ids as they are.
    budget : MemoryBudget
        Limit on memory; the bytes written do not depend on it.
    threads : int
        Threads; the bytes written do not depend on it.
    mutual : bool
        Keep an edge only where both ends list each other. Default False.
    advance : callable
        Told, block by block, how many nodes the work done since the last call is worth; N in all.
    clock : Clock, optional
        Gets the seconds of its two steps.

    Returns
    -------
    dict
        What `check_graph` found, and ``in_degree``: see `in_degrees`.

    Raises
    ------
    CorruptStore
        If the graph fails its self-check.

    Notes
    -----
    W = D⁻¹(W0 + W0ᵀ), section 3.2 of the paper: a sum, so a reciprocal edge counts 2, and so does a node that lists itself. The
    mutual graph has the entries of W0 + W0ᵀ at which both are not zero: nodes may lose all edges, which leaves a row of zeros.
    """
    clock = clock or Clock()
    with clock.step("building"):
        table, rows, pairs, steady = _build(job, neighbor_ids, weights, order, budget, threads, mutual, advance)
    with clock.step("checking"):
        options: dict[str, Any] = {"halves": 2 * pairs - rows.one_way_entries(), "mutual": mutual, "threads": threads}
        with _thrown_away(job):
            checked = check_graph(rows.graph(job), neighbor_ids, weights, advance=steady, **options)
        steady.finish()
        return checked | {"in_degree": in_degrees(neighbor_ids, table.counts)}


def _build(
    job: Job,
    neighbor_ids: np.ndarray,
    weights: np.ndarray | None,
    order: np.ndarray | None,
    budget: MemoryBudget,
    threads: int,
    mutual: bool,
    advance: Advance,
) -> tuple[_Table, _Rows, int, Steady]:
    """Write the rows of the graph; return the table, the rows, the number of distinct pairs of the table, the progress."""
    n, k = neighbor_ids.shape
    key_bytes = 4 if weights is None else 8
    room = _room(n, k, key_bytes, budget)  # asked before anything is allocated, or the budget would count it twice
    order = job.put("graph/order", np.arange(n, dtype=np.uint32) if order is None else order)
    with _thrown_away(job):
        position = _invert(order)
    job.put("graph/position", position)
    rows = _Rows(job, n, weighted=weights is not None, mutual=mutual)
    steady = Steady(advance, n)
    steady.skip(rows.done)
    steady.expect(_work(n, 2 * k, rows.done, room, key_bytes) + n)
    counts, pairs = _count(neighbor_ids, threads, steady)
    steady.expect(_work(n, float(counts.mean(dtype=np.float64)) if n else 0, rows.done, room, key_bytes))
    room -= _sorting_bytes(counts, room, key_bytes, threads, budget)
    table = _Table(neighbor_ids, weights, order, position, counts, mutual)
    while rows.done < n:
        end = _range_end(counts, rows.done, order, room, key_bytes)
        _write_range(job, rows, _merge_range(table, rows.done, end, threads, steady))
    return table, rows, pairs, steady


def graph_bytes(n: int, k: int, *, weighted: bool = False) -> int:
    """Return the most bytes that the arrays of a graph of n nodes with k neighbors can take on disk."""
    return 8 * (n + 1) + 12 * n + 2 * n * k * (8 if weighted else 4)


def least_memory(n: int, k: int, *, weighted: bool = False) -> int:
    """Return the bytes of memory that building needs whatever the budget (a node listed by all others comes on top)."""
    key_bytes = 8 if weighted else 4
    return (_NODE_BYTES + _ORDER_BYTES) * n + _block_bytes(n, k, key_bytes) + 64 * k * key_bytes


def table_passes(n: int, k: int, *, budget: MemoryBudget, weighted: bool = False) -> int:
    """Return how many row ranges building takes, each a pass over the table, where no id repeats."""
    key_bytes = 8 if weighted else 4
    return -(-n * (2 * k * key_bytes + _ROW_BYTES) // _room(n, k, key_bytes, budget))


def _room(n: int, k: int, key_bytes: int, budget: MemoryBudget) -> int:
    """Return the bytes of memory for the keys of a row range."""
    fixed = _NODE_BYTES * n + _block_bytes(n, k, key_bytes)
    return key_bytes * budget.units(key_bytes, what="building the graph", fixed_bytes=fixed)


def _block_bytes(n: int, k: int, key_bytes: int) -> int:
    # positions, and where there are any weights, of a block of the table; a block of merged rows
    return min(n, _TABLE_ROWS) * (k * key_bytes + _MERGED_BYTES) + _ROUNDED_UP_BYTES


def check_table(neighbor_ids: np.ndarray, *, what: str = "neighbor table", n: int | None = None) -> None:
    """Raise `BadInput` unless a neighbor table holds integers from -1 to n - 1 (n: its number of rows, unless given)."""
    if neighbor_ids.ndim != 2 or neighbor_ids.shape[1] == 0:
        raise BadInput(f"the {what} has the shape {neighbor_ids.shape}; give ids of shape (rows, k)")
    if neighbor_ids.dtype.kind not in "iu":
        raise BadInput(f"the {what} holds {neighbor_ids.dtype}; give integer ids, -1 for none")
    n = len(neighbor_ids) if n is None else n
    if n > _MAX_NODES:
        raise BadInput(f"the {what} has {n} nodes; at most {_MAX_NODES} are possible")
    for first in range(0, len(neighbor_ids), _TABLE_ROWS):
        row = kernels.first_invalid_row(neighbor_ids[first : first + _TABLE_ROWS], n)
        if row >= 0:
            values = neighbor_ids[first + row]
            bad = values[(values < -1) | (values >= n)][0]
            raise BadInput(f"row {first + row} of the {what} holds the id {bad}; ids go from 0 to {n - 1}, -1 for none")


def check_weights(weights: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise `BadInput` unless weights are finite, not negative, and of the shape of the neighbor table."""
    if weights.shape != shape or weights.dtype.kind != "f":
        raise BadInput(f"weights are {weights.dtype} {weights.shape}; give floats of the shape of the neighbor table, {shape}")
    for first in range(0, len(weights), _TABLE_ROWS):
        block = weights[first : first + _TABLE_ROWS]
        # row sums and their inverses must stay within float32
        bad = ~((block == 0) | ((block >= _LEAST_WEIGHT) & (block <= 1 / _LEAST_WEIGHT))).all(axis=1)
        if bad.any():
            row = first + int(np.argmax(bad))
            limits = f"{_LEAST_WEIGHT:g} to {1 / _LEAST_WEIGHT:g}"
            raise BadInput(f"row {row} of the weights is negative, not finite, or out of range; give 0, or {limits}")


class _Rows:
    """The arrays of the graph, which grow by merged rows."""

    def __init__(self, job: Job, n: int, *, weighted: bool, mutual: bool) -> None:
        self.indptr = job.array("graph/indptr", "<i8", (n + 1,))
        self.indices = job.array("graph/indices", "<u4", (None,))
        self.row_scale = job.array("graph/row_scale", "<f4", (n,))
        self.weights = job.array("graph/weights", "<f4", (None,)) if weighted else None
        # how many entries of each row were left out, for the check
        self.one_way = job.array("graph/one_way", "<u4", (n,), scratch=True) if mutual else None
        if self.indptr.rows == 0:
            self.indptr.append(np.zeros(1, np.int64))

    @property
    def done(self) -> int:
        """Number of rows that are written."""
        return self.row_scale.rows

    def append(
        self, keys: list[np.ndarray], weights: list[np.ndarray], lengths: np.ndarray, scale: np.ndarray, one_way: np.ndarray
    ) -> None:
        """Write the next rows; their entries and weights come in pieces."""
        offsets = np.cumsum(lengths, dtype=np.int64)
        offsets += self.indices.rows
        for entries in keys:
            self.indices.append(entries)
        if self.weights is not None:
            for some in weights:
                self.weights.append(some)
        self.indptr.append(offsets)
        if self.one_way is not None:
            self.one_way.append(one_way)
        self.row_scale.append(scale)

    def one_way_entries(self) -> int:
        """Return how many entries were left out of all rows."""
        if self.one_way is None:
            return 0
        counts = self.one_way.view()
        return sum(int(counts[rows].sum(dtype=np.int64)) for rows in _blocks(self.done))

    def graph(self, job: Job) -> GraphArrays:
        """Return the graph as it stands on disk."""
        order, position = (job.array(f"graph/{name}", "<u4", (self.done,)).view() for name in ("order", "position"))
        weights = np.empty(0, np.float32) if self.weights is None else self.weights.view()
        return GraphArrays(order, position, self.indptr.view(), self.indices.view(), weights, self.row_scale.view())


@dataclass(frozen=True)
class _Table:
    """The neighbor table and what has been found out about it."""

    ids: np.ndarray
    weights: np.ndarray | None
    order: np.ndarray
    position: np.ndarray
    counts: np.ndarray
    mutual: bool


@contextlib.contextmanager
def _thrown_away(job: Job) -> Iterator[None]:
    # what is left behind would be gone on with, and fail again
    try:
        yield
    except CorruptStore:
        job.discard()
        raise


def _invert(order: np.ndarray) -> np.ndarray:
    position = np.empty(len(order), np.uint32)
    wrong = kernels.invert(order, position)
    if wrong >= 0:
        raise CorruptStore(f"graph/order is no permutation of the nodes: row {wrong} holds {order[wrong]}; {REMEDY}")
    return position


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(first, min(first + _TABLE_ROWS, rows)) for first in range(0, rows, _TABLE_ROWS))


def _count(ids: np.ndarray, threads: int, steady: Steady) -> tuple[np.ndarray, int]:
    """Return the number of keys of each node and the number of distinct pairs (row, neighbor)."""
    n = len(ids)
    counts, pairs = np.zeros(n, np.uint32), 0
    bounds = np.linspace(0, n, threads + 1).astype(np.int64)
    for rows in _blocks(n):
        pairs += kernels.count_lists(ids[rows], counts[rows])
        kernels.count_listed(ids[rows], bounds, counts)
        steady(rows.stop - rows.start)
    return counts, pairs


def _work(n: int, keys_per_row: float, done: int, room: int, key_bytes: int) -> float:
    """Return the work that is left, in rows of the table: a row is read once per range, merged once, and checked."""
    left = n - done
    return math.ceil(left * (keys_per_row * key_bytes + _ROW_BYTES) / room) * n + _MERGING * left + n


def _range_end(counts: np.ndarray, begin: int, order: np.ndarray, room: int, key_bytes: int) -> int:
    return kernels.range_end(counts, order, begin, room, key_bytes, _ROW_BYTES)


def _sorting_bytes(counts: np.ndarray, room: int, key_bytes: int, threads: int, budget: MemoryBudget) -> int:
    """Return what sorting rows takes besides their keys, or raise `DoesNotFit` where the longest row does not fit."""
    longest = int(counts.max(initial=0))
    sorting = longest * _WEIGHTED_SORT_BYTES * threads if key_bytes > 4 else 0
    needed = longest * key_bytes + _ROW_BYTES + sorting
    if needed > room:
        least = budget.total + needed - room
        raise DoesNotFit(
            f"node in {longest} neighbor lists needs a memory budget of {format_size(least)}, but it is "
            f"{format_size(budget.total)}; give --memory-budget {-(-least // 2**20)}MiB or remove duplicates of that image"
        )
    return sorting


def _write_range(job: Job, rows: _Rows, parts: Iterator[tuple]) -> None:
    # in a function of its own, or the last part would hold the keys of this range beside those of the next
    for part in parts:
        rows.append(*part)
        job.checkpoint()


def _merge_range(table: _Table, begin: int, end: int, threads: int, steady: Steady) -> Iterator[tuple]:
    """Yield, block by block, what `_Rows.append` takes of the rows at positions ``begin .. end``."""
    starts = np.empty(end - begin + 1, np.int64)
    n_keys = kernels.row_starts(table.counts, table.order[begin:end], starts)
    keys = np.empty(n_keys, np.uint32)
    weights = np.empty(n_keys if table.weights is not None else 0, np.float32)
    bounds = _shares(starts[1:], n_keys, threads)
    _scatter(table, bounds + begin, starts, keys, weights, steady)
    for rows in _blocks(end - begin):
        yield _merge(starts[rows.start : rows.stop + 1], keys, weights, threads, mutual=table.mutual)
        steady(_MERGING * (rows.stop - rows.start))


def _shares(starts: np.ndarray, end: int, threads: int) -> np.ndarray:
    """Return the bounds of one part of the rows for each thread, with as many keys in each."""
    shares = np.linspace(starts[0], end, threads + 1)[1:-1]
    return np.concatenate([[0], np.searchsorted(starts, shares), [len(starts)]]).astype(np.int64)


def _scatter(
    table: _Table, bounds: np.ndarray, starts: np.ndarray, keys: np.ndarray, weights: np.ndarray, steady: Steady
) -> None:
    n, k = table.ids.shape
    places = np.empty((min(n, _TABLE_ROWS), k), np.uint32)
    some_weights = np.empty((0, 0), np.float32)
    for rows in _blocks(n):
        block = places[: rows.stop - rows.start]
        kernels.look_up(table.ids[rows], table.position, block)
        if table.weights is not None:
            some_weights = np.ascontiguousarray(table.weights[rows], np.float32)
        kernels.scatter_keys(block, some_weights, table.position[rows], bounds, starts, keys, weights)
        steady(len(block))


def _merge(starts: np.ndarray, keys: np.ndarray, weights: np.ndarray, threads: int, *, mutual: bool) -> tuple:
    n_rows = len(starts) - 1
    bounds = _shares(starts[:-1], starts[-1], threads)
    ends = np.empty(threads, np.int64)
    lengths, scale = np.empty(n_rows, np.int32), np.empty(n_rows, np.float32)
    if len(weights):
        kernels.merge_weighted_rows(bounds, starts, keys, weights, lengths, scale, ends)
    else:
        kernels.merge_rows(bounds, starts, keys, lengths, scale, ends)
    one_way = np.empty(n_rows if mutual else 0, np.uint32)
    if mutual:
        mutual_kernels.keep_mutual(bounds, starts, keys, weights, lengths, scale, one_way, ends)
    pieces = [slice(a, b) for a, b in zip(starts[bounds[:-1]], ends, strict=True)]
    return [keys[piece] for piece in pieces], [weights[piece] for piece in pieces], lengths, scale, one_way
