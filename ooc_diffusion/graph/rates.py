"""How long the parts of building W take on this machine, from a small graph that is built in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import kernels
from .degrees import in_degrees

# Rows of the small graph: their keys, 60 MiB with 30 neighbors, lie outside the caches. So many at a time come from the table.
_ROWS = 2**18
_BLOCK_ROWS = 2**16
_TIMES = 2


@dataclass(frozen=True)
class GraphRates:
    """Seconds per entry of the neighbor table, all threads being at work.

    Parameters
    ----------
    counted : float
        To count the keys of all rows.
    scattered : float
        To put keys into their rows; again for each range of rows.
    merged : float
        To sort and merge the keys of its row.
    checked : float
        To check what it became in W, and to count how often nodes are listed.
    """

    counted: float
    scattered: float
    merged: float
    checked: float


def measure_building(table: np.ndarray, n: int, *, threads: int) -> GraphRates:
    """Build W of a few nodes.

    Parameters
    ----------
    table : numpy.ndarray of shape (m, k), integers
        Some rows of a neighbor table. The first are repeated for the nodes of the small graph, modulo whose number ids count.
    n : int
        Nodes of the graph that is foretold; the small one has no more.
    threads : int
        Threads.
    """
    nodes = min(n, _ROWS)
    ids = np.ascontiguousarray(table[: min(nodes, _BLOCK_ROWS)])
    ids = np.where(ids < 0, -1, ids % nodes).astype(np.int32)
    position = np.random.default_rng(0).permutation(nodes).astype(np.uint32)
    order = np.empty(nodes, np.uint32)
    order[position] = np.arange(nodes, dtype=np.uint32)
    block, k = ids.shape
    counts, bounds = np.zeros(nodes, np.uint32), np.linspace(0, nodes, threads + 1).astype(np.int64)
    blocks = [slice(first, min(first + len(ids), nodes)) for first in range(0, nodes, block)]

    def count() -> None:
        counts[:] = 0
        for rows in blocks:
            some = ids[: rows.stop - rows.start]
            kernels.count_lists(some, counts[rows])
            kernels.count_listed(some, bounds, counts)

    counted = _best_of(count)
    starts, places = np.empty(nodes + 1, np.int64), np.empty(ids.shape, np.uint32)
    no_weights, none = np.empty((0, 0), np.float32), np.empty(0, np.float32)
    keys = np.empty(0, np.uint32)

    def scatter() -> None:
        nonlocal keys
        keys = np.empty(0, np.uint32)  # given back: each range of rows takes new memory
        keys = np.empty(kernels.row_starts(counts, order, starts), np.uint32)
        for rows in blocks:
            some = places[: rows.stop - rows.start]
            kernels.look_up(ids[: len(some)], position, some)
            kernels.scatter_keys(some, no_weights, position[rows], bounds, starts, keys, none)

    scattered = _best_of(scatter)
    lengths, scale, ends = np.empty(nodes, np.int32), np.empty(nodes, np.float32), np.empty(threads, np.int64)
    merged = _once_compiled(lambda: kernels.merge_rows(bounds, starts, keys, lengths, scale, ends), scatter)
    # the rows of the first thread lie side by side
    some_bounds = np.linspace(0, bounds[1], threads + 1).astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(lengths[: bounds[1]], dtype=np.int64)])
    found = np.empty(threads, np.int64), np.empty(threads, np.int64), np.empty(threads, np.int64)

    def check() -> None:
        kernels.check_rows(some_bounds, order, position, indptr, keys[: ends[0]], none, scale, *found)

    checked = _best_of(check) / max(1, int(bounds[1])) + _best_of(lambda: in_degrees(ids, counts[:block])) / block
    return GraphRates(counted / (nodes * k), scattered / (nodes * k), merged / (nodes * k), checked / k)


def _best_of(call: Callable[[], object]) -> float:
    call()  # compiles
    return min(_seconds(call) for _ in range(_TIMES))


def _once_compiled(call: Callable[[], object], before: Callable[[], object]) -> float:
    """Return the seconds of a call that changes what ``before`` makes."""
    call()
    before()
    return _seconds(call)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
