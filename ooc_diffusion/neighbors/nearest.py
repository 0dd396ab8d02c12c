"""The nearest of some centroids: one matrix product and one look at each of its entries."""

from __future__ import annotations

import numpy as np

from ..parallel import in_order, one_blas_thread
from .gpu import MOST_GPU_QUERIES, index_on_gpus
from .kernels import keep_nearest

# Vectors and centroids that are multiplied at once; constants, because they could change the rounding.
_ROWS, _CENTROIDS = 2**9, 2**11


def assign_lists(block: np.ndarray, centroids: np.ndarray, *, device: str = "cpu") -> np.ndarray:
    """Return the nearest centroid (L2) of each row of a block.

    Parameters
    ----------
    block : numpy.ndarray of shape (b, d), float32
        Vectors.
    centroids : numpy.ndarray of shape (lists, d), float32
        Centroids; of no length: all vectors get list 0.
    device : {"cpu", "cuda"}
        Where they are compared; ``"cuda"`` is all GPUs. Default ``"cpu"``.

    Returns
    -------
    numpy.ndarray of shape (b,), int32
        Of equally near ones that of the lowest number. The bytes do not depend on the number of threads.
    """
    import numba

    if len(centroids) == 0:
        return np.zeros(len(block), np.int32)
    if device == "cuda":
        return _nearest_on_gpus(block, centroids)

    # |x - c|² = |x|² - 2 (x·c - |c|² / 2), which loses all digits far from the origin
    origin = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
    moved = centroids - origin
    with_halves = np.column_stack([moved, -0.5 * np.einsum("cd,cd->c", moved, moved)])
    tasks = ((block[first : first + _ROWS], origin, with_halves) for first in range(0, len(block), _ROWS))
    with one_blas_thread():
        return np.concatenate([np.empty(0, np.int32), *in_order(_nearest, tasks, threads=numba.get_num_threads())])


def _nearest_on_gpus(block: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    import faiss

    index = index_on_gpus(centroids, inverted=None, probes=None, metric=faiss.METRIC_L2)
    firsts = range(0, len(block), MOST_GPU_QUERIES)
    blocks = (np.ascontiguousarray(block[first : first + MOST_GPU_QUERIES], np.float32) for first in firsts)
    return np.concatenate([np.empty(0, np.int32), *(index.search(rows, 1)[1][:, 0].astype(np.int32) for rows in blocks)])


def _nearest(rows: np.ndarray, origin: np.ndarray, with_halves: np.ndarray) -> np.ndarray:
    asking = np.ones((len(rows), with_halves.shape[1]), np.float32)
    np.subtract(rows, origin, out=asking[:, :-1])
    best, nearest = np.full(len(rows), -np.inf, np.float32), np.zeros(len(rows), np.int32)
    for first in range(0, len(with_halves), _CENTROIDS):
        keep_nearest(asking @ with_halves[first : first + _CENTROIDS].T, first, best, nearest)
    return nearest
