"""Searching the background among itself out of core: order, rewrite, search list after list, put back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..memory import MemoryBudget
from ..neighbors import Inverted, OrderedLists, block_bytes, inverse, locality_order, permuted, row_bytes, search_lists
from ..store import Store
from .buckets import fill_buckets, sorted_buckets
from .plans import BLOCK_ROWS, SLACK
from .settings import Worker
from .traffic import by_buckets


def search_among_itself(
    worker: Worker,
    vectors: np.ndarray,
    inverted: Inverted,
    *,
    width: int,
    probes: int,
    precision: str,
    look_ahead: Callable[[OrderedLists], object] = lambda lists: None,
) -> np.ndarray:
    """Write the neighbor table of the background, ``background/neighbor_ids`` and ``similarities``; return the ids.

    The vectors are copied in the order of their lists, ``background/ordered``, which all later searches read; ``look_ahead`` sees
    these before they are searched.
    """
    job = worker.job
    with worker.clock.step("ordering"):
        lists = rewrite_in_order(worker, vectors, inverted, precision)
    look_ahead(lists)
    ids = job.array("background/found_ids", "<i4", (len(vectors), width), scratch=True)
    similarities = job.array("background/found_similarities", "<f4", (len(vectors), width), scratch=True)
    worker.advance(ids.rows)
    at_once = searches_at_once(len(vectors), vectors.shape[1], width, probes, worker.budget, worker.threads)
    blocks = search_lists(lists, k=width, probes=probes, threads=at_once, start=ids.rows)
    for block_ids, block in worker.clock.each("searching", blocks):
        ids.append(block_ids)
        similarities.append(block)
        job.checkpoint()
        worker.advance(len(block))
    job.checkpoint(now=True)
    with worker.clock.step("putting back"):
        put_permuted(worker, "background/similarities", similarities.view(), lists.order)
        return put_permuted(worker, "background/neighbor_ids", ids.view(), lists.order)


def open_lists(store: Store) -> OrderedLists:
    """Return the inverted lists of the background as `search_among_itself` left them."""
    return OrderedLists(*store.arrays(*(f"background/{name}" for name in ("centroids", "list_starts", "order", "ordered"))))


def searches_at_once(q: int, d: int, k: int, probes: int, budget: MemoryBudget, threads: int) -> int:
    """Return how many blocks of queries are searched at once: one for each thread, as far as the memory goes."""
    size = block_bytes(q, d, k=k, probes=probes)
    return budget.units(size, what="searching the neighbors", fixed_bytes=SLACK, at_most=threads)


def rewrite_in_order(worker: Worker, vectors: np.ndarray, inverted: Inverted, precision: str) -> OrderedLists:
    """Write ``background/list_starts``, ``order`` and ``ordered``, the vectors in the order of their lists; return these."""
    job = worker.job
    order, starts = locality_order(inverted.lists, len(inverted.centroids))
    job.put("background/list_starts", starts)
    order = job.put("background/order", order)
    places = job.put("background/places", inverse(order), scratch=True)
    job.checkpoint(now=True)
    ordered = put_permuted(worker, "background/ordered", vectors, places, precision=precision)
    return OrderedLists(np.ascontiguousarray(inverted.centroids), starts, order, ordered)


def put_permuted(
    worker: Worker, name: str, source: np.ndarray, places: np.ndarray, *, precision: str | None = None, scratch: bool = False
) -> np.ndarray:
    """Write the rows of an array in another order and return it as it stands on disk.

    Either each range that fits in memory is a pass over the source; or, where that is less traffic, the source is read once and
    its rows are written to one bucket on disk for each range, which is then put in order in memory. The bytes are the same.
    """
    dtype = source.dtype if precision is None else np.dtype(precision)
    job, size, bounds = worker.job, row_bytes(source, dtype), f"{name}_bounds"
    writer = job.array(name, dtype.str, source.shape, scratch=scratch)
    if writer.rows < len(source):
        rows = worker.budget.units(size, what="putting rows in order", fixed_bytes=SLACK, at_most=len(source))
        cheaper = by_buckets(-(-len(source) // rows), size, abs(source.strides[0]))
        if bounds in job or (cheaper and writer.rows == 0):
            edges = np.append(np.arange(0, len(source), rows, dtype=np.int64), len(source))
            edges = np.array(job.put(bounds, edges, scratch=True))  # those of an earlier run
            if writer.rows == 0:
                fill_buckets(job, name, source, places, edges, dtype)
            parts = sorted_buckets(job, name, edges, start=writer.rows, memory_bytes=rows * size)
        else:
            parts = permuted(source, places, memory_bytes=rows * size, start=writer.rows, dtype=dtype)
        for part in parts:
            for first in range(0, len(part), BLOCK_ROWS):
                writer.append(part[first : first + BLOCK_ROWS])
                job.checkpoint()
            del part  # or its memory would be held beside that of the next
    job.checkpoint(now=True)
    return writer.view()
