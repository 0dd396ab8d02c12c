"""How good a neighbor table is: recall against exact search on a sample."""

from __future__ import annotations

import numpy as np

from .search import search


def measure_recall(vectors: np.ndarray, ids: np.ndarray, *, k: int, n_samples: int = 1000, seed: int = 0) -> dict[str, float]:
    """Compare rows of a neighbor table with exact search.

    Parameters
    ----------
    vectors : numpy.ndarray of shape (n, d), float32
        The vectors.
    ids : numpy.ndarray of shape (n, >= k), int32
        Their neighbor table.
    k : int
        Neighbors that count.
    n_samples : int
        Rows compared, default 1000.
    seed : int
        Seed of the sample, default 0.

    Returns
    -------
    dict
        ``recall``, the share of the true k nearest neighbors that the table has, and ``samples``.
    """
    rows = np.sort(np.random.default_rng(seed).choice(len(vectors), min(n_samples, len(vectors)), replace=False))
    queries = np.ascontiguousarray(vectors[rows])
    truth = np.concatenate([found for found, _ in search(vectors, queries, k=k)])
    table = ids[rows, :k]
    hits = sum(len(np.intersect1d(a[a >= 0], b)) for a, b in zip(truth, table, strict=True))
    return {"recall": hits / max(1, int((truth >= 0).sum())), "samples": len(rows)}
