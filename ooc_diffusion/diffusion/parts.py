"""Copying the rows that the last iterations need, which every batch of columns reads again."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..graph import Graph
from ..store import ArrayWriter, Job
from . import kernels
from .blocks import Block, Part
from .needed import Needed, blocks_of
from .reading import entries_of

# Copies may have this part of the entries of W, together.
MOST_COPIED = 0.5
_COPIED_AT_ONCE = 2**20


def copied_bytes(n: int, nnz: int) -> int:
    """Return the most bytes that copies of rows of W without weights can take on disk."""
    return int(4 * MOST_COPIED * nnz) + 16 * n


def copy_parts(job: Job, graph: Graph, needed: Needed) -> None:
    """Copy the needed rows of W, from the last iteration backwards, into scratch arrays of a job."""
    left = int(MOST_COPIED * graph.nnz)
    for t in range(len(needed.masks) - 1, 0, -1):
        if needed.masks[t] is None or needed.entries[t] > left:
            break
        left -= needed.entries[t]
        needed.parts[t] = _copy(job, f"part/{t}", graph, blocks_of(graph, needed, t, ascending=True))


def _copy(job: Job, name: str, graph: Graph, blocks: Iterable[Block]) -> Part:
    def begin(what: str, dtype: str) -> ArrayWriter:
        job.drop(f"{name}/{what}")  # of a run that was interrupted
        return job.array(f"{name}/{what}", dtype, (None,), scratch=True)

    rows, indptr, scale, indices = (
        begin("rows", "<u4"),
        begin("indptr", "<i8"),
        begin("row_scale", "<f4"),
        begin("indices", "<u4"),
    )
    weights = None if graph.weights is None else begin("weights", "<f4")
    indptr.append(np.zeros(1, np.int64))
    for block, read in entries_of(blocks):
        ends = np.cumsum(np.diff(block.indptr)[block.rows])
        indptr.append(indices.rows + ends)
        rows.append((block.begin + block.rows).astype(np.uint32))
        scale.append(graph.row_scale[block.begin : block.end][block.rows])
        cuts = np.searchsorted(ends, np.arange(_COPIED_AT_ONCE, ends[-1], _COPIED_AT_ONCE))
        for some, size in zip(np.split(block.rows, cuts), np.diff(ends[cuts - 1], prepend=0, append=ends[-1]), strict=True):
            for writer, entries in zip((indices, weights), read, strict=True):
                if writer is not None:
                    copied = np.empty(size, entries.dtype)
                    kernels.copy_rows(some, block.indptr, entries, copied)
                    writer.append(copied)
    return Part(rows.view(), indptr.view(), indices.view(), scale.view(), None if weights is None else weights.view())
