"""Completing the neighbor table of the background with the seeds: W_LL, W_LB, W_BL, and the tests (appendix D of the paper)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..memory import Clock
from ..neighbors import (
    CLOSE,
    SAMPLES,
    Entering,
    OrderedLists,
    Sample,
    count_hits,
    entered_lists,
    entering,
    inverse,
    locality_order,
    measure_until_known,
    merge_neighbors,
    reach_for,
    search,
    search_lists,
    take_entering,
)
from ..store import Store
from .ordered_search import open_lists, put_permuted, searches_at_once
from .plans import BLOCK_ROWS
from .settings import Worker
from .traffic import FEW_SEEDS

DEFAULT_RECALL = 0.99
# What the images of a role find among the seeds, by the names of the paper.
_BLOCKS = {"seeds": "W_LL", "background": "W_BL", "tests": "tests"}
# Entries of the background that are compared with the table at once: identical images may make many.
_COMPARED = 8192
Blocks = Iterator[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class How:
    """How the seeds among the neighbors are found.

    Parameters
    ----------
    exact : bool
        By exact search, not by the lists that the background was searched by.
    target_recall : float
        Compare each seed with as many lists of the background as this recall of W_BL takes on a sample.
    seed : int
        Seed of the samples.
    """

    exact: bool = False
    target_recall: float = DEFAULT_RECALL
    seed: int = 0

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines the result."""
        return {"exact": True} if self.exact else {"target_recall": self.target_recall, "seed": self.seed}


def by_lists(store: Store) -> bool:
    """Return whether the background was searched list after list, so that these lists can take seeds."""
    return bool(store.parameters("neighbors.background")["index"] == "list-major")


def complete(worker: Worker, store: Store, k: int, how: How) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Merge, row by row, what was found among the seeds with what was found among the background.

    Returns
    -------
    ids, similarities : numpy.ndarray of shape (n_L + n_B, k), int32 and float32
        The table of all nodes, seeds first.
    about : dict
        ``block_seconds``: how long W_LL, W_BL, the tests among the seeds, and the merge took. ``recall_of_seeds``: how many of
        the seeds that belong there the rows of seeds and of the background have, on samples, where that is not exact.
    """
    clock = Clock()
    n_seeds = len(store.array("seeds/vectors"))
    rows = n_seeds + len(store.array("background/vectors"))
    ids = worker.job.array("graph/neighbor_ids", "<i4", (rows, k))
    similarities = worker.job.array("graph/similarities", "<f4", (rows, k))
    for role, first_row in (("seeds", 0), ("background", n_seeds)):
        blocks = _merged(worker, clock, store, role, k, max(0, ids.rows - first_row), how)
        for block_ids, block in clock.each("merge", worker.clock.each("merging", blocks)):
            ids.append(block_ids)
            similarities.append(block)
            worker.job.checkpoint()
    if "tests/neighbor_ids" in store:
        queries = worker.job.array("graph/query_ids", "<i4", (len(store.array("tests/vectors")), k))
        blocks = _merged(worker, clock, store, "tests", k, queries.rows, how)
        for block_ids, _ in clock.each("merge", worker.clock.each("merging", blocks)):
            queries.append(block_ids)
            worker.job.checkpoint()
    table, about = ids.view(), {"block_seconds": clock.seconds}
    if how.exact or not by_lists(store):
        return table, similarities.view(), about
    values = similarities.view()
    with worker.clock.step("samples"):
        recall = {
            "seeds": _recall_of_seeds(store, table[:n_seeds], k, how),
            "background": _recall_of_background(worker, store, table[n_seeds:], values[n_seeds:], how),
        }
    return table, values, {**about, "recall_of_seeds": recall}


def _merged(worker: Worker, clock: Clock, store: Store, role: str, k: int, start: int, how: How) -> Blocks:
    n_seeds = len(store.array("seeds/vectors"))
    if role == "background" and by_lists(store):
        seeds, numbers, similarities = store.arrays("seeds/vectors", "seeds/lists", "background/similarities")
        among_seeds = entered(worker, open_lists(store), seeds, numbers, similarities[:, k - 1], k, start, how)
    else:
        among_seeds = worker.clock.each("searching seeds", _searched(worker, store, role, k, start, how))
    found_ids, found = store.array(f"{role}/neighbor_ids"), store.array(f"{role}/similarities")
    row = start
    for ids, block in clock.each(_BLOCKS[role], among_seeds):
        rows = slice(row, row + len(ids))
        yield merge_neighbors(ids, block, _shifted(found_ids[rows], n_seeds), found[rows], k=k)
        row = rows.stop


def _probes(store: Store) -> int:
    return int(store.record("neighbors.background")["probes"])


def _shifted(ids: np.ndarray, n_seeds: int) -> np.ndarray:
    """Return the ids of the background among all nodes, where the seeds come first."""
    return np.where(ids < 0, np.int32(-1), ids + np.int32(n_seeds))


def _searched(worker: Worker, store: Store, role: str, k: int, start: int, how: How) -> Blocks:
    """Search the images of a role among the seeds, exactly or by the lists of the background."""
    seeds, queries = store.array("seeds/vectors"), store.array(f"{role}/vectors")
    width = min(k, len(seeds))
    if how.exact or not by_lists(store):
        yield from search(seeds, queries, k=width, start=start)
        return
    centroids = np.ascontiguousarray(store.array("background/centroids"))
    lists, probes = _in_order(worker, seeds, store.array("seeds/lists"), centroids), _probes(store)
    at_once = searches_at_once(len(queries), seeds.shape[1], width, probes, worker.budget, worker.threads)
    yield from search_lists(lists, queries, k=width, probes=probes, threads=at_once, start=start)


def _in_order(worker: Worker, seeds: np.ndarray, numbers: np.ndarray, centroids: np.ndarray) -> OrderedLists:
    """Return the seeds in the order of the lists of the background, which ``numbers`` (n_L,) says for each."""
    order, starts = locality_order(numbers, len(centroids))
    ordered = put_permuted(worker, "entering/ordered_seeds", seeds, inverse(order), scratch=True)
    return OrderedLists(centroids, starts, order, ordered)


def entered(
    worker: Worker,
    lists: OrderedLists,
    seeds: np.ndarray,
    numbers: np.ndarray,
    kth: np.ndarray,
    k: int,
    start: int,
    how: How,
) -> Blocks:
    """Yield, block by block, the seeds that enter the rows of the background, in the order of their ids.

    Parameters
    ----------
    worker : Worker
        Its job gets scratch arrays, ``entering/*``.
    lists : OrderedLists
        The background.
    seeds : numpy.ndarray of shape (n_L, d), float32
        The seeds; may be a memmap.
    numbers : numpy.ndarray of shape (n_L,), int32
        The list of the background that is nearest to each seed; may be a memmap.
    kth : numpy.ndarray of shape (n,), float32
        The similarity that must be reached in the row of each id; may be a part of a memmap.
    k : int
        Most seeds of one row.
    start : int
        First row that is wanted, a multiple of the size of a block.
    how : How
        How they are found.
    """
    job, n = worker.job, len(lists.order)
    width = min(k, len(seeds))
    if "entering/spans" not in job or job.array("entering/spans", "<i8", (n, 2), scratch=True).rows < n:
        with worker.clock.step("entering"):
            _enter(worker, lists, seeds, numbers, kth, k, how)
    spans = job.array("entering/spans", "<i8", (n, 2), scratch=True).view()
    entries = job.array("entering/found", "<u4", (None, 2), scratch=True).view()
    for first in range(start, n, BLOCK_ROWS):
        block = np.asarray(spans[first : first + BLOCK_ROWS])
        ids, similarities = np.empty((len(block), width), np.int32), np.empty((len(block), width), np.float32)
        take_entering(block, entries, ids, similarities)
        yield ids, similarities


def _enter(
    worker: Worker, lists: OrderedLists, seeds: np.ndarray, numbers: np.ndarray, kth: np.ndarray, k: int, how: How
) -> None:
    """Write ``entering/found``, the seeds that enter, by position, and ``entering/spans``, where those of each id stand there."""
    job, n, seeds = worker.job, len(lists.order), np.ascontiguousarray(seeds)
    places = job.put("entering/places", inverse(lists.order), scratch=True)
    ordered = _in_order(worker, seeds, numbers, lists.centroids)
    least = put_permuted(worker, "entering/least", kth, places, scratch=True)
    with worker.clock.step("samples"):
        reach = reach_of_seeds(worker, lists, seeds, least, k, how)
    counts = job.array("entering/counts", "<u4", (n,), scratch=True)
    found = job.array("entering/found", "<u4", (None, 2), scratch=True)
    width = min(k, len(seeds))
    options: dict[str, Any] = {"k": width, "reach": reach, "threads": worker.threads, "start": counts.rows}
    for part in entering(lists, np.ascontiguousarray(ordered.vectors), least, **options):
        found.append(_entries(ordered.order[part.seeds], part.similarities))
        counts.append(part.counts)
        job.checkpoint()
    by_position = job.array("entering/spans_by_position", "<i8", (n, 2), scratch=True)
    before = int(counts.view()[: by_position.rows].sum(dtype=np.int64))
    for first in range(by_position.rows, n, BLOCK_ROWS):
        block = np.asarray(counts.view()[first : first + BLOCK_ROWS])
        ends = before + np.cumsum(block, dtype=np.int64)
        by_position.append(np.stack([ends - block, ends], axis=1))
        before = int(ends[-1])
    job.checkpoint(now=True)
    put_permuted(worker, "entering/spans", by_position.view(), lists.order, scratch=True)


def _entries(ids: np.ndarray, similarities: np.ndarray) -> np.ndarray:
    return np.stack([ids.view(np.uint32), similarities.view(np.uint32)], axis=1)


def _entered_by(
    worker: Worker, lists: OrderedLists, seeds: np.ndarray, some: np.ndarray, least: np.ndarray, k: int
) -> Iterator[Entering]:
    """Find by exact search which rows of the background some seeds enter; these are counted from 0."""
    drawn = np.ascontiguousarray(seeds[some])
    return entering(lists, drawn, least, k=min(k, len(some)), reach=None, threads=worker.threads)


def reach_of_seeds(worker: Worker, lists: OrderedLists, seeds: np.ndarray, least: np.ndarray, k: int, how: How) -> float | None:
    """Return the reach of `entering` that a recall takes on a sample; None for exact search."""
    if how.exact or len(seeds) <= FEW_SEEDS:
        return None
    some = np.sort(np.random.default_rng(how.seed).choice(len(seeds), min(SAMPLES, len(seeds)), replace=False))
    entered = entered_lists(lists, _entered_by(worker, lists, seeds, some, least, k), len(some))
    if entered[2].sum() < SAMPLES:
        return None
    return reach_for(lists, np.ascontiguousarray(seeds[some]), least, entered, target_recall=how.target_recall)


def _recall_of_background(
    worker: Worker, store: Store, table: np.ndarray, similarities: np.ndarray, how: How
) -> dict[str, float]:
    """Compare the rows of the background that other seeds enter with the completed table: each is there, or too far."""
    lists, seeds, k = open_lists(store), store.array("seeds/vectors"), table.shape[1]
    least = worker.job.array("entering/least", "<f4", (len(table),), scratch=True).view()

    def hits(some: np.ndarray) -> np.ndarray:
        counts, first = np.zeros((len(some), 2), np.int64), 0
        for part in _entered_by(worker, lists, seeds, some, least, k):
            for which, vectors in part.pieces(_COMPARED):
                rows, places = lists.order[first + vectors], part.seeds[which]
                there = (table[rows] == some[places, None]).any(axis=1)
                belongs = there | (part.similarities[which] > similarities[rows, k - 1] + CLOSE)
                for column, flags in enumerate((there, belongs)):
                    counts[:, column] += np.bincount(places[flags], minlength=len(some))
            first += len(part.counts)
        return counts

    return measure_until_known(len(seeds), hits, seed=how.seed + 1)


def _recall_of_seeds(store: Store, table: np.ndarray, k: int, how: How) -> dict[str, float]:
    """Compare the seeds in some rows of seeds with those that an exact search finds; others that are as near count as these."""
    seeds = store.array("seeds/vectors")

    def hits(rows: np.ndarray) -> np.ndarray:
        vectors = np.ascontiguousarray(seeds[rows])
        among = zip(*search(seeds, vectors, k=min(k, len(seeds))), strict=True)
        truth, similarities = (np.concatenate(blocks) for blocks in among)
        known = _shifted(store.array("seeds/neighbor_ids")[rows], len(seeds))
        whole, similarities = merge_neighbors(truth, similarities, known, store.array("seeds/similarities")[rows], k=k)
        least = np.where(whole < 0, np.inf, similarities).min(axis=1).astype(np.float32)
        true, found = (_only_seeds(ids, len(seeds)) for ids in (whole, table[rows]))
        return count_hits(Sample(rows, true, least, vectors), found, seeds)

    return measure_until_known(len(seeds), hits, seed=how.seed)


def _only_seeds(ids: np.ndarray, n_seeds: int) -> np.ndarray:
    return np.where(ids < n_seeds, ids, np.int32(-1))
