"""Putting rows in order through buckets on disk: the source is read once, each range of the result has its own bucket."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ..neighbors import permuted
from ..store import ArrayWriter, Job
from .plans import BLOCK_ROWS


def fill_buckets(job: Job, name: str, source: np.ndarray, places: np.ndarray, edges: np.ndarray, dtype: np.dtype) -> None:
    """Write each row of the source to the bucket of its place, and the place in the bucket beside it.

    Parameters
    ----------
    job : Job
        The stage. It goes on behind the rows that its journal knows.
    name : str
        The array that the buckets are for.
    source : numpy.ndarray of shape (n, ...)
        May be a memmap.
    places : numpy.ndarray of shape (n,), uint32
        The place of each row in the result; may be a memmap.
    edges : numpy.ndarray of shape (buckets + 1,), int64
        Where the range of each bucket begins and ends.
    dtype : numpy.dtype
        Type of the result.
    """
    job.checkpoint(now=True)  # the edges are known before any bucket is begun
    buckets = [_bucket(job, name, i, int(b - a), source, dtype) for i, (a, b) in enumerate(pairwise(edges))]
    for first in range(sum(rows.rows for rows, _ in buckets), len(source), BLOCK_ROWS):
        block = np.ascontiguousarray(source[first : first + BLOCK_ROWS], dtype)
        there = np.asarray(places[first : first + BLOCK_ROWS])
        number = np.searchsorted(edges, there, side="right") - 1
        ends = np.cumsum(np.bincount(number, minlength=len(buckets)))
        for i, chosen in enumerate(np.split(np.argsort(number, kind="stable"), ends[:-1])):
            if len(chosen):
                buckets[i][0].append(block[chosen])
                buckets[i][1].append((there[chosen] - edges[i]).astype(np.uint32))
        job.checkpoint()
    job.checkpoint(now=True)


def sorted_buckets(job: Job, name: str, edges: np.ndarray, *, start: int, memory_bytes: int) -> Iterator[np.ndarray]:
    """Yield the rows of the result from ``start`` on, as `permuted` does, and give back each bucket whose rows are written."""
    for i, (begin, end) in enumerate(pairwise(edges.tolist())):
        rows, places = (f"{name}_bucket_{i}", f"{name}_bucket_places_{i}")
        if start < end:
            values, there = (job.array(one, "", ()).view() for one in (rows, places))
            yield from permuted(values, there, memory_bytes=memory_bytes, start=max(0, start - begin))
            job.checkpoint(now=True)
        job.drop(rows)
        job.drop(places)


def _bucket(job: Job, name: str, i: int, rows: int, source: np.ndarray, dtype: np.dtype) -> tuple[ArrayWriter, ArrayWriter]:
    values = job.array(f"{name}_bucket_{i}", dtype.str, (rows, *source.shape[1:]), scratch=True)
    return values, job.array(f"{name}_bucket_places_{i}", "<u4", (rows,), scratch=True)
