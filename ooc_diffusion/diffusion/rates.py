"""How long the parts of a diffusion take on this machine, from a measurement of a second or two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..graph import Graph
from . import kernels, sparse
from .blocks import row_blocks
from .needed import Needed
from .precision import ELEMENTS
from .room import make_rows
from .sparse import SparseColumns

# Rows of L that the measurement gathers from: enough that they lie outside the caches.
_SAMPLE_BYTES = 2**29
_SAMPLE_ENTRIES = 2**19
_SAMPLE_POSITIONS = 2**11
_PARTS = 4


@dataclass(frozen=True)
class Rates:
    """Seconds that the parts of the work take on this machine.

    Parameters
    ----------
    gather : float
        Per entry of W multiplied with a row of a full batch of columns.
    gather_one : float
        The same with one column, as the sums of all columns need it.
    record : float
        Per value sent along an edge and added up.
    """

    gather: float
    gather_one: float
    record: float


def measure_rates(graph: Graph, columns: int, dtype: np.dtype, threads: int) -> Rates:
    """Multiply some rows of W by a batch of columns, and push some values along them; a second or two."""
    blocks = list(row_blocks(graph.indptr))
    begin, end = blocks[len(blocks) // 2]
    end = begin + max(1, int(np.searchsorted(graph.indptr[begin : end + 1], graph.indptr[begin] + _SAMPLE_ENTRIES)) - 1)
    return Rates(
        _gather_seconds(graph, begin, end, columns, dtype, threads),
        _gather_seconds(graph, begin, end, 1, ELEMENTS["float32"], threads),
        _record_seconds(graph, begin, end, threads),
    )


def _gather_seconds(graph: Graph, begin: int, end: int, columns: int, dtype: np.dtype, threads: int) -> float:
    n = max(1, min(graph.n, _SAMPLE_BYTES // (dtype.itemsize * columns)))
    L, out = make_rows(n, columns, dtype), make_rows(end - begin, columns, dtype)
    L[:] = 1
    indptr = graph.indptr[begin : end + 1]
    entries = graph.indices[indptr[0] : indptr[-1]]
    indices = ((entries & kernels.POSITION) % np.uint32(n)).astype(np.uint32)
    rows, scale = np.arange(end - begin, dtype=np.int32), graph.row_scale[begin:end]

    def multiply(first: int, last: int) -> None:
        bounds = np.linspace(first, last, 4 * threads + 1).astype(np.int64)
        kernels.multiply(bounds, rows, indptr, indices, scale, L, out)

    # the first part compiles; rows of L that one has brought into the caches are not asked for by the next
    cuts = np.linspace(0, end - begin, _PARTS + 1).astype(np.int64).tolist()
    rates = []
    for first, last in pairwise(cuts):
        seconds = _seconds(lambda first=first, last=last: multiply(first, last))  # type: ignore[misc]
        rates.append(seconds / max(1, int(indptr[last] - indptr[first])))
    return min(rates[1:])  # another process may have come in between


def _record_seconds(graph: Graph, begin: int, end: int, threads: int) -> float:
    positions = np.unique(np.linspace(begin, end - 1, _SAMPLE_POSITIONS).astype(np.uint32))
    columns = SparseColumns(np.arange(5) * len(positions), np.tile(positions, 4), np.ones(4 * len(positions), np.float32))
    sent = columns.count_sent(graph)
    needed = Needed(graph.n, False, [None, None], [graph.nnz * len(sent)] * 2)

    def push() -> None:
        sparse.push(graph, columns, sent, needed, 1, memory_bytes=2**40, threads=threads)

    push()  # compiles
    return min(_seconds(push) for _ in range(_PARTS - 1)) / max(1, int(sent.sum()))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
