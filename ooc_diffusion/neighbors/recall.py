"""How good a neighbor table is: recall against exact search on a sample, and how many lists it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .lists import Inverted
from .search import search

SAMPLES = 1000
# Whatever the recall: 1.96 standard errors of all or nothing, drawn so often, are 0.01.
MOST_SAMPLES = 10_000
_UNCERTAINTY = 0.01
# Similarities that differ by less are equal but for rounding.
CLOSE = 1e-6
# Tells the random numbers of a sample from those of k-means, which has the same seed: its first centroids are vectors.
_STREAM = 1
# Vectors that are compared at once: what stands in place of true neighbors may be many.
_COMPARED = 8192
# Half the width of a 95 % interval, in standard errors.
_STANDARD_ERRORS = 1.96


@dataclass(frozen=True)
class Sample:
    """Some vectors and their true nearest neighbors.

    Parameters
    ----------
    rows : numpy.ndarray of shape (s,), int64
        Ids of the vectors, ascending.
    neighbors : numpy.ndarray of shape (s, k), int32
        Ids of their k nearest neighbors, themselves included; -1 = none.
    least : numpy.ndarray of shape (s,), float32
        The least similarity among these: what reaches it is as near as any of them.
    vectors : numpy.ndarray of shape (s, d), float32
        The vectors themselves.
    """

    rows: np.ndarray
    neighbors: np.ndarray
    least: np.ndarray
    vectors: np.ndarray


def draw_sample(vectors: np.ndarray, *, k: int, n_samples: int = SAMPLES, seed: int = 0) -> Sample:
    """Draw vectors and find their neighbors exactly.

    Parameters
    ----------
    vectors : numpy.ndarray of shape (n, d), float32
        The vectors; may be a memmap.
    k : int
        Neighbors that count.
    n_samples : int
        How many vectors, default 1000.
    seed : int
        Seed of the sample, default 0.

    Returns
    -------
    Sample
    """
    rng = np.random.default_rng([seed, _STREAM])
    rows = rng.choice(len(vectors), min(n_samples, len(vectors)), replace=False)
    return _search_exactly(vectors, np.sort(rows), k)


def _search_exactly(vectors: np.ndarray, rows: np.ndarray, k: int) -> Sample:
    queries = np.ascontiguousarray(vectors[rows])
    ids, similarities = map(np.concatenate, zip(*search(vectors, queries, k=k), strict=True))
    return Sample(rows, ids, np.where(ids < 0, np.inf, similarities).min(axis=1).astype(np.float32), queries)


def recall_of_table(
    ids: np.ndarray,
    vectors: np.ndarray,
    *,
    k: int,
    seed: int = 0,
    inverted: Inverted | None = None,
    probes: int | None = None,
) -> dict[str, float]:
    """Compare a neighbor table with exact search on as many random rows as its recall takes to be known to 1 %.

    1000 rows do from a recall of some 0.9 on, 10 000 for any: they are drawn 1000 at a time, until the interval is that narrow.

    Parameters
    ----------
    ids : numpy.ndarray of shape (n, >= k), int32
        The neighbor table of all vectors; may be a memmap.
    vectors : numpy.ndarray of shape (n, d), float32
        The vectors; may be a memmap.
    k : int
        Neighbors that count.
    seed : int
        Seed of the sample, default 0.
    inverted, probes : Inverted and int, optional
        The lists that were searched, and how many of them for each vector.

    Returns
    -------
    dict
        See `measure_recall`; where lists are given, ``visited``, too: the recall of a search of the same lists that compares
        vectors as they are. What the table has less was lost by comparing them in half precision.
    """
    visited = np.zeros(2, np.int64)

    def hits(rows: np.ndarray) -> np.ndarray:
        sample = _search_exactly(vectors, rows, k)
        if inverted is not None and probes is not None:
            visited[:] += (_ranks(sample, inverted.lists, inverted.centroids) < probes).sum(), (sample.neighbors >= 0).sum()
        return count_hits(sample, ids[rows], vectors)

    found = measure_until_known(len(vectors), hits, seed=seed)
    return found if inverted is None else {**found, "visited": visited[0] / max(1, visited[1])}


def measure_until_known(n: int, hits: Callable[[np.ndarray], np.ndarray], *, seed: int) -> dict[str, float]:
    """Measure a recall on random rows, 1000 at a time, until it is known to 1 %, or on 10 000 of them.

    Parameters
    ----------
    n : int
        How many rows there are.
    hits : callable
        From rows (s,), int64, ascending, to (s, 2): for each how many were found, and how many there are.
    seed : int
        Seed of the sample.

    Returns
    -------
    dict
        See `measure_recall`. Rows that are all there is leave nothing uncertain.
    """
    rows = np.random.default_rng([seed, _STREAM]).choice(n, min(MOST_SAMPLES, n), replace=False)
    counts = np.empty((0, 2), np.int64)
    for first in range(0, len(rows), SAMPLES):
        counts = np.concatenate([counts, hits(np.sort(rows[first : first + SAMPLES]))])
        found = _measured(counts, n)
        if found["uncertainty"] <= _UNCERTAINTY:
            break
    return found


def most_samples(n: int) -> int:
    """Return how many times `measure_until_known` draws rows at most, of n."""
    return -(-min(MOST_SAMPLES, n) // SAMPLES)


def measure_recall(sample: Sample, found: np.ndarray, vectors: np.ndarray) -> dict[str, float]:
    """Compare some rows of a neighbor table with exact search.

    Parameters
    ----------
    sample : Sample
        Vectors and their k true neighbors.
    found : numpy.ndarray of shape (s, >= k), int32
        What the table has for these vectors; -1 = none.
    vectors : numpy.ndarray of shape (n, d), float32
        The vectors; may be a memmap. Read are those that the table has in place of true neighbors.

    Returns
    -------
    dict
        ``recall``, the share of the true k nearest neighbors that the table has, or others that are as near (identical vectors
        come in thousands); ``uncertainty``, half the width of its 95 % interval; and ``samples``.
    """
    return _measured(count_hits(sample, found, vectors), len(vectors))


def count_hits(sample: Sample, found: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return (s, 2): for each vector how many of its true neighbors, or as near ones, were found, and how many there are."""
    found = found[:, : sample.neighbors.shape[1]]
    there = np.array([np.isin(mine, truth[truth >= 0]) for truth, mine in zip(sample.neighbors, found, strict=True)])
    row, place = np.nonzero((found >= 0) & ~there)
    for first in range(0, len(row), _COMPARED):
        asking, at = row[first : first + _COMPARED], place[first : first + _COMPARED]
        products = np.einsum("md,md->m", sample.vectors[asking], vectors[found[asking, at]])
        there[asking, at] = products >= sample.least[asking] - CLOSE
    true = (sample.neighbors >= 0).sum(axis=1)
    return np.stack([np.minimum(there.sum(axis=1), true), true], axis=1)


def _measured(counts: np.ndarray, n: int) -> dict[str, float]:
    recall, uncertainty = share(*counts.T)
    return {"recall": recall, "uncertainty": uncertainty * float(np.sqrt(1 - len(counts) / n)), "samples": len(counts)}


def probes_for(sample: Sample, lists: np.ndarray, centroids: np.ndarray, *, target_recall: float) -> int:
    """Return how many lists must be visited for a recall.

    A neighbor is found where its list is among those that are visited, so one look at the sample tells the recall of any number.

    Parameters
    ----------
    sample : Sample
        Vectors and their true neighbors.
    lists : numpy.ndarray of shape (n,), int32
        The list of each vector; may be a memmap.
    centroids : numpy.ndarray of shape (n_lists, d), float32
        Centroids of the lists.
    target_recall : float
        What the recall is to be at least, up to 1. Half the width of its 95 % interval is added, where that is possible.

    Returns
    -------
    int
        At most the number of lists.
    """
    ranks = _ranks(sample, lists, centroids)
    counts = (sample.neighbors >= 0).sum(axis=1)
    for probes in range(1, len(centroids)):
        recall, uncertainty = share((ranks < probes).sum(axis=1), counts)
        if recall >= min(1.0, target_recall + uncertainty):
            return probes
    return len(centroids)


def _ranks(sample: Sample, lists: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return for each true neighbor (s, k) how many lists are nearer to its vector than its own; all where there is none."""
    ranks = np.full(sample.neighbors.shape, len(centroids))
    halves, there = 0.5 * np.einsum("cd,cd->c", centroids, centroids), sample.neighbors >= 0
    numbers = np.asarray(lists[np.where(there, sample.neighbors, 0)])
    for rank, vector, number, known in zip(ranks, sample.vectors, numbers, there, strict=True):
        far = halves - centroids @ vector
        rank[known] = np.searchsorted(np.sort(far), far[number[known]])
    return ranks


def share(hits: np.ndarray, of: np.ndarray) -> tuple[float, float]:
    """Return a share over all rows and half the width of its 95 % interval."""
    total = max(1, int(of.sum()))
    share = int(hits.sum()) / total if of.any() else 1.0
    errors = hits - share * of  # of a ratio of two means
    return share, float(_STANDARD_ERRORS * np.sqrt((errors**2).sum()) / total)
