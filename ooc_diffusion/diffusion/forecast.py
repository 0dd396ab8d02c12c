"""What a diffusion will do and how long it will take, from exact counts of the graph and a short measurement of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Graph
from ..memory import MemoryBudget
from . import kernels, sparse
from .blocks import row_blocks
from .needed import Needed, needed_rows
from .precision import ELEMENTS
from .reading import reading_bytes
from .room import Room, columns_per_line, make_room, make_rows, seed_bytes
from .scores import Diffusion, adjoint_needed, column_order
from .sparse import SparseColumns
from .steps import Steps

# Rows of L that the measurement gathers from: enough that they lie outside the caches.
_SAMPLE_BYTES = 2**29
_SAMPLE_ENTRIES = 2**19
_SAMPLE_POSITIONS = 2**11


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


def forecast(graph: Graph, what: Diffusion, *, budget: MemoryBudget, threads: int) -> list[dict[str, Any]]:
    """Say for each iteration which steps there will be, of how many rows and edges, and how long they will take.

    Parameters
    ----------
    graph : Graph
        W.
    what : Diffusion
        Seeds, iterations, rows.
    budget : MemoryBudget
        Limit on memory.
    threads : int
        Threads.

    Returns
    -------
    list of dict
        The figures of `Step`, with the ``bytes`` of W that are read, from disk or from the system's cache, in the place of
        ``disk_bytes``; ``t`` = 0 is what is done once for all columns, before the first step.

    Notes
    -----
    The rows that queries need are counted, and so is what the seeds send in the first step. How far labels spread after that is
    estimated from the degrees as if neighbors were drawn at random: a node is reached in proportion to its degree.
    """
    if what.coupled:
        return []
    beside = seed_bytes(len(what.seeds), what.n_iter) + reading_bytes(graph.nnz, weighted=graph.weights is not None)
    room = make_room(graph.n, what.n_classes, budget=budget, itemsize=what.dtype.itemsize, beside=beside)
    needed = needed_rows(graph, what.queries, what.n_iter, every_iteration=what.every_iteration)
    rates, steps = measure_rates(graph, room.columns, what.dtype, threads), Steps()
    if needed.few and what.normalization == "columns":
        steps.add(0, "sums", batches=1, rows=graph.n, edges=sum(adjoint_needed(graph, what).entries[1:]))
    spread = _Spread(graph)
    positions = graph.position[what.seeds].astype(np.int64)
    seeds, sent = (
        np.bincount(what.seed_classes, values, minlength=what.n_classes)[column_order(what)]
        for values in (None, graph.indptr[positions + 1] - graph.indptr[positions])
    )
    for begin in range(0, what.n_classes, room.columns):
        batch = slice(begin, begin + room.columns)
        _add_batch(steps, seeds[batch].astype(np.float64), sent[batch], what, room, needed, spread)
    costs = {"push": rates.record, "dense": rates.gather, "masked": rates.gather, "sums": rates.gather_one}
    state = steps.as_state()
    for step in state:
        step["seconds"] = step["edges"] * costs[step["kind"]]
        del step["disk_bytes"]
        step["bytes"] = min(step["edges"], step["batches"] * graph.nnz) * (4 if graph.weights is None else 8)
    return state


class _Spread:
    """How labels spread over nodes as if neighbors were drawn at random."""

    def __init__(self, graph: Graph) -> None:
        self.n, self.nnz = graph.n, graph.nnz
        squares = sum(
            float(np.square(np.diff(graph.indptr[b : e + 1]).astype(np.float64)).sum()) for b, e in row_blocks(graph.indptr)
        )
        self.growth = squares / max(1, self.nnz) / max(1e-9, self.nnz / self.n)

    def sent(self, entries: np.ndarray) -> np.ndarray:
        """Return what columns send from so many entries that were reached."""
        return self.nnz * (1 - (1 - np.minimum(1.0, entries / self.n)) ** self.growth)

    def reached(self, sent: np.ndarray) -> np.ndarray:
        """Return how many entries so many values that were sent become."""
        return self.n * -np.expm1(-sent / self.n)


def _add_batch(
    steps: Steps, entries: np.ndarray, sent: np.ndarray, what: Diffusion, room: Room, needed: Needed, spread: _Spread
) -> None:
    """Add the steps of a batch whose seeds are so many ``entries`` per column and send so many values."""
    line = columns_per_line(what.dtype.itemsize)
    lines = -(-len(entries) // line)
    dense = False
    for t in range(1, what.n_iter + 1):
        records = sent * (needed.entries[t] / max(1, spread.nnz))
        some = sparse.at_once(len(entries), what.dtype.itemsize)[-1]
        held = 8 * max(records[c : c + some].sum() for c in range(0, len(records), some))
        dense = dense or bool(
            sent.sum() > sparse.RECORDS_PER_LINE * lines * needed.entries[t] or held + 8 * entries.sum() > room.sparse_bytes
        )
        if dense:
            steps.add(t, needed.kind(t), batches=1, rows=needed.count(t), edges=needed.entries[t])
        else:
            steps.add(t, "push", batches=1, rows=int(entries.sum()), edges=int(sent.sum()))
        entries = spread.reached(records)
        sent = spread.sent(entries)


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
    rows, bounds = np.arange(end - begin, dtype=np.int32), np.linspace(0, end - begin, 4 * threads + 1).astype(np.int64)
    scale = graph.row_scale[begin:end]
    return _seconds(lambda: kernels.multiply(bounds, rows, indptr, indices, scale, L, out)) / max(1, len(entries))


def _record_seconds(graph: Graph, begin: int, end: int, threads: int) -> float:
    positions = np.unique(np.linspace(begin, end - 1, _SAMPLE_POSITIONS).astype(np.uint32))
    columns = SparseColumns(np.arange(5) * len(positions), np.tile(positions, 4), np.ones(4 * len(positions), np.float32))
    sent = columns.count_sent(graph)
    needed = Needed(graph.n, False, [None, None], [graph.nnz * len(sent)] * 2)
    seconds = _seconds(lambda: sparse.push(graph, columns, sent, needed, 1, memory_bytes=2**40, threads=threads))
    return seconds / max(1, int(sent.sum()))


def _seconds(call: Callable[[], object]) -> float:
    """Return the time of a call that has been called before."""
    call()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
