"""The graph at rest, opened for reading."""

from __future__ import annotations

from pathlib import Path

from ..errors import BadInput
from ..store import Store

ARRAYS = ("graph/order", "graph/position", "graph/indptr", "graph/indices", "graph/row_scale")


class Graph:
    """The row-stochastic W = D⁻¹(W0 + W0ᵀ) of a store, its arrays mapped read-only.

    Parameters
    ----------
    store : Store or str or Path
        Where the graph was built.

    Attributes
    ----------
    n : int
        Number of nodes N.
    nnz : int
        Number of stored entries (both directions of an edge count).
    order : numpy.ndarray of shape (N,), uint32
        Node id at each position.
    position : numpy.ndarray of shape (N,), uint32
        Position of each node id.
    indptr : numpy.ndarray of shape (N + 1,), int64
        Row offsets, by position.
    indices : numpy.ndarray of shape (nnz,), uint32
        Low 31 bits: neighbor position, ascending in its row; high bit: reciprocal edge.
    row_scale : numpy.ndarray of shape (N,), float32
        1 / row sum; 0 for a node without edges.
    weights : numpy.ndarray of shape (nnz,), float32, or None
        Weights before normalization; None where every edge counts 1, a reciprocal one 2.
    """

    def __init__(self, store: Store | str | Path) -> None:
        self.store = store if isinstance(store, Store) else Store(store)
        if "graph/indptr" not in self.store:
            raise BadInput(f"{self.store.path} holds no graph; run `ooc-diffusion graph` or build_graph first")
        self.order, self.position, self.indptr, self.indices, self.row_scale = (self.store.array(name) for name in ARRAYS)
        self.weights = self.store.array("graph/weights") if "graph/weights" in self.store else None
        self.n = len(self.order)
        self.nnz = len(self.indices)

    def __repr__(self) -> str:
        return f"Graph(n={self.n}, nnz={self.nnz}, store={str(self.store.path)!r})"
