"""Completing the neighbor table of the background with the seeds: W_LL, W_LB, W_BL, and the tests (appendix D of the paper)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..neighbors import Entering, OrderedLists, entering, inverse, measure_table, merge_neighbors, permuted, search, take_entering
from ..store import Store
from .ordered_search import open_lists
from .plans import BLOCK_ROWS, SLACK
from .settings import Worker

Blocks = Iterator[tuple[np.ndarray, np.ndarray]]
_RECALL_ROWS = 1000


def by_lists(store: Store) -> bool:
    """Return whether the background was searched list after list, so that these lists can take seeds."""
    return bool(store.parameters("neighbors.background")["index"] == "list-major")


def complete(worker: Worker, store: Store, k: int, *, exact: bool) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Merge, row by row, what was found among the seeds with what was found among the background.

    Returns
    -------
    ids, similarities : numpy.ndarray of shape (n_L + n_B, k), int32 and float32
        The table of all nodes, seeds first.
    about : dict
        ``entering``: the recall of W_BL on a sample, where it is not exact.
    """
    n_seeds = len(store.array("seeds/vectors"))
    rows = n_seeds + len(store.array("background/vectors"))
    ids = worker.job.array("graph/neighbor_ids", "<i4", (rows, k))
    similarities = worker.job.array("graph/similarities", "<f4", (rows, k))
    for role, first_row in (("seeds", 0), ("background", n_seeds)):
        start = max(0, ids.rows - first_row)
        if role == "background" and by_lists(store):
            among_seeds = _entered(worker, store, k, start, exact=exact)
        else:
            among_seeds = _searched(store, role, k, start)
        for block_ids, block in _merged(store, role, k, start, among_seeds):
            ids.append(block_ids)
            similarities.append(block)
            worker.job.checkpoint()
    if "tests/neighbor_ids" in store:
        queries = worker.job.array("graph/query_ids", "<i4", (len(store.array("tests/vectors")), k))
        for block_ids, _ in _merged(store, "tests", k, queries.rows, _searched(store, "tests", k, queries.rows)):
            queries.append(block_ids)
            worker.job.checkpoint()
    about = {"entering": _recall(store, ids.view(), k)} if by_lists(store) and not exact else {}
    return ids.view(), similarities.view(), about


def _merged(store: Store, role: str, k: int, start: int, among_seeds: Blocks) -> Blocks:
    n_seeds = len(store.array("seeds/vectors"))
    found_ids, found = store.array(f"{role}/neighbor_ids"), store.array(f"{role}/similarities")
    row = start
    for ids, similarities in among_seeds:
        rows = slice(row, row + len(ids))
        yield merge_neighbors(ids, similarities, _shifted(found_ids[rows], n_seeds), found[rows], k=k)
        row = rows.stop


def _shifted(ids: np.ndarray, n_seeds: int) -> np.ndarray:
    """Return the ids of the background among all nodes, where the seeds come first."""
    return np.where(ids < 0, np.int32(-1), ids + np.int32(n_seeds))


def _searched(store: Store, role: str, k: int, start: int) -> Blocks:
    """Search the images of a role among the seeds, exactly."""
    seeds = store.array("seeds/vectors")
    return search(seeds, store.array(f"{role}/vectors"), k=min(k, len(seeds)), start=start)


def _entered(worker: Worker, store: Store, k: int, start: int, *, exact: bool) -> Blocks:
    """Yield, block by block, the seeds that enter the rows of the background, in the order of their ids."""
    job, lists = worker.job, open_lists(store)
    n, n_seeds = len(lists.order), len(store.array("seeds/vectors"))
    width = min(k, n_seeds)
    if "graph/spans" not in job or job.array("graph/spans", "<u4", (n, 2), scratch=True).rows < n:
        _enter(worker, store, lists, k, exact=exact)
    spans = job.array("graph/spans", "<u4", (n, 2), scratch=True).view()
    entries = job.array("graph/entering", "<u4", (None, 2), scratch=True).view()
    for first in range(start, n, BLOCK_ROWS):
        block = np.asarray(spans[first : first + BLOCK_ROWS])
        ids, similarities = np.empty((len(block), width), np.int32), np.empty((len(block), width), np.float32)
        take_entering(block, entries, ids, similarities)
        yield ids, similarities


def _enter(worker: Worker, store: Store, lists: OrderedLists, k: int, *, exact: bool) -> None:
    """Write ``graph/entering``, the seeds that enter, by position, and ``graph/spans``, where those of each id stand there."""
    job, n = worker.job, len(lists.order)
    seeds = np.ascontiguousarray(store.array("seeds/vectors"))
    probes = None if exact else store.record("neighbors.background")["probes"]
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


def _recall(store: Store, ids: np.ndarray, k: int) -> dict[str, float]:
    """Compare the seeds in some rows of the completed table with those that an exact search finds."""
    seeds, vectors = store.array("seeds/vectors"), store.array("background/vectors")
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), min(_RECALL_ROWS, len(vectors)), replace=False))
    among = zip(*search(seeds, np.ascontiguousarray(vectors[rows]), k=min(k, len(seeds))), strict=True)
    truth, similarities = (np.concatenate(blocks) for blocks in among)
    known = _shifted(store.array("background/neighbor_ids")[rows], len(seeds))
    whole, _ = merge_neighbors(truth, similarities, known, store.array("background/similarities")[rows], k=k)
    return measure_table(np.where(whole < len(seeds), whole, -1), ids[rows + len(seeds)])
