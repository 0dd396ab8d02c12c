"""Walking back from an image to the seed whose label came to it most of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..graph import Graph
from .kernels import POSITION

# Entries of a row of W that are looked at together: a hub may have as many as there are nodes.
_ENTRIES = 2**20


def walk_back(
    graph: Graph, iterates: np.ndarray, start: np.ndarray, column: int, *, reset: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Walk back from L_T to a seed: each time to the node that contributed most to the entry of the one before.

    Parameters
    ----------
    graph : Graph
        W.
    iterates : numpy.ndarray of shape (T + 1, N, C), float32
        L_0 .. L_T, without η or after it, by node id; may be a map.
    start : numpy.ndarray of shape (k,), integers
        The neighbors of a query, -1 = none, or a node alone.
    column : int
        The class.
    reset : numpy.ndarray of integers, optional
        Nodes whose rows were set back to L_0 after each iteration. Default: none.

    Returns
    -------
    tuple of numpy.ndarray of shape (T + 1,), or None
        Node ids int64, from the seed at iteration 0 to the node at iteration T, and beside each, float64, the share of its
        contribution in the entry of the next; for the last, of its entry in the sum over ``start``. None where the label of no
        seed of the class has come to any of ``start``.

    Notes
    -----
    Douze et al., CVPR 2018, section 4.7. Node j contributes W_ij L_{t-1}[j] to L_t[i], and i itself does where W_ii > 0: the walk
    stays there. Of equal contributions that of the smallest id counts. What divides a row of W or of W L_{t-1}, or a column of L,
    divides all contributions to an entry, so none of these changes the walk; nor does a power of the entries of W L_{t-1}:
    shares are those of the sum before. The row of a node that is reset has nothing from its neighbors: the walk stays there.
    """
    last = len(iterates) - 1
    nodes, shares = np.empty(last + 1, np.int64), np.empty(last + 1)
    start = np.asarray(start, np.int64)
    start = start[start >= 0]
    found = _largest([(start, iterates[last, start, column].astype(np.float64))])
    if found is None:
        return None
    nodes[last], shares[last] = found
    for t in range(last - 1, -1, -1):
        if reset is not None and (reset == nodes[t + 1]).any():
            nodes[: t + 1], shares[: t + 1] = nodes[t + 1], 1.0
            break
        found = _largest(_contributions(graph, iterates[t], int(nodes[t + 1]), column))
        assert found is not None  # an entry above 0 has contributions above 0
        nodes[t], shares[t] = found
    return nodes, shares


def _contributions(graph: Graph, L: np.ndarray, node: int, column: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the neighbors of a node with what they contribute to its next entry, but for the scale of its row."""
    row = graph.position[node]
    end = int(graph.indptr[row + 1])
    for first in range(int(graph.indptr[row]), end, _ENTRIES):
        part = slice(first, min(first + _ENTRIES, end))
        entries = graph.indices[part]
        neighbors = graph.order[entries & POSITION]
        times = 1 + (entries >> 31) if graph.weights is None else graph.weights[part]
        # a product of two float32 is exact in float64: equal contributions are equal in any order of the nodes
        yield neighbors, times.astype(np.float64) * L[neighbors, column]


def _largest(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[int, float] | None:
    """Return the smallest node with the largest value, and its share of the sum; None where no value is above 0."""
    best, node, total = 0.0, -1, 0.0
    for nodes, values in parts:
        if not len(values):
            continue
        total += float(values.sum())
        top = float(values.max())
        candidate = int(nodes[values == top].min())
        if top > best or (top == best and top > 0 and candidate < node):
            best, node = top, candidate
    return None if node < 0 else (node, best / total)
