"""From batches of columns to one array of scores, resumable after each batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from ..graph import Graph
from ..memory import MemoryBudget, pages
from ..store import ArrayWriter, Job
from . import kernels
from .engine import adjoint_weights, column_scale, column_sums, diffuse_batch, joined_steps
from .forward import Forward
from .gpu import DevicePanels
from .iterate import InFile, InMemory, Target, load_iterate
from .joined import better_than_a_file, last_two, possible
from .needed import Needed, needed_rows
from .parts import copy_parts
from .precision import ELEMENTS, widened
from .reading import reading_bytes
from .room import Room, make_room, make_rows, seed_bytes
from .sparse import SparseColumns, SparseRows
from .steps import Steps, stopwatch

_SCORE_ROWS = 16384

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Diffusion:
    """What is diffused and which rows are read.

    Parameters
    ----------
    seeds : numpy.ndarray of shape (m,), int64
        Node ids of the seeds.
    seed_classes : numpy.ndarray of shape (m,), int64
        Class of each seed.
    n_classes : int
        Number of classes C.
    n_iter : int
        Number of iterations T.
    queries : numpy.ndarray of shape (q, k), integers, or None
        Neighbor ids of the queries, -1 = none; None reads the row of every node, in the order of the ids.
    normalization : {"columns", "none", "rows", "sinkhorn", "gamma"}
        η.
    every_iteration : bool
        Keep t = 0 .. T instead of T alone.
    reset : bool
        Set the rows of seeds back to one-hot after each iteration.
    power : float
        r of ``"gamma"``.
    prior : numpy.ndarray of shape (C,), float64, or None
        Frequencies of the classes for ``"columns"`` and ``"sinkhorn"``; None: all the same.
    precision : {"float32", "bfloat16"}
        How L_t is stored; ``"bfloat16"`` on the CPU only, and with η that is linear.
    alpha : float or None
        α of Zhou's diffusion; None: L_{t+1} = η(W L_t).
    solver : {"iterate", "conjugate-gradient"}
        With ``alpha``: T iterations, or their limit, solved for.
    tolerance : float
        Residual of each entry, relative to the entry itself, at which conjugate gradients end.
    max_steps : int
        Steps after which they end anyway.
    """

    seeds: np.ndarray
    seed_classes: np.ndarray
    n_classes: int
    n_iter: int
    queries: np.ndarray | None = None
    normalization: str = "columns"
    every_iteration: bool = False
    reset: bool = False
    power: float = 2.0
    prior: np.ndarray | None = None
    precision: str = "float32"
    alpha: float | None = None
    solver: str = "iterate"
    tolerance: float = 1e-5
    max_steps: int = 1000

    @property
    def dtype(self) -> np.dtype:
        """Type of the entries of L_t."""
        return ELEMENTS[self.precision]

    @property
    def coupled(self) -> bool:
        """Whether L_{t+1} = W L_t does not do, because η must be known for each iterate."""
        return self.reset or self.normalization not in ("columns", "none")

    @property
    def unskipped(self) -> bool:
        """Whether every row of each iterate is computed: then on the CPU and in float32 only, and without a forecast."""
        return self.coupled or self.alpha is not None

    @property
    def shares(self) -> np.ndarray:
        """What each column is multiplied by after it was divided by its sum, float64 (C,): p_c, or 1 without a prior."""
        return np.ones(self.n_classes) if self.prior is None else self.prior / self.prior.sum()

    def n_rows(self, graph: Graph) -> int:
        """Rows of scores per iteration."""
        return graph.n if self.queries is None else len(self.queries)

    @property
    def kept(self) -> int:
        """Iterations of which the scores are kept."""
        return self.n_iter + 1 if self.every_iteration else 1


def write_scores(
    job: Job,
    graph: Graph,
    what: Diffusion,
    *,
    name: str,
    budget: MemoryBudget,
    threads: int,
    device: str = "cpu",
    needed: Needed | None = None,
    advance: Progress = lambda columns: None,
) -> dict[str, object]:
    """Diffuse and write the scores as array ``name`` of a job.

    Parameters
    ----------
    job : Job
        Resumed behind the last column batch that was finished.
    graph : Graph
        W.
    what : Diffusion
        Seeds, iterations, rows.
    name : str
        Array of shape (kept, rows, C) float32 to write.
    budget : MemoryBudget
        Limit on memory; the bytes written do not depend on it.
    threads : int
        Threads; the bytes written do not depend on it.
    device : str
        ``"cpu"``, or the GPU that `gpu.resolve_device` found; scores are equal within the rounding of float32.
    needed : Needed, optional
        What `rows_needed` returned, where that was asked before.
    advance : callable
        Told the number of columns done since the last call.

    Returns
    -------
    dict
        ``column_batches``; ``steps``: how many of each kind (see `Step`) there were; ``iterations``: what they did, by iteration.
    """
    if what.coupled:
        from .coupled import write_coupled_scores  # which imports this module

        return write_coupled_scores(job, graph, what, name=name, budget=budget, threads=threads, advance=advance)
    if what.alpha is not None:
        from .zhou import write_zhou_scores  # which imports this module

        return write_zhou_scores(job, graph, what, name=name, budget=budget, threads=threads, advance=advance)
    batches: list[list[int]] = job.state.get("batches", [])
    steps = Steps(job.state.get("steps"))
    begin = batches[-1][1] if batches else 0
    advance(begin)
    if begin < what.n_classes and device != "cpu":
        panels: _Panels = DevicePanels(job, graph, what, column_order(what), device=device, budget=budget)
    elif begin < what.n_classes:
        beside = seed_bytes(len(what.seeds), what.n_iter) + reading_bytes(graph.nnz, weighted=graph.weights is not None)
        room = make_room(graph.n, what.n_classes - begin, budget=budget, itemsize=what.dtype.itemsize, beside=beside)
        needed = rows_needed(graph, what) if needed is None else needed
        panels = _HostPanels(job, graph, what, needed, room, threads, steps)
    while begin < what.n_classes:
        end = panels.write_panel(begin, batches, steps)
        batches = [*batches, [begin, end]]
        job.checkpoint(now=True, batches=batches, steps=steps.as_state())
        advance(end - begin)
        begin = end
    _assemble(job, graph, what, batches, name)
    return {"column_batches": len(batches), "steps": steps.count(), "iterations": steps.as_state()}


class _Panels(Protocol):
    def write_panel(self, begin: int, batches: list[list[int]], steps: Steps) -> int:
        """Diffuse a batch of columns into a scratch array of shape (kept * rows, columns); return its end; count up ``steps``."""


class _HostPanels:
    """What all batches of a diffusion share: which rows they need, and where their column sums come from."""

    def __init__(self, job: Job, graph: Graph, what: Diffusion, needed: Needed, room: Room, threads: int, steps: Steps) -> None:
        self.job, self.graph, self.what, self.room, self.threads = job, graph, what, room, threads
        self.classes = column_order(what)
        self.memory: np.ndarray | None = None
        self.needed = needed
        self.sums = self._adjoint_sums(steps) if self.needed.few and what.normalization == "columns" else None
        self.forward: Forward | None = None
        if not room.in_memory:
            copy_parts(job, graph, self.needed)

    def _adjoint_sums(self, steps: Steps) -> np.ndarray:
        """Return the column sums of each L_t, float64 (T + 1, C), without all its rows; an interrupted run has them on disk."""
        what, graph = self.what, self.graph
        kept = self.job.array("column_sums", "<f8", (what.n_iter + 1, what.n_classes), scratch=True)
        if kept.rows == 0:
            watch = stopwatch()
            column = make_rows(graph.n, 1)
            target = InMemory(column) if self.room.in_memory else InFile(self.job, "adjoint", graph, column)
            pairs = np.unique(np.stack([what.seed_classes, what.seeds], axis=1), axis=0)
            needed = adjoint_needed(graph, what)
            weights = adjoint_weights(graph, pairs[:, 1], needed, target=target, threads=self.threads)
            kept.append(np.stack([np.bincount(pairs[:, 0], row, minlength=what.n_classes) for row in weights]))
            steps.add(0, "sums", batches=1, rows=graph.n, edges=sum(needed.entries[1:]), **watch())
            self.job.checkpoint(now=True, batches=self.job.state.get("batches", []), steps=steps.as_state())
        return kept.view()

    def write_panel(self, begin: int, batches: list[list[int]], steps: Steps) -> int:
        """Diffuse one batch of columns into a scratch array of shape (kept * rows, columns); return its end.

        ``steps`` is counted up. A batch that was interrupted behind a checkpoint goes on from there, where the room allows.
        """
        what, name = self.what, f"iterate/{begin}"
        t, start = self._start(begin, name, batches, steps)
        columns = start.shape[1] if isinstance(start, np.ndarray) else start.n_columns
        end, saved = begin + columns, [t] if isinstance(start, np.ndarray) else []
        panel = self.job.array(f"panel/{begin}", "<f4", (what.kept * what.n_rows(self.graph), columns), scratch=True)
        classes = self.classes[begin:end]
        if isinstance(start, SparseColumns) and columns > self.room.columns:
            joined = start.by_rows(self.graph.n)
            del start
            self._write_joined(joined, classes, panel, steps)
            return end

        def at_iteration(t: int, L: np.ndarray, positions: np.ndarray | None) -> None:
            _read(self.graph, what, L, self._scale(t, L, classes), panel, positions)

        def save(t: int) -> None:
            counted = Steps(steps.as_state())
            counted.add(t, self.needed.kind(t), batches=1, rows=self.needed.count(t), edges=self.needed.entries[t])
            self.job.checkpoint(now=True, batches=batches, steps=steps.as_state(), iterate=[t, end, counted.as_state()])
            for before in saved:
                self.job.drop(f"{name}/{before}")
            saved[:] = [t]

        sparse_bytes = self._sparse_bytes(start)
        batch = diffuse_batch(
            self.graph,
            (t, start),
            what.n_iter,
            sparse_bytes=sparse_bytes,
            target=self._target(name, columns, save),
            needed=self.needed,
            join=self._joins(columns, sparse_bytes),
            wanted=lambda t: what.every_iteration or t == what.n_iter,
            at_iteration=at_iteration,
            threads=self.threads,
        )
        del start  # it would be kept until the end
        for step in batch:
            steps.add(**asdict(step))
        for t in saved:
            self.job.drop(f"{name}/{t}")
        return end

    def _write_joined(self, L: SparseRows, classes: np.ndarray, panel: ArrayWriter, steps: Steps) -> None:
        what, T, watch = self.what, self.what.n_iter, stopwatch()
        positions, rows = last_two(self.graph, L, self.needed, T, threads=self.threads)
        _read(self.graph, what, rows, self._scale(T, rows, classes), panel, positions)
        for step in joined_steps(self.needed, T, watch):
            steps.add(**asdict(step))

    def _sparse_bytes(self, start: SparseColumns | np.ndarray) -> int:
        """Return the memory for sparse columns of a batch: what is for those of later batches too, as far as they leave it."""
        if self.forward is None or not isinstance(start, SparseColumns):
            return self.room.sparse_bytes
        return self.room.sparse_bytes + self.forward.free_bytes(self.room, start)

    def _joins(self, columns: int, sparse_bytes: int) -> bool:
        """Return whether the last two steps of a batch are taken together once it is dense."""
        what, room = self.what, self.room
        if room.in_memory or not possible(self.needed, what.n_iter, every_iteration=what.every_iteration):
            return False
        sizes = columns, what.dtype.itemsize
        return better_than_a_file(self.graph, self.needed, what.n_iter, *sizes, memory_bytes=sparse_bytes)

    def _start(self, begin: int, name: str, batches: list[list[int]], steps: Steps) -> tuple[int, SparseColumns | np.ndarray]:
        """Return t and L_t of the batch that begins with column ``begin``."""
        state: list[Any] = self.job.state.get("iterate", [0, 0, []])
        t, end = int(state[0]), int(state[1])
        # rows lie there in the order of their blocks, which are those of the copied parts: in memory there are none
        if not self.room.in_memory and begin < end <= begin + self.room.columns and f"{name}/{t}" in self.job:
            steps.replace(state[2])
            L = self._memory(end - begin)
            load_iterate(self.job, name, self.graph, L, self.needed, t)
            return t, L
        if end:  # a batch of another width goes under the same names
            self.job.checkpoint(now=True, batches=batches, steps=steps.as_state())
            self.job.drop(f"{name}/{t}")
        self.job.drop(f"panel/{begin}")  # of a batch that was cut off, perhaps of another width
        if 8 * len(self.what.seeds) > self.room.kept_bytes:
            return 0, self._seeds(self.classes[begin : begin + self.room.columns])
        if self.forward is None:
            what = self.what
            n_iter = 0 if what.every_iteration else what.n_iter
            # a batch that went on from disk has taken the memory that this would need
            join = self.memory is None and possible(self.needed, what.n_iter, every_iteration=what.every_iteration)
            seeds = self._seeds(self.classes[begin:])
            self.forward = Forward(self.graph, seeds, n_iter, self.needed, join=join, threads=self.threads)
        return self.forward.take(self.room, steps)

    def _target(self, name: str, columns: int, save: Callable[[int], None]) -> Target:
        memory = self._memory(columns)
        return InMemory(memory) if self.room.in_memory else InFile(self.job, name, self.graph, memory, save=save)

    def _memory(self, columns: int) -> np.ndarray:
        """Return the memory of the batches, for so many columns."""
        if self.memory is None:
            self.memory = make_rows(self.graph.n, self.room.columns, self.what.dtype)
        pages.collapse(self.memory)
        return self.memory.reshape(-1)[: self.graph.n * columns].reshape(-1, columns)

    def _seeds(self, classes: np.ndarray) -> SparseColumns:
        """Return L_0 of some classes."""
        column = np.full(self.what.n_classes, -1, np.int64)
        column[classes] = np.arange(len(classes))
        columns = column[self.what.seed_classes]
        positions = self.graph.position[self.what.seeds[columns >= 0]].astype(np.int64)
        return SparseColumns.of_seeds(positions, columns[columns >= 0], len(classes), self.what.dtype)

    def _scale(self, t: int, L: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return what each column of L_t is multiplied by when it is read."""
        if self.what.normalization == "none":
            return np.ones(len(classes))
        return column_scale(column_sums(L) if self.sums is None else self.sums[t, classes]) * self.what.shares[classes]


def rows_needed(graph: Graph, what: Diffusion) -> Needed:
    """Return the rows that must be right where rows are read as a diffusion says; a pass or more of W."""
    return needed_rows(graph, what.queries, what.n_iter, every_iteration=what.every_iteration)


def adjoint_needed(graph: Graph, what: Diffusion) -> Needed:
    """Return the rows that the column for the sums of all others needs: it is read at the seeds."""
    return needed_rows(graph, what.seeds[:, None], what.n_iter, every_iteration=what.every_iteration)


def column_order(what: Diffusion) -> np.ndarray:
    """Order the classes by their number of seeds, so that those in one batch can be pushed equally far; int64 (C,)."""
    return np.argsort(np.bincount(what.seed_classes, minlength=what.n_classes), kind="stable")


def _read(
    graph: Graph, what: Diffusion, L: np.ndarray, scale: np.ndarray, panel: ArrayWriter, positions: np.ndarray | None = None
) -> None:
    """Append scores to a panel; L has all rows, or those at ``positions``, ascending, that the queries read."""
    places = graph.position if positions is None else np.arange(len(positions), dtype=np.uint32)
    for first in range(0, what.n_rows(graph), _SCORE_ROWS):
        rows = slice(first, min(first + _SCORE_ROWS, what.n_rows(graph)))
        if what.queries is None:
            block = (widened(L[graph.position[rows]]) * scale).astype(np.float32)
        else:
            queries = what.queries[rows]
            if positions is not None:
                queries = np.where(queries >= 0, np.searchsorted(positions, graph.position[queries]), -1)
            block = np.empty((rows.stop - first, L.shape[1]), np.float32)
            kernels.read_rows(queries, places, L, scale, block)
        panel.append(block)


def _assemble(job: Job, graph: Graph, what: Diffusion, batches: list[list[int]], name: str) -> None:
    """Put the panels side by side, their columns in the order of the classes."""
    scores = job.array(name, "<f4", (what.kept * what.n_rows(graph), what.n_classes))
    panels = [job.array(f"panel/{begin}", "<f4", (None, end - begin), scratch=True).view() for begin, end in batches]
    place = np.argsort(column_order(what))
    rows = max(1, 2**22 // (4 * what.n_classes))
    for first in range(scores.rows, what.kept * what.n_rows(graph), rows):
        scores.append(np.concatenate([panel[first : first + rows] for panel in panels], axis=1)[:, place])
        job.checkpoint()  # which keeps batches and steps
