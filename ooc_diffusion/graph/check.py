"""The self-check of a finished graph before it is published: each row, the sum of all, and a sample against the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..errors import CorruptStore
from . import kernels

_BLOCK_ROWS = 65536
# Of a sample of 1000 a fault in one row of 200 escapes once in 150 times; some 50 000 random reads take seconds.
_SAMPLE_ROWS = 1000
_MOST_ENTRIES = 64
_FAULTS = {
    kernels.WRONG_ORDER: "graph/order and graph/position contradict each other",
    kernels.WRONG_OFFSETS: "graph/indptr descends or leaves graph/indices",
    kernels.OUT_OF_RANGE: "graph/indices names a position that is not there",
    kernels.NOT_ASCENDING: "the neighbors do not ascend",
    kernels.WRONG_SCALE: "graph/row_scale is not 1 / row sum",
    kernels.MISSING: "a listed neighbor is missing",
    kernels.NO_MIRROR: "an entry has no mirror in the row of the neighbor",
    kernels.INVENTED: "an entry stands in no neighbor list",
    kernels.WRONG_BIT: "the reciprocal bit of an entry contradicts the neighbor lists",
    kernels.WRONG_WEIGHT: "the weight of an entry contradicts the neighbor lists",
}
REMEDY = "memory or disk may be faulty; it was thrown away, run the stage again"


class GraphArrays(NamedTuple):
    """The arrays of a graph; ``weights`` has no entries where all weights are constant."""

    order: np.ndarray
    position: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    row_scale: np.ndarray


def check_graph(
    graph: GraphArrays,
    ids: np.ndarray,
    table_weights: np.ndarray | None,
    *,
    halves: int,
    threads: int,
    mutual: bool = False,
    advance: Callable[[int], object],
) -> dict[str, Any]:
    """Compare a finished graph with itself and with its neighbor table.

    Parameters
    ----------
    graph : GraphArrays
        The graph, mapped: it is read once from front to end, so that no memory is needed.
    ids : numpy.ndarray of shape (N, k), integers
        The neighbor table.
    table_weights : numpy.ndarray of shape (N, k) or None
        Its weights.
    halves : int
        How many halves of edges there must be: two for each distinct pair (row, neighbor) of the table, less those left out.
    threads : int
        Threads.
    mutual : bool
        Whether the edges that one end alone lists are left out. Default False.
    advance : callable
        Told the number of rows checked since the last call.

    Returns
    -------
    dict
        ``nnz``, ``nnz_per_row``, ``reciprocal_share`` of the entries, ``checked_rows``: how many were compared with the table.

    Raises
    ------
    CorruptStore
        At the first fault.

    Notes
    -----
    A pair (i, j) of the table puts one half of an edge into row i, which lists, and one into row j, which is listed. An entry is
    one half, a reciprocal one two. So there are twice as many halves as pairs; a node that lists itself gets both in its own row,
    in one entry that counts as reciprocal, and needs no rule of its own. Of a mutual graph each half that is left out was one
    entry; building counts them.
    """
    n, nnz = len(graph.order), len(graph.indices)
    ends = [int(graph.indptr[0]), int(graph.indptr[-1])]
    if ends != [0, nnz]:
        raise CorruptStore(
            f"the graph failed its self-check: graph/indptr goes from {ends[0]} to {ends[1]}, not to {nnz}; {REMEDY}"
        )
    found = _check_rows(graph, threads, advance)
    if found != halves:
        raise CorruptStore(
            f"the graph failed its self-check: graph/indices has {found} halves of edges, "
            f"but the neighbor table {halves}; {REMEDY}"
        )
    rows = np.sort(np.random.default_rng(0).choice(n, min(n, _SAMPLE_ROWS), replace=False))
    some = np.empty((0, 0), np.float32) if table_weights is None else table_weights
    row, fault = kernels.check_edges(rows, _MOST_ENTRIES, mutual, ids, some, *graph[:-1])
    _require_sound(graph, row, fault)
    return {
        "nnz": nnz,
        "nnz_per_row": nnz / max(n, 1),
        "reciprocal_share": (halves - nnz) / max(nnz, 1),
        "checked_rows": len(rows),
    }


def _check_rows(graph: GraphArrays, threads: int, advance: Callable[[int], object]) -> int:
    """Check every row; return the number of halves of edges in all of them."""
    n, total = len(graph.order), 0
    rows, faults, halves = np.empty(threads, np.int64), np.empty(threads, np.int64), np.empty(threads, np.int64)
    for first in range(0, n, _BLOCK_ROWS):
        last = min(first + _BLOCK_ROWS, n)
        kernels.check_rows(np.linspace(first, last, threads + 1).astype(np.int64), *graph, rows, faults, halves)
        for row, fault in zip(rows, faults, strict=True):
            _require_sound(graph, int(row), int(fault))
        total += int(halves.sum())
        advance(last - first)
    return total


def _require_sound(graph: GraphArrays, row: int, fault: int) -> None:
    if fault != kernels.SOUND:
        raise CorruptStore(f"the graph failed its self-check: row {row} (node {graph.order[row]}): {_FAULTS[fault]}; {REMEDY}")
