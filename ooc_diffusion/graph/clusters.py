"""Markov clustering of a small graph, in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadInput
from ..memory import MemoryBudget
from .graph import Graph

if TYPE_CHECKING:
    from scipy.sparse import csc_array

logger = logging.getLogger(__name__)

# Entries of a matrix: float64 and int32; and of the products of a block of columns, which SciPy sorts and copies.
_ENTRY_BYTES = 12
_PRODUCT_BYTES = 48
_BLOCK_PRODUCTS = 2**20
# Columns sum to 1: a change below this is rounding.
_SAME = 1e-9


def markov_clusters(
    graph: Graph,
    *,
    power: float = 2.0,
    threshold: float = 1e-5,
    max_steps: int = 100,
    budget: MemoryBudget,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Cluster the nodes by the Markov process: W' = W W, then W = Γ_r(W'), until W changes no more.

    Parameters
    ----------
    graph : Graph
        W, row-stochastic.
    power : float
        r, above 1 and at most 2: the larger, the more clusters.
    threshold : float
        Entries below it are dropped in each step, but for the largest of a column, and columns divided by their sums again.
    max_steps : int
        Steps after which it ends anyway.
    budget : MemoryBudget
        Limit on memory. What does not fit is refused, when it is known not to: W becomes denser before it becomes sparse.

    Returns
    -------
    clusters : numpy.ndarray of shape (N,), int32
        Cluster of each node id, numbered by their first node.
    about : dict
        ``clusters``: their number; ``cluster_steps``; ``converged``; ``most_entries`` of any W.

    Notes
    -----
    Equation 5 of the paper, after van Dongen: Γ_r raises each entry to the power r and divides each column by its sum. The first
    W is row-stochastic, all others are column-stochastic. The clusters are the connected components of the last one. A node
    without edges is one by itself.
    """
    from scipy.sparse import csc_array
    from scipy.sparse.csgraph import connected_components

    if not 1 < power <= 2:
        raise BadInput(f"`power` is {power!r}; give a number above 1 and at most 2")
    if not 0 < threshold < 1:
        raise BadInput(f"`threshold` is {threshold!r}; give a number above 0 and below 1")
    if max_steps < 1:
        raise BadInput(f"`max_steps` is {max_steps!r}; give 1 or more")
    budget.require(least_cluster_memory(graph.n, graph.nnz), what=f"clustering {graph.n} nodes")
    W, most, steps, change = _matrix(graph), graph.nnz, 0, np.inf
    while steps < max_steps and change > _SAME:
        columns = list(_next_columns(W, power, threshold, budget))
        following = csc_array(
            (
                np.concatenate([values for values, _, _ in columns]),
                np.concatenate([rows for _, rows, _ in columns]),
                np.concatenate([[0], np.cumsum(np.concatenate([lengths for _, _, lengths in columns]))]),
            ),
            shape=W.shape,
        )
        del columns
        difference = following - W
        change = abs(difference).max() if difference.nnz else 0.0
        W, most, steps = following, max(most, following.nnz), steps + 1
    if change > _SAME:
        logger.warning("the clusters still change after %d steps (by %.2g); allow more", steps, change)
    _, labels = connected_components(W, directed=False)
    _, first, of_node = np.unique(labels[graph.position], return_index=True, return_inverse=True)
    clusters = np.argsort(np.argsort(first))[of_node].astype(np.int32)
    about = {"clusters": len(first), "cluster_steps": steps, "converged": bool(change <= _SAME), "most_entries": int(most)}
    return clusters, about


def least_cluster_memory(n: int, nnz: int) -> int:
    """Return the bytes that clustering takes at least, if W never has more entries than at the beginning."""
    return 6 * _ENTRY_BYTES * nnz + 40 * n + _PRODUCT_BYTES * _BLOCK_PRODUCTS


def _matrix(graph: Graph) -> csc_array:
    """Return W by position, float64."""
    from scipy.sparse import csr_array

    values = 1.0 + (graph.indices >> 31) if graph.weights is None else graph.weights.astype(np.float64)
    values *= np.repeat(graph.row_scale.astype(np.float64), np.diff(graph.indptr))
    indices = (graph.indices & np.uint32(2**31 - 1)).astype(np.int32)
    return csr_array((values, indices, np.array(graph.indptr)), shape=(graph.n, graph.n)).tocsc()


def _next_columns(
    W: csc_array, power: float, threshold: float, budget: MemoryBudget
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield values, rows and lengths of the columns of Γ_r(W W), a block after the other: the product itself is never whole."""
    lengths = np.diff(W.indptr)
    # products of entries that go into each column, an upper bound of its entries
    ends = np.cumsum(np.add.reduceat(np.append(lengths[W.indices], 0), W.indptr[:-1]) * (lengths > 0))
    begin, kept, n = 0, 0, W.shape[0]
    while begin < n:
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + _BLOCK_PRODUCTS, side="right")))
        products = int(ends[end - 1] - before)
        what = f"clustering {n} nodes, whose W has grown to {kept} entries and more (a larger threshold keeps it small),"
        # besides what is held by now: the columns that are done, put together, and their difference from W, twice
        budget.require(_ENTRY_BYTES * (2 * W.nnz + 3 * kept) + _PRODUCT_BYTES * products, what=what)
        block = (W @ W[:, begin:end]).tocsc()
        values, rows, starts = block.data**power, block.indices.astype(np.int32), block.indptr
        owners = np.repeat(np.arange(end - begin), np.diff(starts))
        values /= _sums(values, owners, end - begin)[owners]
        largest = np.zeros(end - begin)
        np.maximum.at(largest, owners, values)
        keep = (values >= threshold) | (values == largest[owners])
        values, rows, owners = values[keep], rows[keep], owners[keep]
        values /= _sums(values, owners, end - begin)[owners]
        kept += len(values)
        yield values, rows, np.bincount(owners, minlength=end - begin)
        begin = end


def _sums(values: np.ndarray, owners: np.ndarray, n: int) -> np.ndarray:
    sums = np.bincount(owners, values, minlength=n)
    return np.where(sums > 0, sums, 1.0)
