"""The dense step L_{t+1} = W L_t in blocks of rows, and where L_{t+1} lies until it is complete: in memory or in a file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from ..graph import Graph
from ..store.files import os_errors, require_space, write_all
from . import kernels
from .needed import Needed, row_blocks

# Parts of a block that threads take one after the other; the product does not depend on them.
_PARTS_PER_THREAD = 4
_READ_BYTES = 2**26


class Target(Protocol):
    """Where the rows of L_{t+1} go."""

    def block(self, begin: int, end: int, rows: np.ndarray) -> np.ndarray:
        """Return an array (rows, C') to be filled with some rows of begin .. end."""

    def put(self, begin: int, end: int, rows: np.ndarray, block: np.ndarray) -> None:
        """Take the block filled."""

    def complete(self, L: np.ndarray) -> np.ndarray:
        """Return L_{t+1}; L_t may be written over. Rows that were not put hold anything."""


def step(graph: Graph, L: np.ndarray, target: Target, needed: Needed, t: int, *, threads: int) -> np.ndarray:
    """Return L_{t+1}, the rows that are needed at t + 1 = ``t`` computed, from L_t.

    Every second pass goes through W backwards: what the first has read last is still in the system's cache.
    """
    blocks = list(row_blocks(graph.indptr))
    for begin, end in blocks if t % 2 else reversed(blocks):
        rows = needed.rows(t, begin, end)
        if len(rows) == 0:
            continue
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
    return target.complete(L)


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

    def complete(self, L: np.ndarray) -> np.ndarray:
        """Change places."""
        done = np.empty(self._shape, np.float32) if self._next is None else self._next  # None: no row was needed
        self._next = L
        return done


class InFile:
    """L_{t+1} in a file without a name, block after block, read back over L_t: the disk gets it back however the process ends."""

    def __init__(self, fd: int, folder: Path, shape: tuple[int, int]) -> None:
        self._fd, self._folder, self._shape = fd, folder, shape
        self._written: list[tuple[int, int, np.ndarray]] = []
        self._end = 0

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, shape: tuple[int, int]) -> Iterator[InFile]:
        """Reserve the space of one iterate in a folder."""
        size = 4 * shape[0] * shape[1]
        require_space(folder, size)
        with os_errors(folder, "reserving space in"):
            fd, name = tempfile.mkstemp(prefix=".iterate.", suffix=".tmp", dir=folder)
            Path(name).unlink()
        try:
            with os_errors(folder, "reserving space in"):
                if size:
                    os.posix_fallocate(fd, 0, size)
            yield cls(fd, folder, shape)
        finally:
            os.close(fd)

    def block(self, begin: int, end: int, rows: np.ndarray) -> np.ndarray:
        """Return an array for the rows."""
        return np.empty((len(rows), self._shape[1]), np.float32)

    def put(self, begin: int, end: int, rows: np.ndarray, block: np.ndarray) -> None:
        """Write the rows behind those before."""
        with os_errors(self._folder, "writing an iterate in"):
            write_all(self._fd, block.reshape(-1).view(np.uint8).data, self._end)
        self._written.append((begin, end, rows if len(rows) < end - begin else rows[:0]))
        self._end += block.nbytes

    def complete(self, L: np.ndarray) -> np.ndarray:
        """Read the rows back to where they belong."""
        offset = 0
        for begin, end, rows in self._written:
            block = np.empty((len(rows), L.shape[1]), np.float32) if len(rows) else L[begin:end]
            self._read(block.reshape(-1).view(np.uint8).data, offset)
            if len(rows):
                L[begin + rows] = block
            offset += block.nbytes
        self._written, self._end = [], 0
        return L

    def _read(self, target: memoryview, offset: int) -> None:
        done = 0
        with os_errors(self._folder, "reading an iterate in"):
            while done < len(target):
                got = os.preadv(self._fd, [target[done : done + _READ_BYTES]], offset + done)
                if got == 0:
                    raise OSError("the file ended early")
                done += got
