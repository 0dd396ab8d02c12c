"""Completing the neighbor table of the background with the seeds: W_LL, W_LB, W_BL, and the tests (appendix D of the paper)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..neighbors import (
    SAMPLES,
    Entering,
    OrderedLists,
    entering,
    fewest_probes,
    inverse,
    list_ranks,
    locality_order,
    measure_table,
    merge_neighbors,
    permuted,
    search,
    search_lists,
    take_entering,
)
from ..store import Store
from .ordered_search import open_lists, searches_at_once
from .plans import BLOCK_ROWS, SLACK
from .settings import Worker

Blocks = Iterator[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class How:
    """How the seeds among the neighbors are found.

    Parameters
    ----------
    exact : bool
        By exact search, not by the lists that the background was searched by.
    target_recall : float, optional
        Have each seed probe as many lists of the background as this recall of W_BL takes on a sample. Default: as many as the
        background probed itself.
    """

    exact: bool = False
    target_recall: float | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines the result, where it is not the default."""
        return {name: value for name, value in asdict(self).items() if value}


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
        ``recall_of_seeds``: how many of the seeds that belong there the rows of seeds and of the background have, on samples,
        where that is not exact.
    """
    n_seeds = len(store.array("seeds/vectors"))
    rows = n_seeds + len(store.array("background/vectors"))
    ids = worker.job.array("graph/neighbor_ids", "<i4", (rows, k))
    similarities = worker.job.array("graph/similarities", "<f4", (rows, k))
    for role, first_row in (("seeds", 0), ("background", n_seeds)):
        for block_ids, block in _merged(worker, store, role, k, max(0, ids.rows - first_row), how):
            ids.append(block_ids)
            similarities.append(block)
            worker.job.checkpoint()
    if "tests/neighbor_ids" in store:
        queries = worker.job.array("graph/query_ids", "<i4", (len(store.array("tests/vectors")), k))
        for block_ids, _ in _merged(worker, store, "tests", k, queries.rows, how):
            queries.append(block_ids)
            worker.job.checkpoint()
    table = ids.view()
    if how.exact or not by_lists(store):
        return table, similarities.view(), {}
    recall = {}
    for role, part in (("seeds", table[:n_seeds]), ("background", table[n_seeds:])):
        sample, truth = _belonging(store, role, k)
        recall[role] = measure_table(truth, part[sample])
    return table, similarities.view(), {"recall_of_seeds": recall}


def _merged(worker: Worker, store: Store, role: str, k: int, start: int, how: How) -> Blocks:
    n_seeds = len(store.array("seeds/vectors"))
    if role == "background" and by_lists(store):
        among_seeds = _entered(worker, store, k, start, how)
    else:
        among_seeds = _searched(worker, store, role, k, start, how)
    found_ids, found = store.array(f"{role}/neighbor_ids"), store.array(f"{role}/similarities")
    row = start
    for ids, similarities in among_seeds:
        rows = slice(row, row + len(ids))
        yield merge_neighbors(ids, similarities, _shifted(found_ids[rows], n_seeds), found[rows], k=k)
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
    lists, probes = _lists_of_seeds(worker, store), _probes(store)
    at_once = searches_at_once(len(queries), seeds.shape[1], width, probes, worker.budget, worker.threads)
    yield from search_lists(lists, queries, k=width, probes=probes, threads=at_once, start=start)


def _lists_of_seeds(worker: Worker, store: Store) -> OrderedLists:
    """Return the seeds in the order of the lists of the background."""
    centroids = np.ascontiguousarray(store.array("background/centroids"))
    order, starts = locality_order(store.array("seeds/lists"), len(centroids))
    ordered = _put(worker, "graph/ordered_seeds", store.array("seeds/vectors"), inverse(order))
    return OrderedLists(centroids, starts, order, ordered)


def _entered(worker: Worker, store: Store, k: int, start: int, how: How) -> Blocks:
    """Yield, block by block, the seeds that enter the rows of the background, in the order of their ids."""
    job, lists = worker.job, open_lists(store)
    n, n_seeds = len(lists.order), len(store.array("seeds/vectors"))
    width = min(k, n_seeds)
    if "graph/spans" not in job or job.array("graph/spans", "<u4", (n, 2), scratch=True).rows < n:
        _enter(worker, store, lists, k, how)
    spans = job.array("graph/spans", "<u4", (n, 2), scratch=True).view()
    entries = job.array("graph/entering", "<u4", (None, 2), scratch=True).view()
    for first in range(start, n, BLOCK_ROWS):
        block = np.asarray(spans[first : first + BLOCK_ROWS])
        ids, similarities = np.empty((len(block), width), np.int32), np.empty((len(block), width), np.float32)
        take_entering(block, entries, ids, similarities)
        yield ids, similarities


def _enter(worker: Worker, store: Store, lists: OrderedLists, k: int, how: How) -> None:
    """Write ``graph/entering``, the seeds that enter, by position, and ``graph/spans``, where those of each id stand there."""
    job, n = worker.job, len(lists.order)
    seeds = np.ascontiguousarray(store.array("seeds/vectors"))
    probes = None
    if not how.exact:
        probes = _probes(store) if how.target_recall is None else probes_of_seeds(store, k, how.target_recall)
    places = job.put("graph/places", inverse(lists.order), scratch=True)
    least = _put(worker, "graph/least", store.array("background/similarities")[:, k - 1], places)
    counts = job.array("graph/entering_counts", "<u4", (n,), scratch=True)
    found = job.array("graph/entering", "<u4", (None, 2), scratch=True)
    width = min(k, len(seeds))
    for part in entering(lists, seeds, least, k=width, probes=probes, threads=worker.threads, start=counts.rows):
        found.append(_entries(part))
        counts.append(part.counts)
        job.checkpoint()
    by_position = job.array("graph/spans_by_position", "<u4", (n, 2), scratch=True)
    before = int(counts.view()[: by_position.rows].sum(dtype=np.int64))
    for first in range(by_position.rows, n, BLOCK_ROWS):
        block = np.asarray(counts.view()[first : first + BLOCK_ROWS])
        ends = before + np.cumsum(block, dtype=np.int64)
        by_position.append(np.stack([ends - block, ends], axis=1).astype(np.uint32))
        before = int(ends[-1])
    job.checkpoint(now=True)
    _put(worker, "graph/spans", by_position.view(), lists.order)


def _entries(part: Entering) -> np.ndarray:
    return np.stack([part.seeds.view(np.uint32), part.similarities.view(np.uint32)], axis=1)


def _put(worker: Worker, name: str, source: np.ndarray, places: np.ndarray) -> np.ndarray:
    writer = worker.job.array(name, source.dtype.str, source.shape, scratch=True)
    for part in permuted(source, places, memory_bytes=worker.budget.room() - SLACK, start=writer.rows):
        writer.append(part)
        worker.job.checkpoint()
    worker.job.checkpoint(now=True)
    return writer.view()


def _belonging(store: Store, role: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows of a role; return them and the seeds among their k nearest neighbors by exact search, -1 = none."""
    seeds, vectors = store.array("seeds/vectors"), store.array(f"{role}/vectors")
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), min(SAMPLES, len(vectors)), replace=False))
    among = zip(*search(seeds, np.ascontiguousarray(vectors[rows]), k=min(k, len(seeds))), strict=True)
    truth, similarities = (np.concatenate(blocks) for blocks in among)
    known = _shifted(store.array(f"{role}/neighbor_ids")[rows], len(seeds))
    whole, _ = merge_neighbors(truth, similarities, known, store.array(f"{role}/similarities")[rows], k=k)
    return rows, np.where(whole < len(seeds), whole, -1)


def probes_of_seeds(store: Store, k: int, target_recall: float) -> int:
    """Return how many lists each seed must probe for a recall of W_BL, from a sample of the background."""
    rows, truth = _belonging(store, "background", k)
    seeds, lists, centroids = store.arrays("seeds/vectors", "background/lists", "background/centroids")
    ranks = np.zeros(truth.shape, np.int64)
    for row, place in zip(*np.nonzero(truth >= 0), strict=True):
        ranks[row, place] = list_ranks(centroids, seeds[truth[row, place]], lists[rows[row : row + 1]])[0]
    return fewest_probes(ranks, truth >= 0, n_lists=len(centroids), target_recall=target_recall)
