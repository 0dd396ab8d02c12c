"""W_BL: which seeds are among the k nearest of a background vector, once its nearest background vectors are known (appendix D).

Only a seed that is nearer than the k-th of these can enter its list. So the inverted lists of the background are multiplied with
the seeds that may enter, and products below the k-th similarity are dropped where they arise. For a vector x of the list with
centroid c, x·s = c·s + (x - c)·s, and the last is at most |x - c| |s|, mostly far less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..parallel import in_order, one_blas_thread
from ..store.npy import read_ahead
from .bounded import Best, Bounded, Tailed, key_bytes
from .kernels import list_near
from .list_major import OrderedLists
from .recall import share

# What rounding may take from a similarity of float32 vectors of unit length.
_ROUNDING = 1e-4
# The vectors of a list may be identical; reach must still mean something.
_LEAST_RADIUS = 1e-3
# Lists that go together and are compared with seeds at once, vectors of one of them, and seeds that are compared with centroids.
_LISTS, _ROWS, _SEEDS = 64, 2**13, 2**12
# Vectors of lists that go together, but for a longer list; and vectors whose seeds are returned at once.
_MOST_ROWS = 2**16
# Seeds that enter vectors, which are looked through at once.
_PIECE = 2**18
# What a seed of zeros needs where a list asks for no more than its product, 0.
_LEAST_REACH = -1e30
# What rounding may take from a cumulative share.
_SHARE_ROUNDING = 1e-9
# Reach is rounded up to such steps, so that rounding elsewhere does not decide.
_STEPS = 64


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

    def pieces(self, rows: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the seeds piece by piece, and the vectors (rows,), int64, that they enter: identical vectors may make many."""
        ends = np.cumsum(self.counts, dtype=np.int64)
        for first in range(0, len(self.seeds), rows):
            some = slice(first, min(first + rows, len(self.seeds)))
            yield some, np.searchsorted(ends, np.arange(some.start, some.stop), side="right")


def entering(
    lists: OrderedLists,
    seeds: np.ndarray,
    least: np.ndarray,
    *,
    k: int,
    reach: float | None,
    threads: int,
    start: int = 0,
) -> Iterator[Entering]:
    """Find the seeds that are at least as similar to a vector as the k-th that it has.

    Parameters
    ----------
    lists : OrderedLists
        The background.
    seeds : numpy.ndarray of shape (n_L, d), float32
        The seeds; may be a memmap. It is faster where near ones stand near.
    least : numpy.ndarray of shape (n,), float32
        The k-th similarity of the vector at each position; may be a memmap.
    k : int
        Most seeds of one vector.
    reach : float or None
        A seed is compared with a list where c·s + reach r |s| is at least the mean of ``least`` in it, r being its radius (root
        mean square); see `reach_for`. None is exact: |x - c| and ``least`` are then the extremes of the list.
    threads : int
        Threads.
    start : int
        First position that is wanted: where what was yielded before ended. Default 0.

    Yields
    ------
    Entering
        For some lists, in their order.
    """
    tailed, norms = Tailed.of(seeds), _norms(seeds)
    tasks = ((lists, tailed, norms, least, reach, k, part) for part in _parts(lists, least, start, exact=reach is None))
    with one_blas_thread():
        yield from in_order(_enter, tasks, threads=threads)


def entering_bytes(n: int, n_seeds: int, d: int, *, k: int) -> int:
    """Return the bytes that one thread takes: a piece of a list, its best seeds, seeds near lists, what is known of seeds."""
    held = min(n, _ROWS)
    asking = _SEEDS * (4 * d + 8 * _LISTS) + n_seeds * (4 * _LISTS + 4 + Tailed.bytes(d))
    found = 2 * 8 * k * min(n, _MOST_ROWS)  # put together, and what waits to be asked for
    return held * 10 * d + held * (key_bytes(k) + Tailed.bytes(d)) + Bounded.bytes(d) + asking + found


def reach_for(
    lists: OrderedLists,
    seeds: np.ndarray,
    least: np.ndarray,
    entered: tuple[np.ndarray, np.ndarray, np.ndarray],
    *,
    target_recall: float,
) -> float | None:
    """Return the reach that a recall takes, from the lists that some seeds enter.

    Parameters
    ----------
    lists, seeds, least
        As for `entering`.
    entered : tuple of numpy.ndarray of shape (m,)
        Lists, the seed that enters some of each, and how many; see `entered_lists`.
    target_recall : float
        What the recall is to be at least. Half the width of its 95 % interval is added, where that is possible.

    Returns
    -------
    float or None
        None where none does: a seed that is all zeros is as near to each list as its norm says, whatever the reach.
    """
    of_lists, some, times = entered
    numbers, place = np.unique(of_lists, return_inverse=True)
    radii, asked = np.array([_about(lists, least, int(number), exact=False) for number in numbers]).T
    vectors = seeds[some]
    near = np.einsum("md,md->m", lists.centroids[numbers[place]], vectors, dtype=np.float64)
    missing, across = asked[place] - near, radii[place] * _norms(vectors)
    needed = np.divide(missing, across, out=np.where(missing > 0, np.inf, _LEAST_REACH), where=across > 0)
    _, owner = np.unique(some, return_inverse=True)
    counts, order = np.bincount(owner, times), np.argsort(needed)
    shares = np.cumsum(times[order]) / times.sum()
    for wanted in np.linspace(min(target_recall, 1.0), 1, 101):
        reach = needed[order[np.searchsorted(shares, wanted - _SHARE_ROUNDING)]]
        if reach == np.inf:
            break
        rounded = float(np.ceil(reach * _STEPS) / _STEPS)
        recall, uncertainty = share(np.bincount(owner, (needed <= rounded) * times), counts)
        if recall >= min(1.0, target_recall + uncertainty):
            return rounded
    return None


def entered_lists(lists: OrderedLists, parts: Iterable[Entering], n_seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which lists seeds enter, and how often; what is held does not grow with the vectors that they enter.

    Parameters
    ----------
    lists : OrderedLists
        The background.
    parts : iterable of Entering
        From the first position on.
    n_seeds : int
        How many seeds there are.

    Returns
    -------
    numbers, seeds, times : numpy.ndarray of shape (m,), int64
        A list and a seed may be there more than once.
    """
    position, pairs, times = 0, [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part in parts:
        for which, vectors in part.pieces(_PIECE):
            numbers = np.searchsorted(lists.starts, position + vectors, side="right") - 1
            some, often = np.unique(numbers * n_seeds + part.seeds[which], return_counts=True)
            pairs.append(some)
            times.append(often)
        position += len(part.counts)
    numbers, seeds = np.divmod(np.concatenate(pairs), n_seeds)
    return numbers, seeds, np.concatenate(times)


def _norms(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("sd,sd->s", vectors, vectors))


@dataclass(frozen=True)
class _Part:
    """Lists that are compared together; of a long one a part of its rows, and what `_about` says of it."""

    numbers: range
    rows: slice | None = None
    about: tuple[float, float] | None = None


def _parts(lists: OrderedLists, least: np.ndarray, start: int, *, exact: bool) -> Iterator[_Part]:
    """Yield all lists part by part, the same ones however many threads there are; leave out those that end before ``start``."""
    count, begin, starts = len(lists.centroids), 0, lists.starts
    while begin < count:
        most = np.searchsorted(starts, starts[begin] + _MOST_ROWS, side="right") - 1
        end = min(max(begin + 1, int(most)), begin + _LISTS, count)
        numbers, rows = range(begin, end), range(int(starts[begin]), int(starts[end]), _MOST_ROWS)
        if len(rows) > 1 and rows.stop > start:
            about = _about(lists, least, begin, exact=exact)
            parts = (slice(first, min(first + _MOST_ROWS, rows.stop)) for first in rows)
            yield from (_Part(numbers, part, about) for part in parts if part.stop > start)
        elif rows.stop > start:
            yield _Part(numbers)
        begin = end


def _pieces(
    lists: OrderedLists, least: np.ndarray, number: int, rows: slice | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the vectors of a list, and the k-th similarity of each, piece by piece: a list of white images may be very long."""
    begin, end = (int(lists.starts[number]), int(lists.starts[number + 1])) if rows is None else (rows.start, rows.stop)
    for first in range(begin, max(end, begin + 1), _ROWS):
        part = slice(first, min(first + _ROWS, end))
        yield np.ascontiguousarray(lists.vectors[part], np.float32), np.asarray(least[part])


def _about(lists: OrderedLists, least: np.ndarray, number: int, *, exact: bool) -> tuple[float, float]:
    """Return a radius of a list, and a similarity that must be reached."""
    count, total, largest, asked, smallest = 0, 0.0, 0.0, 0.0, np.inf
    for vectors, similarities in _pieces(lists, least, number):
        squares = ((vectors - lists.centroids[number]) ** 2).sum(axis=1, dtype=np.float64)
        count, total, asked = count + len(squares), total + squares.sum(), asked + similarities.sum(dtype=np.float64)
        largest, smallest = squares.max(initial=largest), similarities.min(initial=smallest)
    if count == 0:
        return 0.0, np.inf
    if exact:
        return float(np.sqrt(largest)), float(smallest)
    return max(_LEAST_RADIUS, float(np.sqrt(total / count))), float(asked / count)


def _enter(
    lists: OrderedLists, seeds: Tailed, norms: np.ndarray, least: np.ndarray, reach: float | None, k: int, part: _Part
) -> Entering:
    numbers = part.numbers
    read_ahead(lists.vectors, lists.starts[numbers.stop], lists.starts[min(numbers.stop + _LISTS, len(lists.centroids))])
    known = [part.about or _about(lists, least, number, exact=reach is None) for number in numbers]
    radii, asked = np.array(known).T
    centroids = lists.centroids[numbers.start : numbers.stop]
    asking = _asking(centroids, radii if reach is None else reach * radii, asked, seeds.vectors, norms)
    bounded = Bounded(seeds.vectors.shape[1])
    found = []
    for number, some in zip(numbers, asking, strict=True):
        pieces = _pieces(lists, least, number, part.rows)
        found += [_enter_list(vectors, bound, seeds, some, k, bounded) for vectors, bound in pieces]
    return Entering(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def _asking(
    centroids: np.ndarray, radii: np.ndarray, asked: np.ndarray, seeds: np.ndarray, norms: np.ndarray
) -> list[np.ndarray]:
    """Return for each of some lists the seeds that may enter it, int32."""
    found: list[list[np.ndarray]] = [[] for _ in centroids]
    out = np.empty(_SEEDS, np.int32)
    for first in range(0, len(seeds), _SEEDS):
        block = slice(first, first + _SEEDS)
        near = centroids @ np.ascontiguousarray(seeds[block]).T
        for place, row, radius, bound in zip(found, near, radii.astype(np.float32), asked.astype(np.float32), strict=True):
            count = list_near(row, norms[block], radius, bound, np.float32(_ROUNDING), out)
            place.append(out[:count] + np.int32(first))
    # one after the other, each of which then is there once
    return [np.concatenate([np.empty(0, np.int32), *found.pop(0)]) for _ in centroids]


def _enter_list(
    vectors: np.ndarray, least: np.ndarray, seeds: Tailed, asking: np.ndarray, k: int, bounded: Bounded
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    best = Best(len(vectors), k, least=least)
    bounded.offer(best, Tailed.of(vectors), seeds, asking, asking)
    ids, similarities = best.sorted()
    there = ids >= 0
    return there.sum(axis=1, dtype=np.uint32), ids[there], similarities[there]
