"""Exact search: every query is compared with every vector, first by bounds that a matrix product of few values gives."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np

from ..parallel import one_blas_thread
from .bounded import Best, Bounded, Tailed, key_bytes

# Queries of each thread that go through the database together, and rows of the database that are read at once.
QUERY_ROWS = 4096
DATABASE_ROWS = 65536


def search_exactly(
    vectors: np.ndarray, queries: np.ndarray, *, k: int, threads: int, metric: str = "inner product", start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Find the k most similar vectors of each query.

    Parameters
    ----------
    vectors, queries, k, metric, start
        As for `search`, with any start.
    threads : int
        Each takes its share of some thousand queries through the database.

    Yields
    ------
    ids : numpy.ndarray of shape (b, k), int32
        Best first, of equal ones the lower id; -1 = none.
    similarities : numpy.ndarray of shape (b, k), float32
        -1e30 where there is no neighbor.

    Notes
    -----
    Squared distances are inner products of vectors of one value more: |q - x|² = |q|² - 2 (1, q)·(-|x|² / 2, x). The mean of some
    vectors is taken as the origin before, or the difference would lose all digits far from it. Each inner product that counts is
    computed by itself: the bytes depend on the two vectors and the origin alone.
    """
    euclidean = metric == "euclidean"
    origin = vectors[:DATABASE_ROWS].mean(axis=0, dtype=np.float64).astype(np.float32) if euclidean else None
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        for first in range(start, len(queries), threads * QUERY_ROWS):
            asking = _block(queries, first, threads * QUERY_ROWS, origin)
            shares = [share for share in np.array_split(asking, threads) if len(share)]
            tailed = [Tailed.of(_with_value(share, 1.0) if euclidean else share) for share in shares]
            best = [Best(len(share), k) for share in shares]
            bounded = [Bounded(one.vectors.shape[1]) for one in tailed]
            for begin in range(0, len(vectors), DATABASE_ROWS):
                part = _block(vectors, begin, DATABASE_ROWS, origin)
                database = Tailed.of(_with_value(part, -0.5 * _squares(part)) if euclidean else part)
                rows = np.arange(len(part), dtype=np.int32)
                list(
                    pool.map(Bounded.offer, bounded, best, tailed, repeat(database), repeat(rows), repeat(rows + np.int32(begin)))
                )
            found = [one.sorted() for one in best]
            nearest, similarities = (np.concatenate(parts) for parts in zip(*found, strict=True))
            if euclidean:
                distances = np.minimum(0, 2 * similarities - _squares(asking)[:, None])
                similarities = np.where(nearest < 0, np.float32(-1e30), distances)
            for begin in range(0, len(nearest), QUERY_ROWS):
                yield nearest[begin : begin + QUERY_ROWS], similarities[begin : begin + QUERY_ROWS]


def database_bytes(d: int) -> int:
    """Return the bytes that a part of the database takes."""
    return DATABASE_ROWS * (8 * (d + 1) + Tailed.bytes(d) + 8)


def query_bytes(d: int, k: int) -> int:
    """Return the bytes that the queries of a thread take, and their results."""
    return QUERY_ROWS * (12 * (d + 1) + Tailed.bytes(d) + key_bytes(k) + 24 * k) + Bounded.bytes(d + 1)


def _block(rows: np.ndarray, first: int, length: int, origin: np.ndarray | None) -> np.ndarray:
    block = np.ascontiguousarray(rows[first : first + length], np.float32)
    return block if origin is None else block - origin


def _squares(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", vectors, vectors)


def _with_value(vectors: np.ndarray, value: float | np.ndarray) -> np.ndarray:
    """Return vectors with one value more, float32: the first, so that it is in all bounds."""
    longer = np.empty((len(vectors), vectors.shape[1] + 1), np.float32)
    longer[:, 0] = value
    longer[:, 1:] = vectors
    return longer
