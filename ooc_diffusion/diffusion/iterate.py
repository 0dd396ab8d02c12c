"""The dense step L_{t+1} = W L_t in blocks of rows, and where L_{t+1} lies until it is complete: in memory or in a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from ..graph import Graph
from ..store import ArrayWriter, Job
from . import kernels, room
from .blocks import Block, Part
from .needed import Needed, blocks_of
from .reading import Entries, entries_of
from .room import make_rows

# Parts of a block that threads take one after the other; the product does not depend on them.
_PARTS_PER_THREAD = 4
_SECONDS_BETWEEN_SAVES = 60
# A random read in more memory than this takes longer, even in huge pages: their addresses are not found fast. Such an L is gone
# through by segments. Measured for rows of 64 bytes and two threads: 6 ns in 1 GB, 17 ns in 6.4 GB, 10 ns there by segments.
NEAR_BYTES = 2**31
SEGMENT_BYTES = 2**30


class Target(Protocol):
    """Where the rows of L_{t+1} go."""

    def first(self) -> np.ndarray:
        """Return an array (N, C') of anything for the first L that is dense."""

    def start(self, t: int, n_rows: int) -> None:
        """Begin L_``t``, of which ``n_rows`` rows will be put."""

    def rows(self, block: Block) -> np.ndarray:
        """Return an array (rows, C') for the rows at work in a block, or for all of it; the last one may not be put yet."""

    def put(self, block: Block, rows: np.ndarray) -> None:
        """Take that array filled; called in the order of the blocks."""

    def complete(self, L: np.ndarray, needed: Needed, t: int) -> np.ndarray:
        """Return L_{t+1} = L_``t``; the one before may be written over. Rows that were not put hold anything."""


def step(graph: Graph, L: np.ndarray, target: Target, needed: Needed, t: int, *, threads: int) -> np.ndarray:
    """Return L_t, the rows that are needed computed, from L_{t-1}."""
    target.start(t, needed.count(t))
    multiply = product(L, threads)
    with ThreadPoolExecutor(1, "writing L") as thread:  # while the next rows are computed
        before = None
        for block, entries in entries_of(blocks_of(graph, needed, t)):
            out = target.rows(block)
            multiply(block, entries, out)
            if before is not None:
                before.result()
            before = thread.submit(target.put, block, out)
        if before is not None:
            before.result()
    return target.complete(L, needed, t)


class Product(Protocol):
    """Products of rows of W with one L."""

    def __call__(self, block: Block, entries: Entries, out: np.ndarray) -> None:
        """Write the rows at work in a block, W L, to ``out`` (rows, C'), or to where they stand in all of the block."""


def product(L: np.ndarray, threads: int) -> Product:
    """Return what multiplies rows of W by this L (N, C')."""
    return _Far(L, threads) if L.nbytes > NEAR_BYTES else _Near(L, threads)


class _Near:
    """Products of rows of W with one L, row after row."""

    def __init__(self, L: np.ndarray, threads: int) -> None:
        self._L, self._threads = L, threads

    def __call__(self, block: Block, entries: Entries, out: np.ndarray) -> None:
        """Write the rows at work in a block, W L, to ``out`` (rows, C'), or to where they stand in all of the block."""
        indptr, rows, scale = block.indptr, block.rows, block.source.row_scale[block.begin : block.end]
        indices, weights = entries
        bounds = _equal_parts(_ends(indptr, rows), self._threads * _PARTS_PER_THREAD)
        if len(weights) == 0:
            kernels.multiply(bounds, rows, indptr, indices, scale, self._L, out)
        else:
            kernels.multiply_weighted(bounds, rows, indptr, indices, weights, scale, self._L, out)


class _Far(_Near):
    """The same, going through L by segments, whose rows are found faster than those of all of it."""

    def __init__(self, L: np.ndarray, threads: int) -> None:
        super().__init__(L, threads)
        self._bits = max(0, int(SEGMENT_BYTES // (L.itemsize * L.shape[1])).bit_length() - 1)
        self._segments = ((len(L) - 1) >> self._bits) + 1
        # kept for all blocks: the system hands out new memory slowly
        self._starts = np.empty((room.BLOCK_ROWS, self._segments), np.uint32)
        self._sums = make_rows(room.BLOCK_ROWS, L.shape[1], np.dtype(np.float64))
        self._indices, self._weights = np.empty(room.BLOCK_ENTRIES, np.uint32), np.empty(0, np.float32)

    def __call__(self, block: Block, entries: Entries, out: np.ndarray) -> None:
        """Write the rows at work in a block, W L, to ``out`` (rows, C'), or to where they stand in all of the block."""
        indptr, rows = block.indptr, block.rows
        ends = _ends(indptr, rows)
        if len(rows) > len(self._starts) or ends[-1] > len(self._indices):
            super().__call__(block, entries, out)  # rows of hubs, so long that they are a block of their own
            return
        if len(entries[1]) > 0 and len(self._weights) == 0:
            self._weights = np.empty(len(self._indices), np.float32)
        bounds = _equal_parts(ends, self._threads)
        kernels.multiply_by_segments(
            bounds,
            np.concatenate([[0], ends])[bounds],
            rows,
            (indptr, *entries),
            block.source.row_scale[block.begin : block.end],
            np.uint64(self._bits),
            self._L,
            np.empty((self._threads, self._segments), np.int64),
            self._starts,
            (self._indices, self._weights),
            self._sums,
            out,
        )


def _ends(indptr: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Count the entries of rows up to the end of each."""
    everything = len(rows) == len(indptr) - 1
    return indptr[1:] - indptr[0] if everything else np.cumsum(indptr[rows + 1] - indptr[rows])


def _equal_parts(ends: np.ndarray, parts: int) -> np.ndarray:
    """Cut rows into parts with about as many entries each."""
    shares = np.linspace(0, ends[-1], parts + 1)[1:-1]
    return np.concatenate([[0], np.searchsorted(ends, shares), [len(ends)]])


class InMemory:
    """L_{t+1} in a second array, which then changes places with the first.

    Parameters
    ----------
    L : numpy.ndarray of shape (N, C'), float32 or the bits of bfloat16
        Memory for one of the two, the caller's, who keeps it for all batches: the system hands out new memory at some seconds per
        gigabyte. The other is made when it is first written to; until then sparse columns may have its place.
    """

    def __init__(self, L: np.ndarray) -> None:
        self._L = L
        self._next: np.ndarray | None = None

    def first(self) -> np.ndarray:
        """Return the memory."""
        return self._L

    def start(self, t: int, n_rows: int) -> None:
        """Make the other array where there is none yet."""
        if self._next is None:
            self._next = make_rows(len(self._L), self._L.shape[1], self._L.dtype)

    def rows(self, block: Block) -> np.ndarray:
        """Return all rows of the block themselves, or an array for those of a copied part of W."""
        assert self._next is not None
        if isinstance(block.source, Part):
            return np.empty((len(block.rows), self._L.shape[1]), self._L.dtype)
        return self._next[block.begin : block.end]

    def put(self, block: Block, rows: np.ndarray) -> None:
        """Copy rows that were computed apart."""
        assert self._next is not None
        if isinstance(block.source, Part):
            self._next[block.rows_at(block.rows)] = rows

    def complete(self, L: np.ndarray, needed: Needed, t: int) -> np.ndarray:
        """Change places."""
        assert self._next is not None
        done, self._next = self._next, L
        return done


class InFile:
    """L_{t+1} in a scratch array of a job, block after block, read back over L_t.

    Parameters
    ----------
    job : Job
        Whose scratch array it is.
    name : str
        Its name without the iteration.
    graph : Graph
        W.
    L : numpy.ndarray of shape (N, C'), float32 or the bits of bfloat16
        Memory for the iterates, one after the other. It is the caller's, since making it anew for each batch costs as much as a
        quarter of a product: the system takes it from its cache of W.
    save : callable, optional
        Called with t when L_t is on disk and a minute has passed, to write a checkpoint from which `load_iterate` takes it.
    """

    def __init__(self, job: Job, name: str, graph: Graph, L: np.ndarray, *, save: Callable[[int], None] | None = None) -> None:
        self._job, self._name, self._graph, self._L, self._save = job, name, graph, L, save
        self._last_save = time.monotonic()
        self._writer: ArrayWriter | None = None
        # kept for all blocks: the system hands out new memory slowly
        self._rows = [make_rows(max(8, min(len(L), room.BLOCK_ROWS)), L.shape[1], L.dtype) for _ in range(2)]

    def first(self) -> np.ndarray:
        """Return the memory."""
        return self._L

    def start(self, t: int, n_rows: int) -> None:
        """Reserve the space of the rows."""
        self._job.drop(f"{self._name}/{t}")  # of a step that was cut off
        self._writer = self._job.array(f"{self._name}/{t}", self._L.dtype.str, (n_rows, self._L.shape[1]), scratch=True)

    def rows(self, block: Block) -> np.ndarray:
        """Return an array for the rows."""
        self._rows.reverse()
        return self._rows[0][: len(block.rows)]

    def put(self, block: Block, rows: np.ndarray) -> None:
        """Write the rows behind those before."""
        assert self._writer is not None
        self._writer.append(rows)

    def complete(self, L: np.ndarray, needed: Needed, t: int) -> np.ndarray:
        """Read the rows back, and keep them on disk where it is time for a checkpoint."""
        assert self._writer is not None
        _read_back(self._writer.view(), L, self._graph, needed, t)
        if self._save is not None and time.monotonic() - self._last_save >= _SECONDS_BETWEEN_SAVES:
            self._save(t)
            self._last_save = time.monotonic()
        else:
            self._job.drop(f"{self._name}/{t}")
        return L


def load_iterate(job: Job, name: str, graph: Graph, L: np.ndarray, needed: Needed, t: int) -> None:
    """Write the L_t that `InFile` had on disk at a checkpoint into L (N, C')."""
    rows = job.array(f"{name}/{t}", L.dtype.str, (needed.count(t), L.shape[1]), scratch=True).view()
    _read_back(rows, L, graph, needed, t)


def _read_back(rows: np.ndarray, L: np.ndarray, graph: Graph, needed: Needed, t: int) -> None:
    """Put rows, in the order in which they were computed, where they belong."""
    first = 0
    for block in blocks_of(graph, needed, t):
        kernels.place_rows(block.rows_at(block.rows), rows[first : first + len(block.rows)], L)
        first += len(block.rows)
