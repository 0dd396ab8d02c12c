"""Inverted lists: their centroids, and the order in which near vectors stand near."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..parallel import one_blas_thread
from .kernels import order_by_list

FEWEST_FOR_LISTS = 4096
_TRAINING_ROWS_PER_LIST, _FEWEST_PER_LIST = 100, 20
# More than this in bytes is not trained on, as long as enough are left for each list.
_MOST_TRAINING_BYTES = 2**31
_MOST_PROBES = 256


@dataclass(frozen=True)
class Inverted:
    """The coarse quantizer and the assignment of a set of vectors.

    Parameters
    ----------
    centroids : numpy.ndarray of shape (n_lists, d), float32
        Centroids of the inverted lists.
    lists : numpy.ndarray of shape (n,), int32
        List of each vector.
    """

    centroids: np.ndarray
    lists: np.ndarray


def n_lists(n: int) -> int:
    """Return the number of inverted lists of the paper, 4 √n; 0 for sets too small to be worth ordering."""
    return 4 * math.isqrt(n) if n >= FEWEST_FOR_LISTS else 0


def n_probes(lists: int) -> int:
    """Return the number of lists visited per query: 256, at most 3/4 of the lists."""
    return max(1, min(_MOST_PROBES, 3 * lists // 4))


def training_rows(n: int, d: int) -> int:
    """Return the number of vectors of d values that the centroids are trained on: up to 100 a list, 2 GiB, but 20 a list."""
    lists = n_lists(n)
    return min(n, _TRAINING_ROWS_PER_LIST * lists, max(_FEWEST_PER_LIST * lists, _MOST_TRAINING_BYTES // (4 * d)))


def bisect_centroids(centroids: np.ndarray) -> np.ndarray:
    """Order the centroids of inverted lists so that near ones come near each other.

    The set is split at the median of its first principal direction, and each half likewise.

    Parameters
    ----------
    centroids : numpy.ndarray of shape (n_lists, d), float32
        Centroids of the coarse quantizer.

    Returns
    -------
    numpy.ndarray of shape (n_lists,), int64
        List numbers in their new order.
    """
    ordered, pending = [], [np.arange(len(centroids))]
    with one_blas_thread():  # which also is faster: the threads of LAPACK wait for each other
        while pending:
            members = pending.pop()
            if len(members) <= 2:
                ordered.append(members)
                continue
            points = centroids[members].astype(np.float64)
            points -= points.mean(axis=0)
            direction = np.linalg.eigh(points.T @ points)[1][:, -1]
            # eigh leaves the sign open; without a rule the two halves would come in an arbitrary order
            direction *= np.sign(direction[np.argmax(np.abs(direction))]) or 1.0
            turn = np.argsort(points @ direction, kind="stable")
            half = len(members) // 2
            pending += [members[turn[half:]], members[turn[:half]]]
    return np.concatenate(ordered) if ordered else np.empty(0, np.int64)


def bisections(lists: int) -> int:
    """Return how many sets `bisect_centroids` cuts in two."""
    return 0 if lists <= 2 else 1 + bisections(lists // 2) + bisections(lists - lists // 2)


def locality_order(lists: np.ndarray, n_lists: int) -> tuple[np.ndarray, np.ndarray]:
    """Order vectors by inverted list: nodes of one list stand together, and near lists stand near.

    Parameters
    ----------
    lists : numpy.ndarray of shape (N,), int32
        Inverted list of each vector.
    n_lists : int
        How many lists there are.

    Returns
    -------
    order : numpy.ndarray of shape (N,), uint32
        Id of the vector at each position; 4 N bytes.
    starts : numpy.ndarray of shape (n_lists + 1,), int64
        Position at which each list begins.
    """
    order, starts = np.empty(len(lists), np.uint32), np.zeros(n_lists + 1, np.int64)
    order_by_list(lists, starts, order)
    return order, starts
