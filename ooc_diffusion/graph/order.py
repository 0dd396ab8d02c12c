"""Locality order: nodes of one inverted list stand together, and near lists stand near."""

from __future__ import annotations

import numpy as np

from .kernels import order_by_list


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


def locality_order(lists: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Order nodes by inverted list, the lists by recursive bisection of their centroids.

    Parameters
    ----------
    lists : numpy.ndarray of shape (N,), int32
        Inverted list of each node.
    centroids : numpy.ndarray of shape (n_lists, d), float32
        Centroids of the lists.

    Returns
    -------
    numpy.ndarray of shape (N,), uint32
        Node id at each position; 4 N bytes.
    """
    rank = np.empty(len(centroids), np.int64)
    rank[bisect_centroids(centroids)] = np.arange(len(centroids))
    order = np.empty(len(lists), np.uint32)
    order_by_list(lists, rank, np.zeros(len(centroids) + 1, np.int64), order)
    return order
