"""The engine: column batches of L in memory, W streamed from its files, L_{t+1} written to disk row after row."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..graph import Graph
from ..memory import MemoryBudget
from ..store.files import os_errors, require_space, write_all
from . import kernels

# Rows of W processed at once: enough work to keep all threads busy, little enough that a block of L_{t+1} is small.
_BLOCK_ENTRIES = 2**22
_BLOCK_ROWS = 2**17
# Parts of a block that threads take one after the other; the product does not depend on them.
_PARTS_PER_THREAD = 4

AtIteration = Callable[[int, np.ndarray, np.ndarray], None]


def columns_per_batch(n: int, n_columns: int, *, budget: MemoryBudget) -> int:
    """Return how many columns of L the budget allows at once: 4 N bytes each, and a block of L_{t+1}.

    Raises
    ------
    DoesNotFit
        Where not one column fits.
    """
    return budget.units(column_bytes(n), what=f"diffusing over {n} nodes", fixed_bytes=FIXED_BYTES, at_most=n_columns)


def column_bytes(n: int) -> int:
    """Return the bytes that one column of a batch takes in memory: L_t, its partial sums, a block of L_{t+1}, of scores."""
    return 4 * n + 8 * (n // kernels.SUM_ROWS + 1) + 8 * min(n, _BLOCK_ROWS)


FIXED_BYTES = 4 * 2**20


def diffuse_batch(
    graph: Graph,
    seeds: np.ndarray,
    columns: np.ndarray,
    n_columns: int,
    n_iter: int,
    *,
    scratch: Path,
    threads: int,
    at_iteration: AtIteration,
) -> None:
    """Diffuse one batch of columns and hand out L_0 .. L_T.

    Parameters
    ----------
    graph : Graph
        W.
    seeds : numpy.ndarray of shape (m,), int64
        Node ids (the caller's) of the ones in L_0.
    columns : numpy.ndarray of shape (m,), int64
        Their columns within the batch.
    n_columns : int
        Columns of the batch, C'.
    n_iter : int
        Number of iterations T.
    scratch : Path
        Folder for L_{t+1}.
    threads : int
        Threads in use.
    at_iteration : callable
        Called with t, L_t (N, C') float32 by position (not to be kept), and the column sums (C',) float64.

    Notes
    -----
    L_{t+1} = W L_t, equation 1 of the paper. η = column normalization is linear and therefore left to the reader of L_t, who
    divides by the column sums.
    """
    L = np.zeros((graph.n, n_columns), np.float32)
    L[graph.position[seeds], columns] = 1.0
    at_iteration(0, L, _column_sums(L))
    with _scratch_file(scratch, L.nbytes) as fd:
        for t in range(1, n_iter + 1):
            _step(graph, L, fd, threads)
            _read_back(fd, L, scratch)
            at_iteration(t, L, _column_sums(L))


def column_scale(sums: np.ndarray, normalization: str) -> np.ndarray:
    """Return what each column is multiplied by: 1 / its sum, 1 for a column of zeros; 1 without normalization."""
    if normalization == "none":
        return np.ones_like(sums)
    return 1.0 / np.where(sums > 0, sums, 1.0)


def _column_sums(L: np.ndarray) -> np.ndarray:
    sums = np.empty(L.shape[1], np.float64)
    kernels.sum_columns(L, np.empty((-(-len(L) // kernels.SUM_ROWS), L.shape[1]), np.float64), sums)
    return sums


def _step(graph: Graph, L: np.ndarray, fd: int, threads: int) -> None:
    """Write W L to a file, one block of rows after the other."""
    offset = 0
    for begin, end in _row_blocks(graph.indptr):
        indptr = graph.indptr[begin : end + 1]
        entries = slice(int(indptr[0]), int(indptr[-1]))
        bounds = _equal_parts(indptr, threads * _PARTS_PER_THREAD)
        out = np.empty((end - begin, L.shape[1]), np.float32)
        scale = graph.row_scale[begin:end]
        if graph.weights is None:
            kernels.multiply(bounds, indptr, graph.indices[entries], scale, L, out)
        else:
            kernels.multiply_weighted(bounds, indptr, graph.indices[entries], graph.weights[entries], scale, L, out)
        with os_errors(graph.store.path, "writing an iterate in"):
            write_all(fd, out.reshape(-1).view(np.uint8).data, offset)
        offset += out.nbytes


def _row_blocks(indptr: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut the rows of W into blocks with a bounded number of rows and, but for a single long row, of entries."""
    begin, n = 0, len(indptr) - 1
    while begin < n:
        window = indptr[begin : begin + _BLOCK_ROWS + 1]
        end = begin + max(1, int(np.searchsorted(window, window[0] + _BLOCK_ENTRIES, side="right")) - 1)
        yield begin, min(end, n)
        begin = end


def _equal_parts(indptr: np.ndarray, parts: int) -> np.ndarray:
    shares = indptr[0] + np.linspace(0, 1, parts + 1)[1:-1] * (indptr[-1] - indptr[0])
    return np.concatenate([[0], np.searchsorted(indptr[1:], shares), [len(indptr) - 1]])


def _read_back(fd: int, L: np.ndarray, folder: Path) -> None:
    target = L.reshape(-1).view(np.uint8).data
    offset = 0
    with os_errors(folder, "reading an iterate in"):
        while offset < len(target):
            got = os.preadv(fd, [target[offset : offset + 2**26]], offset)
            if got == 0:
                raise OSError("the file ended early")
            offset += got


@contextlib.contextmanager
def _scratch_file(folder: Path, size: int) -> Iterator[int]:
    """Open a file without a name: the disk gets it back however the process ends."""
    require_space(folder, size)
    with os_errors(folder, "reserving space in"):
        fd, name = tempfile.mkstemp(prefix=".iterate.", suffix=".tmp", dir=folder)
        Path(name).unlink()
    try:
        with os_errors(folder, "reserving space in"):
            if size:
                os.posix_fallocate(fd, 0, size)
        yield fd
    finally:
        os.close(fd)
