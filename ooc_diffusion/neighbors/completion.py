"""W_BL: which seeds are among the k nearest of a background vector, once its nearest background vectors are known (appendix D).

Only a seed that is nearer than the k-th of these can enter its list. So the inverted lists of the background are multiplied with
the seeds that probe them, and products below the k-th similarity are dropped where they arise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..parallel import one_blas_thread
from ..store.npy import read_ahead
from .kernels import group_by_list
from .list_major import Best, OrderedLists, Tiles, nearest_lists

# What rounding may take from a similarity of float32 vectors of unit length.
_ROUNDING = 1e-4
# Lists that are worked on at once are told together.
_LISTS = 16


@dataclass(frozen=True)
class Entering:
    """The seeds that enter the lists of the vectors at consecutive positions.

    Parameters
    ----------
    counts : numpy.ndarray of shape (m,), uint32
        How many enter that of each vector.
    seeds : numpy.ndarray of shape (sum of counts,), int32
        Which, vector after vector, best first.
    similarities : numpy.ndarray of the same shape, float32
        Their inner products.
    """

    counts: np.ndarray
    seeds: np.ndarray
    similarities: np.ndarray


def entering(
    lists: OrderedLists,
    seeds: np.ndarray,
    least: np.ndarray,
    *,
    k: int,
    probes: int | None,
    threads: int,
    start: int = 0,
) -> Iterator[Entering]:
    """Find the seeds that are at least as similar to a vector as the k-th that it has.

    Parameters
    ----------
    lists : OrderedLists
        The background.
    seeds : numpy.ndarray of shape (n_L, d), float32
        The seeds; may be a memmap.
    least : numpy.ndarray of shape (n,), float32
        The k-th similarity of the vector at each position; may be a memmap.
    k : int
        Most seeds of one vector.
    probes : int or None
        Lists that each seed probes. None is exact: a list is passed over only for seeds that cannot enter it, by the distance
        of its centroid and its radius.
    threads : int
        Threads.
    start : int
        First position that is wanted, that of a list. Default 0.

    Yields
    ------
    Entering
        For some lists, in their order.
    """
    count = len(lists.centroids)
    first = int(np.searchsorted(lists.starts, start))
    asking = _Everyone(lists, seeds) if probes is None else _Probing(lists, seeds, probes)
    pending: deque[Future[Entering]] = deque()
    begins = iter(range(first, count, _LISTS))
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                while len(pending) <= threads and (begin := next(begins, None)) is not None:
                    numbers = range(begin, min(begin + _LISTS, count))
                    pending.append(pool.submit(_enter, lists, seeds, least, asking, k, numbers))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class _Probing:
    """The seeds that probe a list."""

    def __init__(self, lists: OrderedLists, seeds: np.ndarray, probes: int) -> None:
        nearest = nearest_lists(lists.centroids, seeds, probes=probes)
        self._starts, self._members = np.zeros(len(lists.centroids) + 1, np.int64), np.empty(nearest.size, np.int32)
        group_by_list(nearest, self._starts, self._members)

    def __call__(self, number: int, vectors: np.ndarray, least: np.ndarray) -> np.ndarray:
        """Return the seeds to compare with the vectors of a list."""
        return self._members[self._starts[number] : self._starts[number + 1]]


class _Everyone:
    """The seeds that may enter a list: x·s = c·s + (x - c)·s, and the last is at most |x - c| |s|."""

    def __init__(self, lists: OrderedLists, seeds: np.ndarray) -> None:
        self._centroids, self._seeds = lists.centroids, seeds
        self._norms = np.sqrt(np.einsum("sd,sd->s", seeds, seeds))

    def __call__(self, number: int, vectors: np.ndarray, least: np.ndarray) -> np.ndarray:
        """Return the seeds to compare with the vectors of a list."""
        centroid = self._centroids[number]
        radius = np.sqrt(((vectors - centroid) ** 2).sum(axis=1).max())
        most = self._seeds @ centroid + radius * self._norms
        return np.flatnonzero(most >= least.min() - _ROUNDING * (1 + self._norms)).astype(np.int32)


def _enter(
    lists: OrderedLists, seeds: np.ndarray, least: np.ndarray, asking: _Probing | _Everyone, k: int, numbers: range
) -> Entering:
    tiles = Tiles(seeds.shape[1])
    parts = [_enter_list(lists, seeds, least, asking, k, number, tiles) for number in numbers]
    read_ahead(lists.vectors, lists.starts[numbers.stop], lists.starts[min(numbers.stop + _LISTS, len(lists.centroids))])
    return Entering(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _enter_list(
    lists: OrderedLists, seeds: np.ndarray, least: np.ndarray, asking: _Probing | _Everyone, k: int, number: int, tiles: Tiles
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    begin, end = lists.starts[number], lists.starts[number + 1]
    vectors, least = np.ascontiguousarray(lists.vectors[begin:end], np.float32), least[begin:end]
    best, rows = Best(end - begin, k, least=least), np.arange(end - begin, dtype=np.int32)
    if len(rows):
        some = asking(number, vectors, least)
        for found, queries, part in tiles.products(vectors, rows, seeds, some):
            best.offer(found, queries, some[part])
    ids, similarities = best.sorted()
    there = ids >= 0
    return there.sum(axis=1, dtype=np.uint32), ids[there], similarities[there]
