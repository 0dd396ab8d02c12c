"""Choosing the number of iterations and the fusion coefficient from the seeds alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..classify import choose_coefficient, log_scores, train_logistic
from ..diffusion import Diffusion, diffuse_once
from ..evaluation import choose_iterations, fallback_iterations, seed_folds
from ..graph import Graph
from ..memory import MemoryBudget

MAX_ITER = 30
# Seeds that are held out, and images that are looked at for coverage: enough for a choice, bounded for any collection.
_MOST_HELD_OUT = 2000
_COVERAGE_ROWS = 1000


@dataclass(frozen=True)
class Selection:
    """What cross-validation on the seeds found.

    Parameters
    ----------
    n_iter : int
        Number of iterations.
    how : str
        ``"cross-validation"``, ``"coverage"`` (no class has two seeds), ``"given"``, or ``"closed form"`` (no iterations).
    folds : numpy.ndarray of shape (m,), int8
        Fold in which each seed was held out; -1 = never.
    held_out : numpy.ndarray of shape (h,), int64
        The seeds that were held out (their place in the list of seeds).
    held_out_scores : numpy.ndarray of shape (h, C), float32
        Their scores after ``n_iter`` iterations, diffused from the other folds.
    """

    n_iter: int
    how: str
    folds: np.ndarray
    held_out: np.ndarray
    held_out_scores: np.ndarray


@dataclass(frozen=True)
class Seeds:
    """Seeds in the graph.

    Parameters
    ----------
    nodes : numpy.ndarray of shape (m,), int64
        Node ids.
    classes : numpy.ndarray of shape (m,), int64
        Classes.
    n_classes : int
        Number of classes.
    eta : dict
        The fields of `Diffusion` that say what η is, and how L is stored. Default: columns, in float32.
    """

    nodes: np.ndarray
    classes: np.ndarray
    n_classes: int
    eta: Mapping[str, Any] = field(default_factory=dict)

    def diffusion(self, n_iter: int, queries: np.ndarray | None, *, known: Any = slice(None)) -> Diffusion:
        """Return the diffusion of these seeds, or of those among them that are ``known``."""
        return Diffusion(self.nodes[known], self.classes[known], self.n_classes, n_iter, queries, **self.eta)


def select_iterations(
    graph: Graph,
    seeds: Seeds,
    queries: np.ndarray | None,
    *,
    max_iter: int = MAX_ITER,
    seed: int,
    budget: MemoryBudget,
    threads: int,
    device: str = "cpu",
) -> Selection:
    """Choose the number of iterations.

    Parameters
    ----------
    graph : Graph
        W.
    seeds : Seeds
        The labelled nodes.
    queries : numpy.ndarray of shape (q, k), int32, or None
        Neighbor ids of the images that are to be labelled; None for the nodes themselves.
    max_iter : int
        Largest number tried, default 30.
    seed : int
        Seed of the folds.
    budget, threads, device
        For the engine.

    Returns
    -------
    Selection
    """
    folds = held_out_folds(seeds.classes, seed)
    options: dict[str, Any] = {"budget": budget, "threads": threads, "device": device}
    nothing = np.empty(0, np.int64), np.empty((0, seeds.n_classes), np.float32)
    if (folds < 0).all():
        n = graph.n if queries is None else len(queries)
        rows = np.linspace(0, n - 1, min(_COVERAGE_ROWS, n)).astype(np.int64)
        sample = rows[:, None] if queries is None else np.ascontiguousarray(queries[rows])
        scores = diffuse_once(graph, replace(seeds.diffusion(max_iter, sample), every_iteration=True), **options)
        shares = np.array([(block > 0).mean() for block in scores])
        return Selection(fallback_iterations(shares), "coverage", folds, *nothing)
    held_out, scores = held_out_scores(graph, seeds, folds, max_iter, **options)
    n_iter = choose_iterations(scores, seeds.classes[held_out])
    return Selection(n_iter, "cross-validation", folds, held_out, scores[n_iter])


def hold_out(
    graph: Graph, seeds: Seeds, n_iter: int, *, seed: int, budget: MemoryBudget, threads: int, device: str = "cpu"
) -> Selection:
    """Return a given number of iterations with the scores of held-out seeds, from which the fusion is chosen."""
    folds = held_out_folds(seeds.classes, seed)
    if (folds < 0).all():
        return Selection(n_iter, "given", folds, np.empty(0, np.int64), np.empty((0, seeds.n_classes), np.float32))
    held_out, scores = held_out_scores(graph, seeds, folds, n_iter, budget=budget, threads=threads, device=device)
    return Selection(n_iter, "given", folds, held_out, scores[n_iter])


def held_out_scores(graph: Graph, seeds: Seeds, folds: np.ndarray, n_iter: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Score each held-out seed, by its own row of L, from the other folds: places (h,) and scores (n_iter + 1, h, C)."""
    held_out = np.concatenate([np.flatnonzero(folds == fold) for fold in range(int(folds.max()) + 1)])
    scores = np.empty((n_iter + 1, len(held_out), seeds.n_classes), np.float32)
    for fold in range(int(folds.max()) + 1):
        out, known = folds[held_out] == fold, folds != fold
        rows = seeds.nodes[held_out[out], None]
        what = seeds.diffusion(n_iter, rows, known=known)
        # where the limit is solved for, that is all there is; the diffusion itself, which follows, warns where it is not
        scores[:, out] = diffuse_once(graph, replace(what, every_iteration=what.solver == "iterate"), warn=False, **options)
    return held_out, scores


def held_out_bytes(m: int, n_classes: int, n_iter: int) -> int:
    """Return the bytes of memory that the scores of the held-out among m seeds take."""
    return 8 * (n_iter + 1) * min(m, _MOST_HELD_OUT) * n_classes


def select_coefficient(
    descriptors: np.ndarray, seeds: Seeds, folds: np.ndarray, held_out: np.ndarray, scores: np.ndarray, **training: Any
) -> float:
    """Choose the fusion coefficient on held-out seeds; 0 (diffusion alone) where none could be held out.

    Parameters
    ----------
    descriptors : numpy.ndarray of shape (m, d), float32
        Descriptors of the seeds.
    seeds : Seeds
        Their classes.
    folds, held_out, scores
        See `Selection`.
    **training
        Passed to `train_logistic`.

    Returns
    -------
    float
        Weight of logistic regression, 0 to 1.
    """
    if len(held_out) == 0:
        return 0.0
    log_logistic = np.empty((len(held_out), seeds.n_classes), np.float32)
    for fold in np.unique(folds[held_out]):
        known, out = folds != fold, folds[held_out] == fold
        model = train_logistic(descriptors[known], seeds.classes[known], n_classes=seeds.n_classes, **training)
        log_logistic[out] = model.log_probabilities(descriptors[held_out[out]])
    return choose_coefficient(log_logistic, log_scores(scores), seeds.classes[held_out])


def held_out_folds(classes: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold in which each seed is held out, int8 (m,); -1 for never, and for all but 2000."""
    folds = seed_folds(classes, seed=seed)
    if folds is None:
        return np.full(len(classes), -1, np.int8)
    out = np.flatnonzero(folds >= 0)
    if len(out) > _MOST_HELD_OUT:
        kept = np.random.default_rng(seed).choice(out, _MOST_HELD_OUT, replace=False)
        folds[np.setdiff1d(out, kept)] = -1
    return folds
