"""From a neighbor table to the CSR of W on disk, streaming under the memory budget.

The table is read from its first row to its last, once to count and once per row range of the result; a range is as long as the
budget allows. Random access stays inside the range, so the disk sees long reads and appends only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import BadInput, DoesNotFit
from ..memory import MemoryBudget, format_size
from ..store import Job
from . import kernels

_TABLE_ROWS = 65536
_LEAST_WEIGHT = 1e-20
_MAX_NODES = 2**31 - 1
# order, position and counts, whatever the range
_NODE_BYTES = 12
# starts (8), filled (4), length (4), scale (4) and indptr (8) of a row
_ROW_BYTES = 28

Progress = Callable[[int], object]


def write_graph(
    job: Job,
    neighbor_ids: np.ndarray,
    *,
    weights: np.ndarray | None,
    order: np.ndarray | None,
    budget: MemoryBudget,
    threads: int,
    advance: Progress = lambda rows: None,
) -> None:
    """Symmetrize and normalize a neighbor table into the arrays of `Graph`.

    Parameters
    ----------
    job : Job
        The stage that publishes the arrays; resumed at the row range where it stopped.
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
    advance : callable
        Told the number of rows done since the last call.

    Notes
    -----
    W = D⁻¹(W0 + W0ᵀ), section 3.2 of the paper: a sum, so a reciprocal edge counts 2, and so does a node that lists itself.
    """
    n, k = neighbor_ids.shape
    n_bytes = 8 if weights is not None else 4
    block_rows = max(1, min(n, _TABLE_ROWS))
    fixed = (_NODE_BYTES if order is None else _NODE_BYTES - 4) * n + block_rows * k * n_bytes
    # asked before they are allocated, or the budget would count them twice
    most_entries = budget.units(n_bytes, what="building the graph", fixed_bytes=fixed + 2 * 2**20)
    order = np.arange(n, dtype=np.uint32) if order is None else order
    position = np.empty(n, np.uint32)
    position[order] = np.arange(n, dtype=np.uint32)
    job.put("graph/order", order)
    job.put("graph/position", position)
    counts = _count(neighbor_ids, position, block_rows)
    _check_longest_row(counts, most_entries, n_bytes, weights is not None, budget)

    writers = _writers(job, n, weights is not None)
    indptr, indices, scales = writers[:3]
    if indptr.rows == 0:
        indptr.append(np.zeros(1, np.int64))
    begin = scales.rows
    advance(begin)
    while begin < n:
        end = _range_end(counts, begin, most_entries, n_bytes)
        entries, entry_weights, lengths, scale = _merge_range(neighbor_ids, weights, position, counts, begin, end, threads)
        indices.append(entries)
        if weights is not None:
            writers[3].append(entry_weights)
        scales.append(scale)
        nnz = indices.rows - len(entries)
        indptr.append(nnz + np.cumsum(lengths, dtype=np.int64))
        del entries, entry_weights
        job.checkpoint()
        advance(end - begin)
        begin = end


def graph_bytes(n: int, k: int, *, weighted: bool = False) -> int:
    """Return the most bytes that the arrays of a graph of n nodes with k neighbors can take on disk."""
    return 8 * (n + 1) + 12 * n + 2 * n * k * (8 if weighted else 4)


def least_memory(n: int, k: int, *, weighted: bool = False) -> int:
    """Return the bytes of memory that building needs whatever the budget (a node listed by all others comes on top)."""
    n_bytes = 8 if weighted else 4
    return _NODE_BYTES * n + min(n, _TABLE_ROWS) * k * n_bytes + 2 * 2**20 + 64 * k * n_bytes


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


def _writers(job: Job, n: int, weighted: bool) -> list:
    writers = [
        job.array("graph/indptr", "<i8", (n + 1,)),
        job.array("graph/indices", "<u4", (None,)),
        job.array("graph/row_scale", "<f4", (n,)),
    ]
    return [*writers, job.array("graph/weights", "<f4", (None,))] if weighted else writers


def _blocks(table: np.ndarray, rows: int) -> range:
    return range(0, len(table), rows)


def _count(neighbor_ids: np.ndarray, position: np.ndarray, block_rows: int) -> np.ndarray:
    counts = np.zeros(len(neighbor_ids), np.uint32)
    for first in _blocks(neighbor_ids, block_rows):
        kernels.count_entries(neighbor_ids[first : first + block_rows], first, position, counts)
    return counts


def _range_end(counts: np.ndarray, begin: int, most_entries: int, n_bytes: int) -> int:
    # A range costs memory per row too; rows without entries must not make it longer than the room allows.
    most_rows = max(1, most_entries * n_bytes // (2 * _ROW_BYTES))
    return min(kernels.range_end(counts, begin, most_entries // 2), begin + most_rows)


def _check_longest_row(counts: np.ndarray, most_entries: int, n_bytes: int, weighted: bool, budget: MemoryBudget) -> None:
    longest = int(counts.max(initial=0))
    # a weighted row is sorted through an index of 8 bytes and copies of its keys and weights
    needed = longest * (n_bytes + (24 if weighted else 0))
    if needed > most_entries * n_bytes // 2:
        least = budget.total + 2 * needed - most_entries * n_bytes
        raise DoesNotFit(
            f"node in {longest} neighbor lists needs a memory budget of {format_size(least)}, but it is "
            f"{format_size(budget.total)}; give --memory-budget {-(-least // 2**20)}MiB or remove duplicates of that image"
        )


def _merge_range(
    ids: np.ndarray,
    weights: np.ndarray | None,
    position: np.ndarray,
    counts: np.ndarray,
    begin: int,
    end: int,
    threads: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return entries, weights, row lengths and scales of the rows at positions ``begin .. end``."""
    n_rows = end - begin
    starts = np.zeros(n_rows + 1, np.int64)
    np.cumsum(counts[begin:end], out=starts[1:])
    shares = np.linspace(0, starts[-1], threads + 1)[1:-1]
    bounds = np.concatenate([[0], np.searchsorted(starts[1:], shares), [n_rows]]).astype(np.int64)
    filled = np.zeros(n_rows, np.uint32)
    keys = np.empty(starts[-1], np.uint32)
    key_weights = np.empty(starts[-1] if weights is not None else 0, np.float32)
    no_weights = np.empty((0, 0), np.float32)
    for first in _blocks(ids, _TABLE_ROWS):
        rows = slice(first, first + _TABLE_ROWS)
        some_weights = no_weights if weights is None else np.ascontiguousarray(weights[rows], np.float32)
        kernels.scatter_keys(ids[rows], some_weights, first, position, bounds + begin, starts, filled, keys, key_weights)
    lengths = np.empty(n_rows, np.int32)
    scale = np.empty(n_rows, np.float32)
    if weights is None:
        kernels.merge_rows(bounds, starts, keys, lengths, scale)
    else:
        kernels.merge_weighted_rows(bounds, starts, keys, key_weights, lengths, scale)
    nnz = kernels.pack_rows(starts, lengths, keys)
    if weights is not None:
        kernels.pack_rows(starts, lengths, key_weights)
    return keys[:nnz], key_weights[:nnz], lengths, scale
