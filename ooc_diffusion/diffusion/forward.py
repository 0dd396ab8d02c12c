"""Bringing the columns of many batches forward together, as long as they are sparse."""

from __future__ import annotations

import numpy as np

from ..graph import Graph
from .joined import MOST_ENTRIES, held_bytes, worth
from .needed import Needed
from .room import Room, columns_per_line, room_bytes
from .sparse import SparseColumns, push
from .steps import Steps, stopwatch


def half(n_columns: int, width: int) -> int:
    """Return how many columns the first half of a group has: whole batches of ``width``."""
    return max(1, n_columns // width // 2) * width


class Forward:
    """Sparse columns of all batches, pushed together as far as the memory for it goes, then in ever smaller groups.

    Pushing reads scattered rows of W; the more columns share a pass, the fewer passes there are.

    Parameters
    ----------
    graph : Graph
        W.
    L_0 : SparseColumns
        The seeds of all columns.
    n_iter : int
        Iteration T after which to stop, 0 where each L_t is read.
    needed : Needed
        Rows that must be right.
    join : bool
        Whether more columns than a batch has may be returned of L_{T-2}, for `joined.last_two`. So it is until the first batch
        takes the memory for L; before, that memory is for these columns.
    threads : int
        Threads.
    """

    def __init__(self, graph: Graph, L_0: SparseColumns, n_iter: int, needed: Needed, *, join: bool, threads: int) -> None:
        self._graph, self._n_iter, self._needed, self._join, self._threads = graph, n_iter, needed, join, threads
        self._groups = [(0, L_0)]

    def take(self, room: Room, steps: Steps) -> tuple[int, SparseColumns]:
        """Return t and L_t of the columns that come next; add what was done to ``steps``.

        These are at most ``room.columns``, or those of L_{T-2} that are worth joining the last two steps for.
        """
        while True:
            t, columns = self._groups.pop()
            if columns.n_columns <= room.columns:
                self._join = False
                return t, columns
            watch, sent = stopwatch(), columns.count_sent(self._graph)
            if self._join and t == self._n_iter - 3:
                pushed = self._push_to_join(t, columns, sent, room)
                if pushed is not None:
                    steps.add(t + 1, "push", batches=1, rows=columns.n_entries, edges=int(sent.sum()), **watch())
                    return t + 1, pushed
            if self._join and t == self._n_iter - 3 and self._part_joins(columns, sent, room):
                pushed = None  # one step more, and nothing would be left to join
            else:
                pushed = self._push(t, columns, sent, room) if t < self._n_iter else None
            if pushed is not None:
                steps.add(t + 1, "push", batches=1, rows=columns.n_entries, edges=int(sent.sum()), **watch())
                self._groups.append((t + 1, pushed))
            else:
                head, rest = columns.split(half(columns.n_columns, room.columns))
                self._groups += [(t, rest), (t, head)]

    def free_bytes(self, room: Room, columns: SparseColumns) -> int:
        """Return how much of ``room.kept_bytes`` nothing holds but the entries of these columns, which were taken."""
        return max(0, room.kept_bytes - self._beside(columns))

    def _push_to_join(self, t: int, columns: SparseColumns, sent: np.ndarray, room: Room) -> SparseColumns | None:
        itemsize = columns.dtype.itemsize
        if not self._fits_joined(columns, sent, room):
            return None
        memory = room_bytes(self._graph.n, room, itemsize) - self._beside(columns)
        pushed = push(self._graph, columns, sent, self._needed, t + 1, memory_bytes=memory, threads=self._threads)
        if pushed is None:
            return None
        again = int(pushed.count_sent(self._graph).sum())
        self._join = worth(again, columns.n_columns, columns_per_line(itemsize), self._graph.nnz)
        return pushed if self._join else None

    def _fits_joined(self, columns: SparseColumns, sent: np.ndarray, room: Room) -> bool:
        itemsize, entries = columns.dtype.itemsize, int(sent.sum())
        memory = room_bytes(self._graph.n, room, itemsize) - self._beside(columns)
        held = held_bytes(self._graph, self._needed, self._n_iter, columns.n_columns, entries, itemsize)
        return held <= memory and entries <= MOST_ENTRIES

    def _part_joins(self, columns: SparseColumns, sent: np.ndarray, room: Room) -> bool:
        """Return whether all of these columns cannot be joined, but fewer can: still more than a batch has."""
        if self._fits_joined(columns, sent, room):
            return False
        n = columns.n_columns
        while (n := half(n, room.columns)) > room.columns:
            if self._fits_joined(columns.part(0, n), sent[:n], room):
                return True
        return False

    def _push(self, t: int, columns: SparseColumns, sent: np.ndarray, room: Room) -> SparseColumns | None:
        memory = room.kept_bytes - self._beside(columns)
        return push(self._graph, columns, sent, self._needed, t + 1, memory_bytes=memory, threads=self._threads)

    def _beside(self, columns: SparseColumns) -> int:
        """Return the bytes that are held besides the entries of a group; groups that were split hold the same arrays."""
        groups = [*(group for _, group in self._groups), columns]
        return sum({id(group.positions): 8 * len(group.positions) for group in groups}.values()) - 8 * columns.n_entries
