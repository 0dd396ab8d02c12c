"""How long the parts of a search for neighbors take on this machine, from a measurement of a second or two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..parallel import in_order, one_blas_thread
from .bounded import Best, key_bytes
from .exact import QUERY_ROWS
from .kernels import offer, put_rows
from .list_major import Tiles, around, nearest_lists
from .lists import Inverted
from .nearest import assign_lists
from .recall import SAMPLES
from .search import inverted_index, search
from .training import move_centroids

# Vectors that are enough to measure with, and their bytes at most.
_SAMPLE_ROWS, _SAMPLE_BYTES = 2**14, 2**24
_STRETCHES = 64
# Each part is measured so often; the best counts, for another process may have come in between.
_TIMES = 2
# Lists of a k-means of some vectors that tells how much longer than others those are that are visited.
_SMALL_LISTS, _SMALL_ITERATIONS = 128, 4
_QUERIES = 1024
_SPLITS = 16


@dataclass(frozen=True)
class Rates:
    """Seconds that the parts of the work take, all threads being at work.

    Parameters
    ----------
    assign : float
        Per inner product of a vector with a centroid, to find the nearest.
    split : float
        Per set of centroids that is cut in two for the locality order.
    exact, flat : float
        Per inner product of an exact search, of a sample (one more) and of many vectors (on average over some).
    near : float
        Per centroid that is compared with a query, to find the lists that it probes.
    listed : float
        Per inner product with a vector of a list that all its queries are multiplied with at once.
    inside : float
        Per inner product with a vector of a list that faiss has in memory.
    kept : float
        Per similarity that was good enough to be looked at again.
    sorted : float
        Per neighbor that is written at last.
    moved : float
        Per byte of a row that is put in its place.
    longer : float
        How many times as long as the mean of all lists are those that are visited.
    """

    assign: float = 0.0
    split: float = 0.0
    exact: float = 0.0
    flat: float = 0.0
    near: float = 0.0
    listed: float = 0.0
    inside: float = 0.0
    kept: float = 0.0
    sorted: float = 0.0
    moved: float = 0.0
    longer: float = 1.0


def some_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return some vectors (m, d), float32, from stretches all over an array: enough to measure with."""
    n, d = vectors.shape
    rows = min(n, _SAMPLE_ROWS, max(2 * _QUERIES, _SAMPLE_BYTES // (4 * d)))
    stretches = min(_STRETCHES, rows)
    length = rows // stretches
    begins = np.linspace(0, n - length, stretches).astype(np.int64)
    return np.concatenate([np.asarray(vectors[begin : begin + length], np.float32) for begin in begins])


def measure_rates(
    some: np.ndarray, *, index: str, k: int, lists: int, length: int, asking: int, probes: int, threads: int
) -> Rates:
    """Do a little of everything that a search takes, with products of the same shapes.

    Parameters
    ----------
    some : numpy.ndarray of shape (m, d), float32
        Vectors, see `some_vectors`.
    index : str
        ``"Flat"``, ``"IVFFlat"`` or ``"list-major"``.
    k : int
        Neighbors that are kept.
    lists, length : int
        Inverted lists, and vectors of one of them.
    asking : int
        Queries that probe a list at once.
    probes : int
        Lists that a query probes.
    threads : int
        Threads.
    """
    m = len(some)
    length, asking = max(1, min(length, m // 4)), max(1, min(asking, m))
    found = {"exact": _exact(some, k), "moved": _moved(some)}
    if lists:
        found |= {"assign": _assign(some, lists), "split": _split(some)}
    if index == "Flat":
        return Rates(**found, flat=_flat(some, k, threads))
    small = some[:: max(1, m // _SMALL_LISTS)][:_SMALL_LISTS].copy()
    for _ in range(_SMALL_ITERATIONS):
        small = move_centroids(some, small, np.random.default_rng(0))
    lengths = np.bincount(assign_lists(some, small), minlength=len(small))
    found["longer"] = longer(some, small, lengths, probes=max(1, probes * len(small) // lists))
    with one_blas_thread():
        found["near"] = _near(some, lists, length, probes, threads)
    if index == "IVFFlat":
        return Rates(**found, inside=_inside(some, k, length, probes))
    with one_blas_thread():
        found["listed"] = _listed(some, length, asking, threads)
    return Rates(**found, kept=_kept(k, threads), sorted=_sorted(k, threads))


def longer(vectors: np.ndarray, centroids: np.ndarray, lengths: np.ndarray, *, probes: int) -> float:
    """Return how many times as long as the mean of all ``lengths`` (lists,) those are that some vectors probe."""
    near = nearest_lists(centroids, vectors[:_QUERIES], probes=min(probes, len(centroids)))
    return float(lengths[near].mean() / max(lengths.mean(), 1e-9))


def _best_of(call: Callable[[], object]) -> float:
    call()  # compiles
    seconds = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _together(call: Callable[[], object], threads: int) -> float:
    """Return the seconds for one call where each thread makes one at the same time."""
    return _best_of(lambda: list(in_order(call, [()] * threads, threads=threads))) / threads


def _exact(some: np.ndarray, k: int) -> float:
    """Return the seconds for one more product: the first vectors are looked at closely, of the others few."""
    queries = some[:SAMPLES]

    def seconds(rows: np.ndarray) -> float:
        return _best_of(lambda: list(search(rows, queries, k=min(k, len(rows))))) if len(rows) else 0.0

    few, in_all = some[: len(some) // 4], seconds(some)
    more = (in_all - seconds(few)) / (len(queries) * (len(some) - len(few)))
    return more if more > 0 else in_all / (len(queries) * len(some))


def _flat(some: np.ndarray, k: int, threads: int) -> float:
    queries = np.resize(some, (threads * QUERY_ROWS, some.shape[1]))
    return _best_of(lambda: list(search(some, queries, k=min(k, len(some))))) / (len(queries) * len(some))


def _assign(some: np.ndarray, lists: int) -> float:
    centroids, vectors = some[: min(lists, len(some) // 4)], some[: 16 * _QUERIES]
    return _best_of(lambda: assign_lists(vectors, centroids)) / (len(vectors) * len(centroids))


def _split(some: np.ndarray) -> float:
    points = some[:_SMALL_LISTS].astype(np.float64)  # of so few centroids most of the sets that are cut consist
    points -= points.mean(axis=0)

    def split() -> None:
        with one_blas_thread():
            for _ in range(_SPLITS):
                np.linalg.eigh(points.T @ points)

    return _best_of(split) / _SPLITS


def _inside(some: np.ndarray, k: int, length: int, probes: int) -> float:
    numbers = np.arange(len(some), dtype=np.int32) // length
    centroids, queries = some[::length], some[:_QUERIES]
    probes = min(probes, len(centroids))
    index = inverted_index(some, Inverted(centroids, numbers), probes, "inner product")
    with one_blas_thread():
        return _best_of(lambda: index.search(queries, k)) / (len(queries) * probes * length)


def _listed(some: np.ndarray, length: int, asking: int, threads: int) -> float:
    lists = len(some) // length
    rows = np.random.default_rng(0).permutation(len(some))[:asking].astype(np.int32)

    def visit() -> None:
        # nothing is good enough: what is kept is measured by itself
        best, tiles = Best(len(some), 1, least=np.full(len(some), np.inf, np.float32)), Tiles(some.shape[1])
        for number in range(lists):
            positions = np.arange(number * length, (number + 1) * length, dtype=np.int32)
            for found, queries, part in tiles.products(some, rows, some[number * length : (number + 1) * length]):
                best.offer(found, queries, positions[part])

    return _together(visit, threads) / (lists * length * asking)


def _near(some: np.ndarray, lists: int, length: int, probes: int, threads: int) -> float:
    centroids = some[: min(lists, len(some) // 2)]
    # lists all over, and the vectors nearest to each as its own: they meet their nearest centroids first
    own = np.unique(np.linspace(0, len(centroids) - 1, -(-_QUERIES // length)).astype(np.int32))
    members = np.argsort(-(centroids[own] @ some.T), axis=1, kind="stable")[:, :length]
    queries, own = some[members.ravel()], np.repeat(own, members.shape[1])
    probes = min(probes, len(centroids))
    seconds = _together(lambda: nearest_lists(centroids, queries, probes=probes, own=own), threads)
    return seconds / (len(queries) * around(len(centroids), probes, own=True))


def _kept(k: int, threads: int) -> float:
    n = 32 * k
    similarities = np.broadcast_to(np.arange(n, dtype=np.float32), (64, n)).copy()
    rows, positions = np.arange(64, dtype=np.int32), np.arange(n, dtype=np.int32)

    def keep() -> None:
        offer(similarities, rows, positions, k, *Best(64, k).state)

    return _together(keep, threads) / similarities.size


def _sorted(k: int, threads: int) -> float:
    values = np.random.default_rng(0).random((_QUERIES, key_bytes(k) // 8 - 1), np.float32)
    rows, positions = np.arange(len(values), dtype=np.int32), np.arange(values.shape[1], dtype=np.int32)

    def sort() -> None:
        best = Best(len(values), k)
        best.offer(values, rows, positions)
        best.sorted()

    return _together(sort, threads) / (len(values) * k)


def _moved(some: np.ndarray) -> float:
    places = np.random.default_rng(0).permutation(len(some)).astype(np.uint32)
    rows, out = some.view(np.uint32), np.empty_like(some, np.uint32)
    return _best_of(lambda: put_rows(rows, places, 0, len(rows), out)) / some.nbytes
