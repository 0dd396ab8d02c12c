"""How long the parts of building W take on this machine, from a small graph that is built in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import kernels
from .degrees import in_degrees

# Rows of the small graph: their keys and positions lie outside the caches of a core.
_ROWS = 2**16
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


def measure_building(table: np.ndarray, *, threads: int) -> GraphRates:
    """Build W of a few nodes.

    Parameters
    ----------
    table : numpy.ndarray of shape (n, k), integers
        A neighbor table; of its first rows the ids count modulo their number.
    threads : int
        Threads.
    """
    ids = np.ascontiguousarray(table[:_ROWS])
    n, k = ids.shape
    ids = np.where(ids < 0, -1, ids % n).astype(np.int32)
    position = np.random.default_rng(0).permutation(n).astype(np.uint32)
    order = np.empty(n, np.uint32)
    order[position] = np.arange(n, dtype=np.uint32)
    counts, bounds = np.zeros(n, np.uint32), np.linspace(0, n, threads + 1).astype(np.int64)

    def count() -> None:
        counts[:] = 0
        kernels.count_lists(ids, counts)
        kernels.count_listed(ids, bounds, counts)

    counted = _best_of(count)
    starts, places, no_weights = np.empty(n + 1, np.int64), np.empty((n, k), np.uint32), np.empty((0, 0), np.float32)
    keys, none = np.empty(int(counts.sum(dtype=np.int64)), np.uint32), np.empty(0, np.float32)

    def scatter() -> None:
        kernels.row_starts(counts, order, starts)
        kernels.look_up(ids, position, places)
        kernels.scatter_keys(places, no_weights, position, bounds, starts, keys, none)

    scattered = _best_of(scatter)
    lengths, scale, ends = np.empty(n, np.int32), np.empty(n, np.float32), np.empty(threads, np.int64)
    merged = _once_compiled(lambda: kernels.merge_rows(bounds, starts, keys, lengths, scale, ends), scatter)
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    entries = np.concatenate([keys[a:b] for a, b in zip(starts[bounds[:-1]], ends, strict=True)])
    found = np.empty(threads, np.int64), np.empty(threads, np.int64), np.empty(threads, np.int64)

    def check() -> None:
        kernels.check_rows(bounds, order, position, indptr, entries, none, scale, *found)
        in_degrees(ids, counts)

    checked = _best_of(check)
    return GraphRates(*(seconds / max(1, ids.size) for seconds in (counted, scattered, merged, checked)))


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
