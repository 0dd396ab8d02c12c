"""Building a graph from a neighbor table of one's own."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ..errors import BadInput
from ..memory import MemoryBudget
from ..parallel import limit_threads
from ..store import Store
from .build import check_table, check_weights, graph_bytes, write_graph
from .graph import Graph

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 30.0


def build_graph(
    neighbor_ids: np.ndarray,
    *,
    store: str | Path | None = None,
    weights: np.ndarray | None = None,
    order: np.ndarray | None = None,
    mutual: bool = False,
    memory_budget: str | int | MemoryBudget = "auto",
    threads: int | None = None,
    overwrite: bool = False,
) -> Graph:
    """Build the normalized graph W = D⁻¹(W0 + W0ᵀ) of a neighbor table on disk.

    Parameters
    ----------
    neighbor_ids : numpy.ndarray of shape (n, k), integers
        Ids of the neighbors of each node, itself included where it was found; -1 = none. A repeated id counts once, at its first
        place. May be a memmap.
    store : str or Path, optional
        Folder for the arrays. Default: a temporary one that is removed with the graph.
    weights : numpy.ndarray of shape (n, k), floats, optional
        Weights >= 0 of the edges of W0. Default: 1 for every edge.
    order : numpy.ndarray of shape (n,), uint32, optional
        A permutation of the ids: the order of the nodes on disk, which makes the product faster where neighbors stand near each
        other and is visible nowhere else. Default: the order of the ids.
    mutual : bool
        Keep an edge only where both nodes list each other, which may leave nodes without any. Default False.
    memory_budget : str, int or MemoryBudget
        Limit on anonymous and shared memory, default ``"auto"``.
    threads : int, optional
        Default: all cores.
    overwrite : bool
        Replace another graph in the same store. Default False.

    Returns
    -------
    Graph
        The graph, its arrays mapped read-only.

    Raises
    ------
    BadInput
        If ids are out of range or no integers, weights negative or not finite, or the store holds another graph.
    CorruptStore
        If the finished graph fails its self-check: each row by itself, all rows together, a sample against the table.
    DoesNotFit
        If the budget is too small; the message names the smallest that would do.

    Notes
    -----
    Douze et al., CVPR 2018, section 3.2. Building is resumed where an interrupted call with the same arguments stopped. How far
    it is shows in the log, at INFO, every half minute.

    Examples
    --------
    >>> import numpy as np
    >>> graph = build_graph(np.array([[0, 1], [1, 2], [2, 1]]))
    >>> graph.n, graph.nnz
    (3, 7)
    """
    neighbor_ids = np.asanyarray(neighbor_ids)
    check_table(neighbor_ids)
    n, k = neighbor_ids.shape
    if weights is not None:
        weights = np.asanyarray(weights)
        check_weights(weights, neighbor_ids.shape)
    if order is not None:
        order = np.ascontiguousarray(order, np.uint32)
        if not np.array_equal(np.sort(order), np.arange(n, dtype=np.uint32)):
            raise BadInput(f"order is not a permutation of the ids 0 to {n - 1}")
    target = Store.temporary() if store is None else Store(store, create=True)
    parameters: dict[str, Any] = {
        "table": _digest(neighbor_ids),
        "weights": None if weights is None else _digest(weights),
        "order": None if order is None else _digest(order),
    }
    if mutual:
        parameters["mutual"] = True  # else left out, so that graphs from before there was a choice stay good
    budget = MemoryBudget.parse(memory_budget)
    with limit_threads(threads) as n_threads, target.job("graph", parameters=parameters, overwrite=overwrite) as job:
        if not job.published:
            job.reserve(graph_bytes(n, k, weighted=weights is not None))
            checked = write_graph(
                job,
                neighbor_ids,
                weights=weights,
                order=order,
                mutual=mutual,
                budget=budget,
                threads=n_threads,
                advance=_Log(n),
            )
            job.publish({"n": n, "k": k, **checked})
    graph = Graph(target)
    logger.info("graph of %d nodes and %d entries in %s", graph.n, graph.nnz, target.path)
    return graph


class _Log:
    """Progress as lines of the log."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.done = 0
        self.started = self.last = time.monotonic()

    def __call__(self, nodes: int) -> None:
        self.done += nodes
        now = time.monotonic()
        if now - self.last >= _SECONDS_BETWEEN_LINES:
            self.last = now
            rate = self.done / (now - self.started)
            left = (self.n - self.done) / rate
            logger.info("graph: %d of %d nodes, %.0f nodes/s, %.0f s left", self.done, self.n, rate, left)


def _digest(array: np.ndarray) -> str:
    hasher = xxhash.xxh3_128(f"{array.dtype.str} {array.shape}".encode())
    for first in range(0, len(array), 65536):
        hasher.update(np.ascontiguousarray(array[first : first + 65536]).reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()
