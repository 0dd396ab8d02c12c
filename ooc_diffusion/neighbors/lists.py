"""Inverted lists: their centroids, and the order in which near vectors stand near."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .kernels import add_by_list, order_by_list
from .nearest import assign_lists

FEWEST_FOR_LISTS = 4096
_TRAINING_ROWS_PER_LIST = 100
_ITERATIONS = 10
# How far an empty list is put beside a full one, in parts of each value.
_BESIDE = 2.0**-10
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


def training_rows(n: int) -> int:
    """Return the number of vectors that the centroids are trained on: up to 100 a list."""
    return min(n, _TRAINING_ROWS_PER_LIST * n_lists(n))


def train_centroids(vectors: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Train the centroids of the inverted lists by k-means on a sample.

    Parameters
    ----------
    vectors : numpy.ndarray of shape (n, d), float32
        May be a memmap; `training_rows` rows of it are read.
    seed : int
        Seed of the sample and of k-means, default 0.

    Returns
    -------
    numpy.ndarray of shape (4 √n, d), float32
        In locality order; see `bisect_centroids`.
    """
    n, lists = len(vectors), n_lists(len(vectors))
    rows = training_rows(n)
    # one row of each of equally long stretches: drawing without replacement would take memory that grows with n
    edges = np.arange(rows + 1) * n // rows
    rng = np.random.default_rng(seed)
    sample = np.ascontiguousarray(vectors[rng.integers(edges[:-1], edges[1:])], np.float32)
    centroids = sample[rng.choice(rows, lists, replace=False)]
    for _ in range(_ITERATIONS):
        centroids = _means(sample, assign_lists(sample, centroids), centroids, rng)
    return centroids[bisect_centroids(centroids)]


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
