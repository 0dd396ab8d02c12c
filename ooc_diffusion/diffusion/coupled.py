"""Diffusion where the columns meet in each iteration: all of L_t lies on disk, its columns are multiplied batch after batch.

Normalizing rows takes all columns, and what is done to L_t changes L_{t+1}: no step can be left out, neither for rows that are
zero nor for rows that nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..graph import Graph
from ..memory import MemoryBudget
from ..store import ArrayWriter, Job
from .blocks import Block
from .iterate import step
from .needed import Needed, all_rows
from .normalize import Eta, SideBySide, block_rows, normalizing_bytes
from .reading import reading_bytes
from .registers import MOST_COLUMNS
from .room import FIXED_BYTES, column_bytes, make_rows
from .scores import Diffusion, Progress, _read

_ASSEMBLED_BYTES = 2**22
# W is read forwards in odd steps: the rows of a panel are then in their order.
_FORWARDS = 1


def write_coupled_scores(
    job: Job, graph: Graph, what: Diffusion, *, name: str, budget: MemoryBudget, threads: int, advance: Progress
) -> dict[str, object]:
    """Diffuse all columns together and write the scores; see `write_scores`.

    A resumed job goes on behind the last batch of columns that was multiplied, or the last iterate that was normalized.

    Notes
    -----
    L_0 holds the seeds one-hot. In each iteration the panels of L_t (N, C') are loaded one after the other, their products
    written to panels in turn, and these normalized side by side into those of L_{t+1}. Scores are read from L_T as it is.
    """
    diffusing = _Coupled(job, graph, what, budget, threads)
    told = 0
    for t in range(diffusing.t, what.n_iter + 1):
        for end in diffusing.multiply(t):
            done = (t * what.n_classes + end) // (what.n_iter + 1)
            advance(done - told)
            told = done
        if diffusing.is_kept(t):
            diffusing.assemble(t, name)
        if t < what.n_iter:
            diffusing.normalize(t)
    batches = len(diffusing.batches)
    return {"column_batches": batches, "steps": {"dense": diffusing.products}}


def columns_at_once(n: int, n_columns: int, *, budget: MemoryBudget, beside: int = 0) -> int:
    """Return how many of ``n_columns`` columns over n nodes are multiplied together, or raise `DoesNotFit`.

    ``beside`` are bytes that are held besides, for reading W.
    """
    fixed, at_most = FIXED_BYTES + beside, min(n_columns, MOST_COLUMNS)
    return budget.units(column_bytes(n), what=f"diffusing over {n} nodes", fixed_bytes=fixed, at_most=at_most)


def coupled_bytes(n: int, n_classes: int, *, budget: MemoryBudget, beside: int = 0) -> int:
    """Return the bytes that `write_coupled_scores` takes under a budget besides `FIXED_BYTES` and those for reading W."""
    columns = columns_at_once(n, n_classes, budget=budget, beside=beside)
    rows = block_rows(n, n_classes, budget=budget)
    return max(columns * column_bytes(n), normalizing_bytes(n, n_classes, rows))


def least_coupled_bytes(n: int, n_classes: int) -> int:
    """Return the bytes that it takes at least."""
    return max(column_bytes(n), normalizing_bytes(n, n_classes))


@dataclass(frozen=True)
class _OneHot:
    """The seeds by ascending position: positions (m,), and the class (m,) of each; a pair comes once."""

    positions: np.ndarray
    classes: np.ndarray

    @classmethod
    def of(cls, graph: Graph, what: Diffusion) -> _OneHot:
        pairs = np.stack([graph.position[what.seeds].astype(np.int64), what.seed_classes], axis=1)
        return cls(*np.unique(pairs, axis=0).T)

    def columns(self, n: int, begin: int, end: int) -> np.ndarray:
        """Return some columns of L_0."""
        L = make_rows(n, end - begin)
        L[:] = 0
        inside = (self.classes >= begin) & (self.classes < end)
        L[self.positions[inside], self.classes[inside] - begin] = 1
        return L

    def set_back(self, first: int, block: np.ndarray) -> None:
        """Make the rows of seeds in a block of rows one-hot."""
        inside = slice(*np.searchsorted(self.positions, [first, first + len(block)]))
        block[self.positions[inside] - first] = 0
        block[self.positions[inside] - first, self.classes[inside]] = 1


class _ToPanel:
    """A `Target` that writes the rows of the product to an array, one block after the other."""

    def __init__(self, writer: ArrayWriter) -> None:
        self._writer = writer

    def first(self) -> np.ndarray:
        """Nothing is sparse here."""
        raise AssertionError

    def start(self, t: int, n_rows: int) -> None:
        """Nothing: the array is there."""

    def rows(self, block: Block) -> np.ndarray:
        """Return an array for the rows."""
        return np.empty((len(block.rows), *self._writer.row_shape), np.float32)

    def put(self, block: Block, rows: np.ndarray) -> None:
        """Write the rows behind those before."""
        self._writer.append(rows)

    def complete(self, L: np.ndarray, needed: Needed, t: int) -> np.ndarray:
        """Leave the product on disk."""
        return L


class _Coupled:
    """A diffusion and how far it has come, which is what the checkpoints of the job say.

    Attributes
    ----------
    t : int
        The iterate that is on disk.
    panels : list of [int, int]
        First and last column of each of its panels; none for L_0, which is made of the seeds.
    batches : list of [int, int]
        The same for its products by W that are done; a run with another budget may cut them otherwise.
    products : int
        How many products were computed since the beginning.
    """

    def __init__(self, job: Job, graph: Graph, what: Diffusion, budget: MemoryBudget, threads: int) -> None:
        self.job, self.graph, self.what, self.threads = job, graph, what, threads
        self.seeds = _OneHot.of(graph, what)
        # decided once: what the allocator keeps later is no less room
        reading = reading_bytes(graph.nnz, weighted=graph.weights is not None)
        self.columns = columns_at_once(graph.n, what.n_classes, budget=budget, beside=reading)
        self.rows = block_rows(graph.n, what.n_classes, budget=budget)
        self.t, self.panels, self.batches, self.products = job.state.get("coupled", [0, [], [], 0])
        self._drop(job.state.get("drop", []))

    def is_kept(self, t: int) -> bool:
        """Return whether the scores of L_t are wanted."""
        return self.what.every_iteration or t == self.what.n_iter

    def multiply(self, t: int) -> Iterator[int]:
        """Read the scores of L_t and compute W L_t in batches; yield how many columns are done, first those of earlier runs."""
        end = self.batches[-1][1] if self.batches else 0
        yield end
        while end < self.what.n_classes:
            begin, end = end, min(end + self.columns, self.what.n_classes)
            self._multiply(t, begin, end)
            self.batches = [*self.batches, [begin, end]]
            self._checkpoint(drop=self._iterate(t) if end == self.what.n_classes and t < self.what.n_iter else [])
            yield end

    def _multiply(self, t: int, begin: int, end: int) -> None:
        L = self._load(t, begin, end)
        if self.is_kept(t):
            panel = self._new(f"panel/{t}/{begin}", self.what.n_rows(self.graph), end - begin)
            _read(self.graph, self.what, L, np.ones(end - begin), panel)
        if t < self.what.n_iter:
            target = _ToPanel(self._new(f"product/{t}/{begin}", self.graph.n, end - begin))
            step(self.graph, L, target, all_rows(self.graph, _FORWARDS), _FORWARDS, threads=self.threads)
            self.products += 1

    def _load(self, t: int, begin: int, end: int) -> np.ndarray:
        """Return some columns of L_t, float32 (N, C')."""
        if t == 0:
            return self.seeds.columns(self.graph.n, begin, end)
        L = make_rows(self.graph.n, end - begin)
        for (first, last), panel in zip(self.panels, self._views(f"iterate/{t}", self.panels, self.graph.n), strict=True):
            low, high = max(first, begin), min(last, end)
            if low < high:
                L[:, low - begin : high - begin] = panel[:, low - first : high - first]
        return L

    def assemble(self, t: int, name: str) -> None:
        """Put the scores of L_t side by side, behind those of the iterations before."""
        what, n_rows = self.what, self.what.n_rows(self.graph)
        scores = self.job.array(name, "<f4", (what.kept * n_rows, what.n_classes))
        panels = self._views(f"panel/{t}", self.batches, n_rows)
        before = t * n_rows if what.every_iteration else 0
        rows = max(1, _ASSEMBLED_BYTES // (4 * what.n_classes))
        for first in range(scores.rows - before, n_rows, rows):
            scores.append(np.concatenate([panel[first : first + rows] for panel in panels], axis=1))
            self.job.checkpoint()  # which keeps the state

    def normalize(self, t: int) -> None:
        """Write L_{t+1} = η(W L_t), the seeds set back where that is wanted, and give back what it was made of."""
        what, n = self.what, self.graph.n
        products = SideBySide(self._views(f"product/{t}", self.batches, n), self.rows)
        shares = what.shares / what.shares.sum()
        eta = Eta.of(what.normalization, what.power, n * shares, products.column_sums)
        if what.normalization == "columns":
            eta = replace(eta, column_scale=eta.column_scale * what.shares)
        writers = [self._new(f"iterate/{t + 1}/{begin}", n, end - begin) for begin, end in self.batches]
        for first, block, _ in products.normalized(eta):
            if what.reset:
                self.seeds.set_back(first, block)
            for writer, part in zip(writers, products.split(block), strict=True):
                writer.append(part)
        done = [f"{kind}/{t}/{begin}" for begin, _ in self.batches for kind in ("product", "panel")]
        self.t, self.panels, self.batches = t + 1, self.batches, []
        self._checkpoint(drop=done)

    def _new(self, name: str, rows: int, columns: int) -> ArrayWriter:
        self.job.drop(name)  # of a run that was cut off, perhaps of another width
        return self.job.array(name, "<f4", (rows, columns), scratch=True)

    def _views(self, name: str, bounds: list[list[int]], rows: int) -> list[np.ndarray]:
        return [self.job.array(f"{name}/{begin}", "<f4", (rows, end - begin), scratch=True).view() for begin, end in bounds]

    def _iterate(self, t: int) -> list[str]:
        return [f"iterate/{t}/{begin}" for begin, _ in self.panels]

    def _checkpoint(self, *, drop: list[str]) -> None:
        """Note how far it has come, and only then drop arrays that are of no more use."""
        self.job.checkpoint(now=True, coupled=[self.t, self.panels, self.batches, self.products], drop=drop)
        self._drop(drop)

    def _drop(self, names: list[str]) -> None:
        for name in names:
            self.job.drop(name)
