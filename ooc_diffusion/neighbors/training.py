"""Training the centroids of inverted lists: k-means on a sample."""

from __future__ import annotations

import numpy as np

from .kernels import add_by_list
from .lists import bisect_centroids, n_lists, training_rows
from .nearest import assign_lists

ITERATIONS = 10
# How far an empty list is put beside a full one, in parts of each value.
_BESIDE = 2.0**-10


def train_centroids(vectors: np.ndarray, *, seed: int = 0, device: str = "cpu") -> np.ndarray:
    """Train the centroids of the inverted lists by k-means on a sample.

    Parameters
    ----------
    vectors : numpy.ndarray of shape (n, d), float32
        May be a memmap; `training_rows` rows of it are read.
    seed : int
        Seed of the sample and of k-means, default 0.
    device : {"cpu", "cuda"}
        Where vectors are compared with centroids; ``"cuda"`` is all GPUs. Default ``"cpu"``.

    Returns
    -------
    numpy.ndarray of shape (4 √n, d), float32
        In locality order; see `bisect_centroids`.
    """
    n, lists = len(vectors), n_lists(len(vectors))
    rows = training_rows(n, vectors.shape[1])
    # one row of each of equally long stretches: drawing without replacement would take memory that grows with n
    edges = np.arange(rows + 1) * n // rows
    rng = np.random.default_rng(seed)
    sample = np.ascontiguousarray(vectors[rng.integers(edges[:-1], edges[1:])], np.float32)
    centroids = sample[rng.choice(rows, lists, replace=False)]
    for _ in range(ITERATIONS):
        centroids = move_centroids(sample, centroids, rng, device=device)
    return centroids[bisect_centroids(centroids)]


def move_centroids(vectors: np.ndarray, centroids: np.ndarray, rng: np.random.Generator, *, device: str = "cpu") -> np.ndarray:
    """Return where one iteration of k-means puts the centroids (lists, d) of vectors (n, d)."""
    return _means(vectors, assign_lists(vectors, centroids, device=device), centroids, rng)


def _means(vectors: np.ndarray, lists: np.ndarray, centroids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the means of lists; where one has no vectors, a place beside that of another, the likelier the more that one has."""
    sums, counts = np.zeros(centroids.shape), np.bincount(lists, minlength=len(centroids))
    add_by_list(vectors, lists, sums)
    means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    empty, others = np.flatnonzero(counts == 0), np.maximum(counts - 1, 0)
    if len(empty) and others.any():
        beside = means[rng.choice(len(means), len(empty), p=others / others.sum())]
        means[empty] = beside * (1 + np.float32(_BESIDE) * rng.choice(np.array([-1, 1], np.float32), beside.shape))
    return means
