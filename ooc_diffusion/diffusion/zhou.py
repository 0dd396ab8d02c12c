"""Zhou's diffusion, where each node keeps a part of what it began with: L_{t+1} = α 𝒲 L_t + (1 - α) L_0, or its limit."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import BadInput
from ..graph import Graph
from ..memory import MemoryBudget
from ..store import ArrayWriter, Job
from . import kernels, zhou_kernels
from .blocks import Block
from .engine import column_scale, column_sums
from .iterate import step
from .needed import Needed, all_rows
from .reading import reading_bytes
from .registers import MOST_COLUMNS
from .room import FIXED_BYTES, column_bytes, make_rows, whole_lines
from .scores import Diffusion, Progress, _assemble, _read, column_order

SOLVERS = ("iterate", "conjugate-gradient")
# Iterates that lie in memory together: M_t and M_{t+1}; solution, residual, direction and its product.
_HELD = {"iterate": 2, "conjugate-gradient": 4}
# Part of the tolerance at which the residual that is carried along ends: that of the rounded solution is a little larger.
_MARGIN = 0.5
# Entries of the residual that are not looked at: up to this part of the norm of (1 - α) L_0. float32 ends at 1e-38.
_LEAST = 1e-30

logger = logging.getLogger(__name__)


def check_alpha(what: Diffusion) -> None:
    """Raise `BadInput` unless α and its solver are of the kind there is, and nothing else is asked that they do not allow."""
    alpha, solver = what.alpha, what.solver
    if solver not in SOLVERS:
        raise BadInput(f"solver {solver!r} is not one of {', '.join(SOLVERS)}")
    if alpha is None:
        if solver != "iterate":
            raise BadInput(f"`solver` {solver} is for `alpha`; give that too")
        return
    if not isinstance(alpha, int | float | np.integer | np.floating) or not 0 < alpha < 1:
        raise BadInput(f"`alpha` is {alpha!r}; give a number above 0 and below 1")
    if what.coupled:
        raise BadInput("`alpha` is for `normalization` columns or none, without `reset`; leave out the one or the other")
    if solver == "iterate":
        return
    if what.every_iteration:
        raise BadInput("`solver` conjugate-gradient has no iterations to return; leave out `every_iteration`, or take iterate")
    if not 0 < what.tolerance < 1:
        raise BadInput(f"`tolerance` is {what.tolerance!r}; give a number above 0 and below 1")
    if what.max_steps < 1:
        raise BadInput(f"`max_steps` is {what.max_steps!r}; give 1 or more")


def write_zhou_scores(
    job: Job, graph: Graph, what: Diffusion, *, name: str, budget: MemoryBudget, threads: int, advance: Progress
) -> dict[str, object]:
    """Diffuse with α, batch by batch of columns, and write the scores; see `write_scores`.

    A resumed job goes on behind the last batch that was finished.

    Notes
    -----
    𝒲 = D^(-1/2) (W0 + W0ᵀ) D^(-1/2) = D^(1/2) W D^(-1/2), with W the graph on disk. So M_t = D^(-1/2) L_t obeys

        M_{t+1} = α W M_t + (1 - α) M_0,        (I - α W) M = (1 - α) M_0 in the limit,

    and no other graph is needed. I - α W is self-adjoint and positive in the inner product <u, v> = Σ_i D_i u_i v_i, which is
    that of L: conjugate gradients with it take the same steps as with I - α 𝒲. A node without edges counts as one of D = 1.
    Every row is computed in every step.
    """
    batches: list[list[int]] = job.state.get("batches", [])
    done: dict[str, float] = job.state.get("solved", {"products": 0, "steps": 0, "residual": 0.0, "unsolved": 0})
    begin = batches[-1][1] if batches else 0
    advance(begin)
    reading = reading_bytes(graph.nnz, weighted=graph.weights is not None)
    # decided once: what the allocator keeps later is no less room
    columns = zhou_columns(graph.n, what.n_classes, solver=what.solver, budget=budget, beside=reading)
    order = column_order(what)
    while begin < what.n_classes:
        classes = order[begin : begin + columns]
        job.drop(f"panel/{begin}")  # of a batch that was cut off, perhaps of another width
        panel = job.array(f"panel/{begin}", "<f4", (what.kept * what.n_rows(graph), len(classes)), scratch=True)
        batch = _Batch(graph, what, classes, panel, threads)
        steps, residuals = batch.iterate() if what.solver == "iterate" else batch.solve()
        done = {
            "products": done["products"] + batch.products,
            "steps": max(done["steps"], steps),
            "residual": max(done["residual"], float(residuals.max(initial=0.0))),
            "unsolved": done["unsolved"] + int((residuals > what.tolerance).sum()),
        }
        batches = [*batches, [begin, begin + len(classes)]]
        job.checkpoint(now=True, batches=batches, solved=done)
        advance(len(classes))
        begin += len(classes)
    _assemble(job, graph, what, batches, name)
    record: dict[str, object] = {"column_batches": len(batches), "steps": {"dense": done["products"]}}
    if what.solver == "iterate":
        return record
    return record | {"solver_steps": done["steps"], "residual": done["residual"], "unsolved_classes": done["unsolved"]}


def warn_of_unsolved(record: Mapping[str, Any], what: Diffusion) -> None:
    """Say it where the record of a diffusion has classes that conjugate gradients did not solve for to the tolerance."""
    if not record.get("unsolved_classes"):
        return
    logger.warning(
        "%d of %d classes are not solved for: conjugate gradients ended after %d steps with a residual of up to %.2g, above the "
        "`tolerance` of %.2g; %s",
        record["unsolved_classes"],
        what.n_classes,
        record["solver_steps"],
        record["residual"],
        what.tolerance,
        "give more `max_steps`, or a smaller `alpha`"
        if record["solver_steps"] >= what.max_steps
        else "give a larger one: float32 hardly holds less than 1e-6",
    )


def most_passes(what: Diffusion) -> int:
    """Return how many passes over W a batch of columns takes at most.

    Notes
    -----
    The eigenvalues of I - α 𝒲 lie between 1 - α and 1 + α. With κ their ratio, m steps of conjugate gradients make the residual
    smaller by 2 √κ ((√κ - 1) / (√κ + 1))^m, which is below 2 √κ exp(-2 m / √κ): at last no entry of it is looked at. Where no
    node is far from the seeds, a tenth to a half of these are enough.
    """
    if what.alpha is None or what.solver == "iterate":
        return what.n_iter
    root = math.sqrt((1 + what.alpha) / (1 - what.alpha))
    return min(what.max_steps, math.ceil(root / 2 * math.log(2 * root / _LEAST))) + 1


def zhou_columns(n: int, n_columns: int, *, solver: str, budget: MemoryBudget, beside: int = 0) -> int:
    """Return how many of ``n_columns`` columns over n nodes are diffused together, or raise `DoesNotFit`.

    ``beside`` are bytes that are held besides, for reading W.
    """
    at_most, unit = min(n_columns, MOST_COLUMNS), zhou_column_bytes(n, solver)
    columns = budget.units(unit, what=f"diffusing over {n} nodes", fixed_bytes=FIXED_BYTES + beside, at_most=at_most)
    return whole_lines(columns, at_most, 4)


def zhou_column_bytes(n: int, solver: str) -> int:
    """Return the bytes that one column takes: all of its iterates lie in memory."""
    return column_bytes(n) + 4 * n * (_HELD[solver] - 1)


class _Into:
    """A `Target` that is an array for all rows."""

    def __init__(self, out: np.ndarray) -> None:
        self._out = out

    def first(self) -> np.ndarray:
        """Nothing is sparse here."""
        raise AssertionError

    def start(self, t: int, n_rows: int) -> None:
        """Nothing: the array is there."""

    def rows(self, block: Block) -> np.ndarray:
        """Return the rows of the block themselves."""
        return self._out[block.begin : block.end]

    def put(self, block: Block, rows: np.ndarray) -> None:
        """Nothing: they are where they belong."""

    def complete(self, L: np.ndarray, needed: Needed, t: int) -> np.ndarray:
        """Return the array."""
        return self._out


class _Batch:
    """Some columns on their way; ``products`` counts those with W."""

    def __init__(self, graph: Graph, what: Diffusion, classes: np.ndarray, panel: ArrayWriter, threads: int) -> None:
        assert what.alpha is not None
        self.graph, self.what, self.classes, self.panel, self.threads = graph, what, classes, panel, threads
        self.alpha = float(what.alpha)
        self.products = 0
        self._needed = all_rows(graph, 1)
        self._partial = np.empty((-(-graph.n // kernels.SUM_ROWS), len(classes)))
        column = np.full(what.n_classes, -1, np.int64)
        column[classes] = np.arange(len(classes))
        inside = column[what.seed_classes] >= 0
        pairs = np.stack([graph.position[what.seeds[inside]].astype(np.int64), column[what.seed_classes[inside]]])
        self._seeds = np.unique(pairs, axis=1)
        scale = graph.row_scale[self._seeds[0]].astype(np.float64)
        self._seed_values = np.sqrt(np.where(scale > 0, scale, 1.0)).astype(np.float32)

    def iterate(self) -> tuple[int, np.ndarray]:
        """Go from M_0 to M_T; return T and no residuals."""
        what = self.what
        M, other = self._new(), self._new()
        self._set_seeds(M, 1.0)
        keeps = np.float32(1.0 - self.alpha) * self._seed_values
        for t in range(what.n_iter + 1):
            if what.every_iteration or t == what.n_iter:
                self._read(M, other)
            if t < what.n_iter:
                self._multiply(M, other)
                other *= np.float32(self.alpha)
                other[tuple(self._seeds)] += keeps
                M, other = other, M
        return what.n_iter, np.empty(0)

    def solve(self) -> tuple[int, np.ndarray]:
        """Find the limit by conjugate gradients; return the steps and the residual of each column, that of its worst entry.

        Notes
        -----
        A column is solved where its residual is small beside the solution in each entry. Small beside the right side, as is
        usual, says nothing of nodes far from the seeds, where the limit is smaller than any such residual: m steps do not even
        reach nodes at more than m edges. The steps keep small entries as exact, relatively, as large ones, in float32 too.
        """
        what = self.what
        x, r, p, q = (self._new() for _ in range(4))
        x[:] = 0
        self._set_seeds(r, 1.0 - self.alpha)
        p[:] = r
        squares = self._dots(r, r)
        least = _LEAST**2 * squares
        steps = 0
        # a column that is solved stands still while others go on, so that its bytes do not depend on them
        while steps < what.max_steps and (active := self._residuals(r, x, least) > _MARGIN * what.tolerance).any():
            self._apply(p, q)
            a = np.divide(squares, self._dots(p, q), out=np.zeros(len(squares)), where=active)
            zhou_kernels.add_scaled(p, a, x)
            zhou_kernels.add_scaled(q, -a, r)
            after = self._dots(r, r)
            zhou_kernels.scale_and_add(r, np.divide(after, squares, out=np.zeros(len(squares)), where=active), p)
            squares = np.where(active, after, squares)
            steps += 1
        np.maximum(x, 0, out=x)  # as the limit is, where steps were too few
        # of the solution itself: the one above is carried along, and does not see the rounding
        self._apply(x, q)
        self._set_seeds(r, 1.0 - self.alpha)
        zhou_kernels.add_scaled(q, np.full(len(squares), -1.0), r)
        residuals = self._residuals(r, x, least)
        self._read(x, q)
        return steps, residuals

    def _apply(self, p: np.ndarray, out: np.ndarray) -> None:
        """Write (I - α W) p."""
        self._multiply(p, out)
        zhou_kernels.scale_and_add(p, np.full(p.shape[1], -self.alpha), out)

    def _multiply(self, M: np.ndarray, out: np.ndarray) -> None:
        """Write W M, every second time from the end of W to its beginning: what was read last is still in the system's cache."""
        step(self.graph, M, _Into(out), self._needed, self.products % 2, threads=self.threads)
        self.products += 1

    def _dots(self, A: np.ndarray, B: np.ndarray) -> np.ndarray:
        sums = np.empty(A.shape[1])
        zhou_kernels.weighted_dots(A, B, self.graph.row_scale, self._partial, sums)
        return sums

    def _residuals(self, r: np.ndarray, x: np.ndarray, least: np.ndarray) -> np.ndarray:
        """Return the residual of the worst entry of each column, as a part of that entry: 1 where it is as large or larger."""
        ratios = np.empty(x.shape[1])
        zhou_kernels.largest_ratios(r, x, self.graph.row_scale, least, self._partial, ratios)
        return ratios

    def _read(self, M: np.ndarray, scratch: np.ndarray) -> None:
        """Append the scores of L = D^(1/2) M, which is made in ``scratch``."""
        zhou_kernels.unscale_rows(M, self.graph.row_scale, scratch)
        if self.what.normalization == "none":
            scale = np.ones(len(self.classes))
        else:
            scale = column_scale(column_sums(scratch)) * self.what.shares[self.classes]
        _read(self.graph, self.what, scratch, scale, self.panel)

    def _set_seeds(self, out: np.ndarray, factor: float) -> None:
        """Write ``factor`` M_0."""
        out[:] = 0
        out[tuple(self._seeds)] = np.float32(factor) * self._seed_values

    def _new(self) -> np.ndarray:
        return make_rows(self.graph.n, len(self.classes))
