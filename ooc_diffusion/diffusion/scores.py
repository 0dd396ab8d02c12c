"""From batches of columns to one array of scores, resumable after each batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..graph import Graph
from ..memory import MemoryBudget
from ..store import ArrayWriter, Job
from . import kernels
from .engine import column_scale, columns_per_batch, diffuse_batch

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
    normalization : {"columns", "none"}
        η.
    every_iteration : bool
        Keep t = 0 .. T instead of T alone.
    """

    seeds: np.ndarray
    seed_classes: np.ndarray
    n_classes: int
    n_iter: int
    queries: np.ndarray | None = None
    normalization: str = "columns"
    every_iteration: bool = False

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
    advance : callable
        Told the number of columns done since the last call.

    Returns
    -------
    dict
        ``column_batches``, and ``reached``: the number of nodes with a label of any kind per iteration, summed over batches and
        therefore only an upper bound where there are several.
    """
    batches: list[list[int]] = job.state.get("batches", [])
    begin = batches[-1][1] if batches else 0
    advance(begin)
    while begin < what.n_classes:
        width = columns_per_batch(graph.n, what.n_classes - begin, budget=budget)
        batch = [begin, begin + width]
        _write_panel(job, graph, what, batch, threads)
        batches = [*batches, batch]
        job.checkpoint(now=True, batches=batches)
        advance(width)
        begin += width
    _assemble(job, graph, what, batches, name)
    return {"column_batches": len(batches)}


def _write_panel(job: Job, graph: Graph, what: Diffusion, batch: list[int], threads: int) -> None:
    """Diffuse one batch of columns into a scratch array of shape (kept * rows, columns)."""
    begin, end = batch
    rows = what.n_rows(graph)
    job.drop(f"panel/{begin}")  # of a batch that was cut off, perhaps of another width
    panel = job.array(f"panel/{begin}", "<f4", (what.kept * rows, end - begin), scratch=True)
    inside = (what.seed_classes >= begin) & (what.seed_classes < end)

    def at_iteration(t: int, L: np.ndarray, sums: np.ndarray) -> None:
        if what.every_iteration or t == what.n_iter:
            _read(graph, what, L, column_scale(sums, what.normalization), panel)

    seeds, columns = what.seeds[inside], what.seed_classes[inside] - begin
    scratch = job.store.path / "jobs"
    diffuse_batch(graph, seeds, columns, end - begin, what.n_iter, scratch=scratch, threads=threads, at_iteration=at_iteration)


def _read(graph: Graph, what: Diffusion, L: np.ndarray, scale: np.ndarray, panel: ArrayWriter) -> None:
    for first in range(0, what.n_rows(graph), _SCORE_ROWS):
        rows = slice(first, min(first + _SCORE_ROWS, what.n_rows(graph)))
        if what.queries is None:
            block = (L[graph.position[rows]] * scale).astype(np.float32)
        else:
            block = np.empty((rows.stop - first, L.shape[1]), np.float32)
            kernels.read_rows(what.queries[rows], graph.position, L, scale, block)
        panel.append(block)


def _assemble(job: Job, graph: Graph, what: Diffusion, batches: list[list[int]], name: str) -> None:
    """Put the panels side by side."""
    scores = job.array(name, "<f4", (what.kept * what.n_rows(graph), what.n_classes))
    panels = [job.array(f"panel/{begin}", "<f4", (None, end - begin), scratch=True).view() for begin, end in batches]
    rows = max(1, 2**22 // (4 * what.n_classes))
    for first in range(scores.rows, what.kept * what.n_rows(graph), rows):
        scores.append(np.concatenate([panel[first : first + rows] for panel in panels], axis=1))
        job.checkpoint(batches=batches)
