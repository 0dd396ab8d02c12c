"""The dense step L_{t+1} = W L_t in blocks of rows, and where L_{t+1} lies until it is complete: in memory or in a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from ..graph import Graph
from ..store import ArrayWriter, Job
from ..store.npy import read_ahead
from . import kernels
from .needed import Needed, row_blocks

# Parts of a block that threads take one after the other; the product does not depend on them.
_PARTS_PER_THREAD = 4
# Blocks of W, of 16 MiB mostly, that are read from disk while one is multiplied.
_BLOCKS_AHEAD = 2
_SECONDS_BETWEEN_SAVES = 60


class Target(Protocol):
    """Where the rows of L_{t+1} go."""

    def start(self, t: int, n_rows: int) -> None:
        """Begin L_``t``, of which ``n_rows`` rows will be put."""

    def block(self, begin: int, end: int, rows: np.ndarray) -> np.ndarray:
        """Return an array (rows, C') to be filled with some rows of begin .. end."""

    def put(self, begin: int, end: int, rows: np.ndarray, block: np.ndarray) -> None:
        """Take the block filled."""

    def complete(self, L: np.ndarray, needed: Needed, t: int) -> np.ndarray:
        """Return L_{t+1} = L_``t``; the one before may be written over. Rows that were not put hold anything."""


def blocks_of(graph: Graph, needed: Needed, t: int) -> list[tuple[int, int]]:
    """Return the blocks of rows that are computed for L_t, in their order.

    Every second pass goes through W backwards: what the one before has read last is still in the system's cache.
    """
    blocks = [block for block in row_blocks(graph.indptr) if len(needed.rows(t, *block))]
    return blocks if t % 2 else blocks[::-1]


def step(graph: Graph, L: np.ndarray, target: Target, needed: Needed, t: int, *, threads: int) -> np.ndarray:
    """Return L_t, the rows that are needed computed, from L_{t-1}."""
    blocks = blocks_of(graph, needed, t)
    target.start(t, needed.count(t))
    for number, (begin, end) in enumerate(blocks):
        for later in blocks[number + 1 : number + 1 + _BLOCKS_AHEAD]:
            _read_ahead(graph, *later)
        rows = needed.rows(t, begin, end)
        block = target.block(begin, end, rows)
        indptr = graph.indptr[begin : end + 1]
        entries = slice(int(indptr[0]), int(indptr[-1]))
        scale = graph.row_scale[begin:end]
        bounds = _equal_parts(indptr, rows, threads * _PARTS_PER_THREAD)
        if graph.weights is None:
            kernels.multiply(bounds, rows, indptr, graph.indices[entries], scale, L, block)
        else:
            kernels.multiply_weighted(bounds, rows, indptr, graph.indices[entries], graph.weights[entries], scale, L, block)
        target.put(begin, end, rows, block)
    return target.complete(L, needed, t)


def _read_ahead(graph: Graph, begin: int, end: int) -> None:
    entries = int(graph.indptr[begin]), int(graph.indptr[end])
    read_ahead(graph.indices, *entries)
    if graph.weights is not None:
        read_ahead(graph.weights, *entries)


def _equal_parts(indptr: np.ndarray, rows: np.ndarray, parts: int) -> np.ndarray:
    """Cut rows into parts with about as many entries each."""
    everything = len(rows) == len(indptr) - 1
    ends = indptr[1:] - indptr[0] if everything else np.cumsum(indptr[rows + 1] - indptr[rows])
    shares = np.linspace(0, ends[-1], parts + 1)[1:-1]
    return np.concatenate([[0], np.searchsorted(ends, shares), [len(rows)]])


class InMemory:
    """L_{t+1} in a second array, which then changes places with the first."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._next: np.ndarray | None = None

    def start(self, t: int, n_rows: int) -> None:
        """Nothing: the array is made when it is first written to."""

    def block(self, begin: int, end: int, rows: np.ndarray) -> np.ndarray:
        """Return the rows themselves where all are wanted, else an array of their own."""
        if self._next is None:
            self._next = np.empty(self._shape, np.float32)
        return self._next[begin:end] if len(rows) == end - begin else np.empty((len(rows), self._shape[1]), np.float32)

    def put(self, begin: int, end: int, rows: np.ndarray, block: np.ndarray) -> None:
        """Copy rows that were computed apart."""
        assert self._next is not None
        if len(rows) < end - begin:
            self._next[begin + rows] = block

    def complete(self, L: np.ndarray, needed: Needed, t: int) -> np.ndarray:
        """Change places."""
        done = np.empty(self._shape, np.float32) if self._next is None else self._next  # None: no row was needed
        self._next = L
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
    columns : int
        Number of columns C'.
    save : callable, optional
        Called with t when L_t is on disk and a minute has passed, to write a checkpoint from which `load_iterate` takes it.
    """

    def __init__(self, job: Job, name: str, graph: Graph, columns: int, *, save: Callable[[int], None] | None = None) -> None:
        self._job, self._name, self._graph, self._columns, self._save = job, name, graph, columns, save
        self._last_save = time.monotonic()
        self._writer: ArrayWriter | None = None

    def start(self, t: int, n_rows: int) -> None:
        """Reserve the space of the rows."""
        self._job.drop(f"{self._name}/{t}")  # of a step that was cut off
        self._writer = self._job.array(f"{self._name}/{t}", "<f4", (n_rows, self._columns), scratch=True)

    def block(self, begin: int, end: int, rows: np.ndarray) -> np.ndarray:
        """Return an array for the rows."""
        return np.empty((len(rows), self._columns), np.float32)

    def put(self, begin: int, end: int, rows: np.ndarray, block: np.ndarray) -> None:
        """Write the rows behind those before."""
        assert self._writer is not None
        self._writer.append(block)

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


def load_iterate(job: Job, name: str, graph: Graph, columns: int, needed: Needed, t: int) -> np.ndarray:
    """Return the L_t that `InFile` had on disk at a checkpoint, float32 (N, C')."""
    L = np.zeros((graph.n, columns), np.float32)
    rows = job.array(f"{name}/{t}", "<f4", (needed.count(t), columns), scratch=True).view()
    _read_back(rows, L, graph, needed, t)
    return L


def _read_back(rows_of_all: np.ndarray, L: np.ndarray, graph: Graph, needed: Needed, t: int) -> None:
    """Put rows, in the order in which they were computed, where they belong."""
    first = 0
    for begin, end in blocks_of(graph, needed, t):
        rows = needed.rows(t, begin, end)
        block = rows_of_all[first : first + len(rows)]
        L[slice(begin, end) if len(rows) == end - begin else begin + rows] = block
        first += len(rows)
