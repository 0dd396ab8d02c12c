"""What a diffusion will do and how long it will take, from exact counts of the graph and a short measurement of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Graph
from ..memory import MemoryBudget
from . import joined, sparse
from .blocks import row_blocks
from .forward import half
from .needed import Needed
from .rates import Rates, measure_rates
from .reading import reading_bytes
from .room import Room, columns_per_line, make_room, room_bytes, seed_bytes
from .scores import Diffusion, adjoint_needed, column_order, rows_needed
from .steps import Steps


def forecast(
    graph: Graph, what: Diffusion, *, budget: MemoryBudget, threads: int, needed: Needed | None = None
) -> list[dict[str, Any]]:
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
    needed : Needed, optional
        What `rows_needed` returned, where that was asked before.

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
    if what.unskipped:
        return []
    beside = seed_bytes(len(what.seeds), what.n_iter) + reading_bytes(graph.nnz, weighted=graph.weights is not None)
    room = make_room(graph.n, what.n_classes, budget=budget, itemsize=what.dtype.itemsize, beside=beside)
    needed = rows_needed(graph, what) if needed is None else needed
    outlook = _Outlook(graph, what, room, needed, measure_rates(graph, room.columns, what.dtype, threads), threads)
    if needed.few and what.normalization == "columns":
        outlook.add_sums()
    positions = graph.position[what.seeds].astype(np.int64)
    entries, sent = (
        np.bincount(what.seed_classes, values, minlength=what.n_classes)[column_order(what)]
        for values in (None, graph.indptr[positions + 1] - graph.indptr[positions])
    )
    entries = entries.astype(np.float64)
    outlook.add_columns(_Columns(0, entries, sent.astype(np.float64), entries))
    steps = outlook.steps.as_state()
    for step in steps:
        del step["disk_bytes"]
        step["bytes"] = min(step["edges"], step["batches"] * graph.nnz) * (4 if graph.weights is None else 8)
    return steps


@dataclass(frozen=True)
class _Columns:
    """Sparse columns of L_t as far as they are known: entries that are not zero and values that these send, float64 (C',)."""

    t: int
    entries: np.ndarray
    sent: np.ndarray
    held: np.ndarray

    def part(self, begin: int, end: int) -> _Columns:
        """Return some columns, which hold the entries of all of these."""
        return _Columns(self.t, self.entries[begin:end], self.sent[begin:end], self.held)


def _bytes_beside(groups: list[_Columns], columns: _Columns) -> int:
    """Return the bytes that groups hold besides the entries of some columns; see `Forward`."""
    arrays = {id(group.held): group.held.sum() for group in [*groups, columns]}
    return int(8 * (sum(arrays.values()) - columns.entries.sum()))


class _Spread:
    """How labels spread over nodes as if neighbors were drawn at random."""

    def __init__(self, graph: Graph) -> None:
        self._n, self._nnz = graph.n, graph.nnz
        squares = sum(
            float(np.square(np.diff(graph.indptr[b : e + 1]).astype(np.float64)).sum()) for b, e in row_blocks(graph.indptr)
        )
        self._growth = squares / max(1, self._nnz) / max(1e-9, self._nnz / self._n)

    def after(self, columns: _Columns, needed_part: float) -> _Columns:
        """Return the columns one step later, of which that part of all edges leads to rows that are needed."""
        entries = self._n * -np.expm1(-needed_part * columns.sent / self._n)
        sent = self._nnz * (1 - (1 - np.minimum(1.0, entries / self._n)) ** self._growth)
        return _Columns(columns.t + 1, entries, sent, entries)


class _Outlook:
    """Follows the columns as `scores` and `forward` take them, without touching a value."""

    def __init__(self, graph: Graph, what: Diffusion, room: Room, needed: Needed, rates: Rates, threads: int) -> None:
        self.steps = Steps()
        self._graph, self._what, self._room, self._needed, self._rates = graph, what, room, needed, rates
        self._threads, self._itemsize, self._spread = threads, what.dtype.itemsize, _Spread(graph)
        self._joins = joined.possible(needed, what.n_iter, every_iteration=what.every_iteration)

    def add_sums(self) -> None:
        """Add the column that gives the sums of all others."""
        edges = sum(adjoint_needed(self._graph, self._what).entries[1:])
        self.steps.add(0, "sums", batches=1, rows=self._graph.n, edges=edges, seconds=edges * self._rates.gather_one)

    def add_columns(self, columns: _Columns) -> None:
        """Add all steps; see `Forward.take`."""
        T, width = self._what.n_iter, self._room.columns
        together = 8 * len(self._what.seeds) <= self._room.kept_bytes
        groups, join = [columns], self._joins
        while groups:
            columns = groups.pop()
            beside = _bytes_beside(groups, columns)
            if len(columns.entries) <= width:
                join, free = False, max(0, self._room.kept_bytes - beside) if together else 0
                self._add_batch(columns, self._room.sparse_bytes + free)
                continue
            if together and join and columns.t == T - 3 and self._fits_joined(columns, beside, pushing=True):
                join = self._add_joined(columns)
                if join:
                    continue
            if (
                together
                and not self._what.every_iteration
                and columns.t < T
                and not (join and columns.t == T - 3 and self._part_joins(columns, beside))
                and self._fits(columns, self._room.kept_bytes - beside)
            ):
                groups.append(self._pushed(columns))
                continue
            head = half(len(columns.entries), width) if together else width
            groups += [columns.part(head, len(columns.entries)), columns.part(0, head)]

    def _add_batch(self, columns: _Columns, memory_bytes: int) -> None:
        T, dense = self._what.n_iter, False
        for t in range(columns.t + 1, T + 1):
            if not dense and self._fits(columns, memory_bytes):
                columns = self._pushed(columns)
            elif not dense and self._fits(columns, memory_bytes, into_rows=True):
                columns, dense = self._pushed(columns), True
            elif t == T - 1 and self._joins and self._better_than_a_file(len(columns.entries), memory_bytes):
                self._add_gathered(t, "joined")
                self._add_gathered(T, "joined")
                return
            else:
                dense = True
                self._add_gathered(t, self._needed.kind(t))

    def _fits_joined(self, columns: _Columns, beside: int, *, pushing: bool = False) -> bool:
        n_columns, sent = len(columns.entries), int(columns.sent.sum())
        memory = room_bytes(self._graph.n, self._room, self._itemsize) - beside
        held = joined.held_bytes(self._graph, self._needed, self._what.n_iter, n_columns, sent, self._itemsize)
        return held <= memory and sent <= joined.MOST_ENTRIES and (not pushing or self._fits(columns, memory))

    def _part_joins(self, columns: _Columns, beside: int) -> bool:
        """Return whether all of these columns cannot be joined, but fewer can; see `Forward`."""
        if self._fits_joined(columns, beside):
            return False
        n, entries = len(columns.entries), columns.entries.sum()
        while (n := half(n, self._room.columns)) > self._room.columns:
            part = columns.part(0, n)
            if self._fits_joined(part, beside + int(8 * (entries - part.entries.sum()))):
                return True
        return False

    def _add_joined(self, columns: _Columns) -> bool:
        """Add the last three steps where it is worth taking the last two together for all these columns; see `Forward`."""
        T, n_columns = self._what.n_iter, len(columns.entries)
        pushed = self._after(columns)
        again, per_line = int(pushed.sent.sum()), columns_per_line(self._itemsize)
        if not joined.worth(again, n_columns, per_line, self._graph.nnz):
            return False
        self._pushed(columns)
        lines = joined.lines(again, self._graph.nnz)
        self._add_gathered(T - 1, "joined", lines / -(-self._room.columns // per_line))
        self._add_gathered(T, "joined", n_columns / self._room.columns)
        return True

    def _fits(self, columns: _Columns, memory_bytes: int, *, into_rows: bool = False) -> bool:
        """Return whether the next step is pushed; see `sparse.push` and `sparse.push_into_rows`."""
        most = sparse.most_records(self._graph, columns.sent, self._needed, columns.t + 1, self._itemsize)
        if most is None:
            return False
        n_entries, cuts = int(columns.entries.sum()), [[slice(None)]]
        if into_rows:
            cuts = list(sparse.cuts_into_rows(len(most), self._itemsize))
        held = (sparse.pushing_bytes(self._graph, n_entries, most[part], self._threads) for part in cuts[-1])
        return max(held) <= memory_bytes

    def _after(self, columns: _Columns) -> _Columns:
        return self._spread.after(columns, self._needed.entries[columns.t + 1] / max(1, self._graph.nnz))

    def _pushed(self, columns: _Columns) -> _Columns:
        rows, edges = int(columns.entries.sum()), int(columns.sent.sum())
        self.steps.add(columns.t + 1, "push", batches=1, rows=rows, edges=edges, seconds=edges * self._rates.record)
        return self._after(columns)

    def _add_gathered(self, t: int, kind: str, batches_of_columns: float = 1.0) -> None:
        edges = self._needed.entries[t]
        seconds = edges * self._rates.gather * batches_of_columns
        self.steps.add(t, kind, batches=1, rows=self._needed.count(t), edges=edges, seconds=seconds)

    def _better_than_a_file(self, columns: int, memory_bytes: int) -> bool:
        sizes = columns, self._itemsize
        better = joined.better_than_a_file(self._graph, self._needed, self._what.n_iter, *sizes, memory_bytes=memory_bytes)
        return better and not self._room.in_memory
