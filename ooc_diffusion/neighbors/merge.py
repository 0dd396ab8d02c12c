"""Merging the neighbors found among seeds with those found among the background (section 3.5, appendix D of the paper)."""

from __future__ import annotations

import numpy as np

from .kernels import merge_lists


def merge_neighbors(
    ids_a: np.ndarray,
    similarities_a: np.ndarray,
    ids_b: np.ndarray,
    similarities_b: np.ndarray,
    *,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Merge two neighbor tables of the same rows, over different points, into the k best of each row.

    Parameters
    ----------
    ids_a, ids_b : numpy.ndarray of shape (rows, k_a) and (rows, k_b), int32
        Ids, best first; -1 = none, the only sentinel.
    similarities_a, similarities_b : numpy.ndarray of the same shapes, float32
        Inner products; may be negative.
    k : int
        Entries to keep.

    Returns
    -------
    ids : numpy.ndarray of shape (rows, k), int32
        By decreasing similarity; the first table wins ties; padded with -1.
    similarities : numpy.ndarray of shape (rows, k), float32
        -1e30 where there is no neighbor.
    """
    ids = np.empty((len(ids_a), k), np.int32)
    similarities = np.empty((len(ids_a), k), np.float32)
    merge_lists(ids_a, similarities_a, ids_b, similarities_b, ids, similarities)
    return ids, similarities
