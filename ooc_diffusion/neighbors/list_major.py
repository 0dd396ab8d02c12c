"""Searching by inverted lists that lie on disk, list after list: each is multiplied at once with all queries that probe it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..parallel import in_order, one_blas_thread
from ..store.npy import read_ahead
from .bounded import Best, key_bytes
from .kernels import group_by_list

# Sizes that could change the rounding of a matrix product are constants: results do not depend on the memory budget.
FEWEST_QUERIES, MOST_QUERIES = 2**12, 2**17
_BLOCKS = 16
# Of a block of queries; the most memory is taken with 128 probes: as many queries as there may be, and as many probes of these.
_MOST_PROBES = 2**24
MOST_MEMORY_PROBES = _MOST_PROBES // MOST_QUERIES
# The lists nearest to a vector are looked for among so many times as many around its own.
_AROUND, _FEWEST_AROUND = 8, 1024
# Rows of a list that are multiplied at once, and products: these stay in a core's cache until they are looked through.
_LIST_ROWS = 2**11
_PRODUCTS, _TILE_ROWS = 2**18, 2**12
# Queries whose nearest lists are looked for at once.
_PROBING_ROWS = 2**12
# Blocks, and queries of each, that tell how many lists a block visits.
_BLOCKS_SEEN, _QUERIES_SEEN = 3, 2**11
# The number of a list, and rows of queries.
Visit = tuple[int, np.ndarray]


@dataclass(frozen=True)
class OrderedLists:
    """Vectors in the order of their inverted lists.

    Parameters
    ----------
    centroids : numpy.ndarray of shape (lists, d), float32
        Centroids of the lists.
    starts : numpy.ndarray of shape (lists + 1,), int64
        Where each list begins.
    order : numpy.ndarray of shape (n,), uint32
        Id of the vector at each position; may be a memmap.
    vectors : numpy.ndarray of shape (n, d), float32 or float16
        The vectors by position; may be a memmap.
    """

    centroids: np.ndarray
    starts: np.ndarray
    order: np.ndarray
    vectors: np.ndarray

    def numbers(self, begin: int, end: int) -> np.ndarray:
        """Return the list of each vector at these positions, int32 (end - begin,)."""
        return np.searchsorted(self.starts, np.arange(begin, end), side="right").astype(np.int32) - np.int32(1)


def query_rows(q: int, probes: int) -> int:
    """Return how many of q queries are searched together: the more, the fewer times a list is read."""
    most = min(MOST_QUERIES, 1 << max(0, (_MOST_PROBES // probes).bit_length() - 1))
    return min(most, max(FEWEST_QUERIES, 1 << (q // _BLOCKS).bit_length()))


def around(lists: int, probes: int, *, own: bool) -> int:
    """Return how many centroids a query is compared with, to find those that it probes; ``own`` where its list is known."""
    return min(lists, max(_FEWEST_AROUND, _AROUND * probes)) if own else lists


def search_lists(
    lists: OrderedLists, queries: np.ndarray | None = None, *, k: int, probes: int, threads: int, start: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Find the k most similar vectors of each query in the lists whose centroids are nearest to it.

    Parameters
    ----------
    lists : OrderedLists
        The database.
    queries : numpy.ndarray of shape (q, d), float32 or float16, optional
        May be a memmap. Default: the vectors of the database, by position; the queries of a block then probe the same lists.
    k : int
        Neighbors per query. A query that is in the database finds itself, or an identical vector in its place.
    probes : int
        Lists that are visited for each query.
    threads : int
        Blocks of queries that are searched at once.
    start : int
        First query, a multiple of ``query_rows(q, probes)``. Default 0.

    Yields
    ------
    ids : numpy.ndarray of shape (b, k), int32
        Best first, of equal ones the lower position; -1 = none.
    similarities : numpy.ndarray of shape (b, k), float32
        Inner products; -1e30 where there is no neighbor.
    """
    asking = lists.vectors if queries is None else queries
    rows = query_rows(len(asking), probes)
    tasks = (_task(lists, queries, first, rows, k, probes) for first in range(start, len(asking), rows))
    with one_blas_thread():
        yield from in_order(_search_block, tasks, threads=threads)


def _task(lists: OrderedLists, queries: np.ndarray | None, first: int, rows: int, k: int, probes: int) -> tuple:
    block = (lists.vectors if queries is None else queries)[first : first + rows]
    return lists, block, first if queries is None else None, k, probes


def block_bytes(q: int, d: int, *, k: int, probes: int) -> int:
    """Return the bytes that searching one block of q queries takes, and two blocks of results that wait."""
    rows = min(q, query_rows(q, probes))
    probing = min(rows, _PROBING_ROWS) * key_bytes(probes)
    return rows * (4 * d + 8 * probes + key_bytes(k) + 3 * 8 * k) + probing + Tiles.bytes(d)


def part_visited(lists: OrderedLists, queries: np.ndarray | None = None, *, probes: int) -> float:
    """Estimate which part of the vectors a block of queries visits, from some queries of some blocks.

    Parameters
    ----------
    lists, queries, probes
        As for `search_lists`.

    Returns
    -------
    float
        Between 0 and 1. Lists that none of the queries looked at probes are added by Chao's rule: from those that one of them
        probes and those that two do.
    """
    asking = lists.vectors if queries is None else queries
    rows, lengths = query_rows(len(asking), probes), np.diff(lists.starts)
    parts = []
    for first in np.linspace(0, max(0, len(asking) - rows), _BLOCKS_SEEN).astype(np.int64) // rows * rows:
        places = np.unique(np.linspace(first, min(first + rows, len(asking)) - 1, _QUERIES_SEEN).astype(np.int64))
        own = (np.searchsorted(lists.starts, places, side="right") - 1).astype(np.int32) if queries is None else None
        near = nearest_lists(lists.centroids, np.ascontiguousarray(asking[places], np.float32), probes=probes, own=own)
        often = np.bincount(near.ravel(), minlength=len(lengths))
        once, twice = often == 1, int((often == 2).sum())
        seen = float(lengths[often > 0].sum())
        if once.any() and len(places) < min(rows, len(asking)):
            seen += once.sum() ** 2 / (2 * max(1, twice)) * lengths[once].mean()
        parts.append(min(1.0, seen / max(1, int(lists.starts[-1]))))
    return float(np.mean(parts))


def nearest_lists(centroids: np.ndarray, queries: np.ndarray, *, probes: int, own: np.ndarray | None = None) -> np.ndarray:
    """Return the lists whose centroids are nearest (L2) to each query, nearest first.

    Parameters
    ----------
    centroids : numpy.ndarray of shape (lists, d), float32
        Centroids of the lists.
    queries : numpy.ndarray of shape (q, d), float32
        Queries.
    probes : int
        How many lists.
    own : numpy.ndarray of shape (q,), int32, optional
        The list of each query, ascending. Then only the lists around that one are compared: 8 times as many, 1024 at least.

    Returns
    -------
    numpy.ndarray of shape (q, probes), int32
    """
    tiles, halves = Tiles(queries.shape[1]), 0.5 * np.einsum("cd,cd->c", centroids, centroids)
    nearest = np.empty((len(queries), probes), np.int32)
    for first in range(0, len(queries), _PROBING_ROWS):
        block = slice(first, min(first + _PROBING_ROWS, len(queries)))
        best = Best(block.stop - first, probes)
        known = None if own is None else own[block]
        compared = around(len(centroids), probes, own=own is not None)
        for rows, numbers in _candidates(centroids, halves, block.stop - first, compared, known):
            for found, some, part in tiles.products(queries[block], rows, centroids, numbers):
                found -= halves[numbers[part]]  # |q - c|² = |q|² - 2 (q·c - |c|² / 2)
                best.offer(found, some, numbers[part])
        nearest[block] = best.sorted()[0]
    return nearest


def _candidates(
    centroids: np.ndarray, halves: np.ndarray, queries: int, around: int, own: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of queries, int32, and the lists that may be among their nearest, nearest first."""
    rows = np.arange(queries, dtype=np.int32)
    if own is None or around >= len(centroids):
        yield rows, np.arange(len(centroids), dtype=np.int32)
        return
    bounds = [0, *(np.flatnonzero(np.diff(own)) + 1), queries]
    for begin, end in pairwise(bounds):
        far = halves - centroids @ centroids[own[begin]]
        near = np.argpartition(far, around)[:around]
        yield rows[begin:end], near[np.argsort(far[near], kind="stable")].astype(np.int32)


def _search_block(
    lists: OrderedLists, queries: np.ndarray, position: int | None, k: int, probes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Search for some queries: those of the database from a position on, or others."""
    own = None if position is None else lists.numbers(position, position + len(queries))
    queries = np.ascontiguousarray(queries, np.float32)
    starts, members = np.zeros(len(lists.centroids) + 1, np.int64), np.empty(len(queries) * probes, np.int32)
    group_by_list(nearest_lists(lists.centroids, queries, probes=probes, own=own), starts, members)
    best, tiles = Best(len(queries), k), Tiles(queries.shape[1])

    def visit(number: int, some: np.ndarray, vectors: np.ndarray) -> None:
        positions = np.arange(lists.starts[number], lists.starts[number + 1], dtype=np.int32)
        for found, asking, part in tiles.products(queries, some, vectors):
            best.offer(found, asking, positions[part])

    first, others = _visits(starts, members, lists.starts, position, len(queries))
    for number, some in first:
        visit(number, some, queries[lists.starts[number] - position : lists.starts[number + 1] - position])
    for place, (number, some) in enumerate(others):
        if place + 2 < len(others):
            following = others[place + 2][0]
            read_ahead(lists.vectors, lists.starts[following], lists.starts[following + 1])
        visit(number, some, lists.vectors[lists.starts[number] : lists.starts[number + 1]])
    positions, similarities = best.sorted()
    return np.where(positions < 0, np.int32(-1), lists.order[positions].astype(np.int32)), similarities


def _visits(
    starts: np.ndarray, members: np.ndarray, list_starts: np.ndarray, position: int | None, count: int
) -> tuple[list[Visit], list[Visit]]:
    """Return lists in the order in which they are visited, and the queries that probe them, in ``members`` from ``starts``.

    Queries come to their own list first, where most of their neighbors are, so that few other vectors are good enough then: where
    all of it is among the ``count`` queries from ``position`` on, which are in memory. The second part are the lists that the
    others probe, those that most of them do first.
    """
    asking = [members[begin:end] for begin, end in pairwise(starts)]
    first: list[Visit] = []
    if position is not None:
        within = np.searchsorted(list_starts, position), np.searchsorted(list_starts, position + count, side="right") - 1
        for number in range(*within):
            some, bounds = asking[number], list_starts[number : number + 2] - position
            begin, end = np.searchsorted(some, bounds)
            first.append((number, some[begin:end]))
            asking[number] = np.delete(some, slice(begin, end))
    order = np.argsort([-len(some) for some in asking], kind="stable").tolist()
    others = [(number, asking[number]) for number in order]
    return [visit for visit in first if len(visit[1])], [visit for visit in others if len(visit[1])]


class Tiles:
    """Inner products in tiles that stay in a core's cache until they are looked through."""

    def __init__(self, d: int) -> None:
        self._products = np.empty(max(_PRODUCTS, _LIST_ROWS), np.float32)
        self._gathered = np.empty((_TILE_ROWS, d), np.float32)

    @staticmethod
    def bytes(d: int) -> int:
        """Return the bytes that are held while products are made, a part of the vectors included."""
        return 4 * (_PRODUCTS + _TILE_ROWS * d + 2 * _LIST_ROWS * d)

    def products(
        self, queries: np.ndarray, rows: np.ndarray, vectors: np.ndarray, numbers: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, slice]]:
        """Yield the inner products of some rows of the queries with vectors, those of these numbers, tile by tile.

        Each comes with its rows, and the part of the vectors or numbers; the memory is used again.
        """
        count = len(vectors) if numbers is None else len(numbers)
        for first in range(0, count, _LIST_ROWS):
            part = slice(first, min(first + _LIST_ROWS, count))
            database = np.ascontiguousarray(vectors[part] if numbers is None else vectors[numbers[part]], np.float32)
            width = len(database)
            tile = max(1, min(_TILE_ROWS, _PRODUCTS // width))
            for begin in range(0, len(rows), tile):
                some = rows[begin : begin + tile]
                asking = self._gathered[: len(some)]
                np.take(queries, some, axis=0, mode="clip", out=asking)
                found = self._products[: len(some) * width].reshape(len(some), width)
                np.dot(asking, database.T, out=found)
                yield found, some, part
