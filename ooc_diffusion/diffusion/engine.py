"""The engine: one batch of columns on its way to L_T, each step the cheapest that is exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..graph import Graph
from . import kernels
from .iterate import Target, step
from .joined import last_two
from .needed import Needed
from .sparse import SparseColumns, push, push_into_rows
from .steps import Step, stopwatch

AtIteration = Callable[[int, np.ndarray, np.ndarray | None], None]


def diffuse_batch(
    graph: Graph,
    start: tuple[int, SparseColumns | np.ndarray],
    n_iter: int,
    *,
    sparse_bytes: int,
    target: Target,
    needed: Needed,
    join: bool,
    wanted: Callable[[int], bool],
    at_iteration: AtIteration,
    threads: int,
) -> Iterator[Step]:
    """Diffuse one batch of columns, L_{t+1} = W L_t (equation 1 of the paper, without η).

    Parameters
    ----------
    graph : Graph
        W.
    start : tuple of int and SparseColumns or numpy.ndarray
        t and L_t to begin with: the seeds, what was brought forward of them, or (N, C') of an interrupted run, handed out again.
    n_iter : int
        Number of iterations T.
    sparse_bytes : int
        Memory for sparse columns, and for what is pushed from them.
    target : Target
        Where L_{t+1} lies until it is complete.
    needed : Needed
        Rows that must be right.
    join : bool
        Whether the last two steps of a dense L are taken together; see `joined`.
    wanted : callable
        Whether L_t is to be handed out.
    at_iteration : callable
        Called with t, L_t, not to be kept, and None where it is (N, C') by position; rows that are not needed hold anything.
        Where the last two steps are taken together, L_T has the needed rows only, and their positions come instead.
    threads : int
        Threads in use.

    Yields
    ------
    Step
        After each step what it did.

    Notes
    -----
    Values are pushed from the entries that are not zero as long as that costs less than the dense product; after that rows are
    gathered, at the end only those that are needed. An entry has the same bytes either way.
    """
    first, iterate = start
    del start
    for t in range(first, n_iter + 1):
        if wanted(t):
            at_iteration(t, _dense(iterate, target), None)
        if t == n_iter:
            break
        watch = stopwatch()
        if isinstance(iterate, SparseColumns):
            pushed = _pushed(graph, iterate, target, needed, t + 1, memory_bytes=sparse_bytes, threads=threads)
            if pushed is not None:
                iterate, figures = pushed
                yield Step(t + 1, "push", 1, **figures, **watch())
                continue
        iterate = _dense(iterate, target)
        if join and t == n_iter - 2:
            positions, rows = last_two(graph, iterate, needed, n_iter, threads=threads)
            at_iteration(n_iter, rows, positions)
            yield from joined_steps(needed, n_iter, watch)
            return
        iterate = step(graph, iterate, target, needed, t + 1, threads=threads)
        yield Step(t + 1, needed.kind(t + 1), 1, needed.count(t + 1), needed.entries[t + 1], **watch())


def joined_steps(needed: Needed, n_iter: int, watch: Callable[[], dict[str, Any]]) -> Iterator[Step]:
    """Yield what the last two steps did, taken together since ``watch`` was made."""
    for t, figures in ((n_iter - 1, watch()), (n_iter, {})):
        yield Step(t, "joined", 1, needed.count(t), needed.entries[t], **figures)


def _pushed(
    graph: Graph, columns: SparseColumns, target: Target, needed: Needed, t: int, *, memory_bytes: int, threads: int
) -> tuple[SparseColumns | np.ndarray, dict[str, int]] | None:
    """Return L_t and the figures of the step, where it can be pushed and that costs less than the dense product."""
    sent = columns.count_sent(graph)
    options = {"memory_bytes": memory_bytes, "threads": threads}
    pushed: SparseColumns | np.ndarray | None = push(graph, columns, sent, needed, t, **options)
    if pushed is None:
        pushed = push_into_rows(graph, columns, sent, needed, t, make_out=target.first, **options)
    return None if pushed is None else (pushed, {"rows": columns.n_entries, "edges": int(sent.sum())})


def adjoint_weights(graph: Graph, nodes: np.ndarray, needed: Needed, *, target: Target, threads: int) -> np.ndarray:
    """Return what a one at a node adds to the sum of its column in each L_t.

    Parameters
    ----------
    graph : Graph
        W = D⁻¹ S.
    nodes : numpy.ndarray of shape (m,), int64
        Node ids.
    needed : Needed
        The rows of these nodes at T, and what leads there; at each t, if that is asked for.
    target, threads
        See `diffuse_batch`; the target is for one column.

    Returns
    -------
    numpy.ndarray of shape (T + 1, m), float64
        v_t at the nodes, where v_0 = 1 and v_{t+1} = Wᵀ v_t, so that the column sums of L_t are v_t · L_0. NaN where the nodes
        are not needed.

    Notes
    -----
    S is symmetric, so u_t = D⁻¹ v_t follows u_{t+1} = D⁻¹ S u_t = W u_t: it is diffused as one column more, from u_0 = D⁻¹ 1.
    """
    positions = graph.position[nodes]
    scale = graph.row_scale[positions].astype(np.float64)
    n_iter = len(needed.entries) - 1
    weights = np.full((n_iter + 1, len(nodes)), np.nan)
    weights[0] = 1.0
    L = target.first()
    L[:, 0] = graph.row_scale
    for t in range(1, n_iter + 1):
        L = step(graph, L, target, needed, t, threads=threads)
        if needed.holds(positions, t):
            weights[t] = 0.0
            np.divide(L[positions, 0], scale, out=weights[t], where=scale > 0)
    return weights


def column_sums(L: np.ndarray) -> np.ndarray:
    """Return the sum of each column of L (N, C'), float64 (C',)."""
    sums = np.empty(L.shape[1], np.float64)
    kernels.sum_columns(L, np.empty((-(-len(L) // kernels.SUM_ROWS), L.shape[1]), np.float64), sums)
    return sums


def column_scale(sums: np.ndarray) -> np.ndarray:
    """Return what η = columns multiplies each column by: 1 / its sum, 1 for a column of zeros."""
    return 1.0 / np.where(sums > 0, sums, 1.0)


def _dense(iterate: SparseColumns | np.ndarray, target: Target) -> np.ndarray:
    return iterate.dense(target.first()) if isinstance(iterate, SparseColumns) else iterate
