"""The protocol: a few labels per class, drawn several times, and how right each method is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..classify import fuse, knn_scores, log_scores, train_logistic
from ..diffusion import check_precision, diffuse_once
from ..errors import BadInput
from ..evaluation import Accuracy, choose_iterations, draw_seeds, fallback_iterations, mean_std, seed_of_draw
from ..graph import Graph
from ..memory import StagePlan
from ..store import Store
from .class_names import class_names, refuse_other_classes
from .classify import torch_device
from .collection import Collection
from .graph import open_graph, query_table
from .low_shot import check_counts
from .plans import BLOCK_ROWS, plan_diffuse
from .selection import MAX_ITER, Seeds, held_out_bytes, held_out_folds, held_out_scores, select_coefficient
from .settings import Record, Settings, Worker, run_stage

N_PER_CLASS = (1, 2, 5, 10, 20)
METHODS = ("kNN", "diffusion", "logistic regression", "fusion", "diffusion, best iteration")


@dataclass(frozen=True)
class _Draw:
    """The seeds of one draw: those for the largest n, nested in which are all others."""

    nodes: np.ndarray
    classes: np.ndarray
    members: list[np.ndarray]
    n_classes: int


def evaluate(
    store: str | Path,
    *,
    n_per_class: Sequence[int] = N_PER_CLASS,
    draws: int = 5,
    max_iter: int = MAX_ITER,
    precision: str = "float32",
    settings: Settings | None = None,
) -> Record:
    """Measure kNN, diffusion, logistic regression and fusion with few labels per class.

    Parameters
    ----------
    store : str or Path
        A store with a graph, and true classes of background and tests.
    n_per_class : sequence of int
        Labelled images per class, default 1, 2, 5, 10, 20.
    draws : int
        Draws of the labelled images, nested in n and the same for all methods. Default 5.
    max_iter : int
        Largest number of iterations, default 30.
    precision : {"float32", "bfloat16"}
        How L is stored, as in `ooc_diffusion.diffuse`. Default ``"float32"``.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The record of the stage. ``draws``: per draw and n the chosen iterations and coefficient, and top-1 and top-5 accuracy of
        each method and of each iteration.

    Notes
    -----
    Section 4.1 of the paper. Labelled images are drawn from the background, whose other images are the unlabelled ones
    (in-domain); the tests stand outside the graph. Iterations and coefficient are chosen by cross-validation on the seeds alone.
    "diffusion, best iteration" is chosen on the tests, as an upper bound; it is no result that a user could have had.
    """
    settings = settings or Settings()
    target = Store(store)
    graph = open_graph(target)
    if "seeds/vectors" in target:
        raise BadInput(
            f"{store} has seeds apart from the background; evaluate draws them from the background, use a store without"
        )
    for role in ("background", "tests"):
        if f"{role}/vectors" not in target:
            raise BadInput(f"{store} has no {role}; extract (or import) and reduce them with --role {role}, then run neighbors")
        if f"{role}/truth" not in target:
            raise BadInput(
                f"{store} does not know the true classes of its {role}; extract a data set with classes, or import descriptors "
                "with --truth"
            )
    refuse_other_classes(target)
    background, tests = Collection(target, "nodes"), Collection(target, "tests")
    check_counts(n_per_class, draws)
    if max_iter < 1:
        raise BadInput(f"`max_iter` is {max_iter}; it must be at least 1")
    check_precision(precision, unskipped=False)
    known_truth, truth = background.truth, tests.truth
    assert known_truth is not None
    assert truth is not None
    known = int(max(known_truth.max(), truth.max())) + 1
    sizes = sorted(set(n_per_class))
    # refuses a class that is too small, before anything is begun
    draw_seeds(known_truth, n_per_class=sizes[-1], seed=settings.seed, class_names=class_names(target))
    parameters = {"n_per_class": sizes, "draws": draws, "max_iter": max_iter, "seed": settings.seed}
    if settings.seed:
        parameters["drawn"] = "by draw and seed"  # seed 0 draws what it has always drawn
    if precision != "float32":
        parameters["precision"] = precision  # left out else, so that what was measured before there was a choice stays good
    inputs = ["graph/indptr", "graph/indices", "graph/row_scale", "graph/position"]
    inputs += [
        f"{role}/{name}" for role in ("background", "tests") for name in ("vectors", "truth", "descriptors", "neighbor_ids")
    ]
    return run_stage(
        target,
        "evaluate",
        settings,
        plan=_plan(graph, len(truth), known, sizes, max_iter, precision, settings),
        parameters=parameters,
        inputs=inputs,
        total=draws,
        unit="draws",
        work=lambda worker: _evaluate(worker, target, graph, sizes, draws, max_iter, precision, settings),
    )


def _plan(
    graph: Graph, tests: int, n_classes: int, sizes: list[int], max_iter: int, precision: str, settings: Settings
) -> StagePlan:
    base = plan_diffuse(
        graph.n,
        graph.nnz,
        n_classes * len(sizes),
        max_iter,
        rows=tests,
        budget=settings.budget,
        folds=5,
        held_out=held_out_bytes(sizes[-1] * n_classes, n_classes, max_iter),
        kept=max_iter + 1,
        weighted=graph.weights is not None,
        precision=precision,
    )
    # the draw sorts the classes of all images
    torch = settings.budget.overhead(torch=True) + 2**28 + 24 * graph.n
    peak, least = max(base.memory_bytes, torch), max(base.least_bytes, torch)
    scratch = base.scratch_bytes + base.disk_bytes
    return StagePlan("evaluate", base.work, peak, least, 0, scratch, base.operations)


def _evaluate(
    worker: Worker,
    store: Store,
    graph: Graph,
    sizes: list[int],
    draws: int,
    max_iter: int,
    precision: str,
    settings: Settings,
) -> dict[str, Any]:
    results = list(worker.job.state.get("draws", []))
    worker.advance(len(results))
    background = Collection(store, "nodes")
    assert background.truth is not None
    for number in range(len(results), draws):
        draw = _draw(background.truth, sizes, settings.seed, number)
        results.append(_one_draw(worker, store, graph, draw, sizes, max_iter, precision, settings))
        worker.job.checkpoint(now=True, draws=results)
        worker.advance(1)
    return {"n_per_class": sizes, "methods": list(METHODS), "draws": results}


def _draw(truth: np.ndarray, sizes: list[int], seed: int, number: int) -> _Draw:
    nodes, classes = draw_seeds(truth, n_per_class=sizes[-1], seed=seed_of_draw(seed, number))
    place = np.arange(len(nodes)) % sizes[-1]
    return _Draw(nodes, classes.astype(np.int64), [np.flatnonzero(place < n) for n in sizes], int(classes.max()) + 1)


def _one_draw(
    worker: Worker,
    store: Store,
    graph: Graph,
    draw: _Draw,
    sizes: list[int],
    max_iter: int,
    precision: str,
    settings: Settings,
) -> dict[str, Any]:
    options: dict[str, Any] = {"budget": worker.budget, "threads": worker.threads}
    k = store.parameters("graph")["k"]
    scores = _test_scores(graph, draw, query_table(store)[:, :k], max_iter, precision, options)
    descriptors = Collection(store, "nodes").array("descriptors", draw.nodes)
    vectors = Collection(store, "nodes").array("vectors", draw.nodes)
    training: dict[str, Any] = {"seed": settings.seed, "threads": worker.threads, "device": torch_device(settings.device)}
    result = {}
    for place, (n, members) in enumerate(zip(sizes, draw.members, strict=True)):
        columns = slice(place * draw.n_classes, (place + 1) * draw.n_classes)
        seeds = Seeds(draw.nodes[members], draw.classes[members], draw.n_classes, {"precision": precision})
        folds = held_out_folds(seeds.classes, settings.seed)
        out, out_scores = _held_out(graph, seeds, folds, max_iter, options)
        n_iter = _iterations(scores[:, :, columns], out, out_scores, seeds)
        coefficient = select_coefficient(descriptors[members], seeds, folds, out, out_scores[n_iter], **training)
        model = train_logistic(descriptors[members], seeds.classes, n_classes=draw.n_classes, **training)
        accuracies = _accuracies(store, scores[:, :, columns], n_iter, model, coefficient, vectors[members], seeds)
        result[str(n)] = {"n_iter": n_iter, "coefficient": coefficient, **accuracies}
    return result


def _test_scores(
    graph: Graph, draw: _Draw, queries: np.ndarray, max_iter: int, precision: str, options: dict[str, Any]
) -> np.ndarray:
    """Diffuse the seeds of all n at once, a column for each n and class: scores (max_iter + 1, tests, n * C)."""
    nodes = np.concatenate([draw.nodes[members] for members in draw.members])
    columns = [place * draw.n_classes + draw.classes[members] for place, members in enumerate(draw.members)]
    seeds = Seeds(nodes, np.concatenate(columns), len(columns) * draw.n_classes, {"precision": precision})
    return diffuse_once(graph, replace(seeds.diffusion(max_iter, queries), every_iteration=True), **options)


def _held_out(
    graph: Graph, seeds: Seeds, folds: np.ndarray, max_iter: int, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    if (folds < 0).all():
        return np.empty(0, np.int64), np.empty((max_iter + 1, 0, seeds.n_classes), np.float32)
    return held_out_scores(graph, seeds, folds, max_iter, **options)


def _iterations(scores: np.ndarray, out: np.ndarray, out_scores: np.ndarray, seeds: Seeds) -> int:
    if len(out):
        return choose_iterations(out_scores, seeds.classes[out])
    return fallback_iterations(np.array([(block > 0).mean() for block in scores]))


def _accuracies(
    store: Store,
    scores: np.ndarray,
    n_iter: int,
    model: Any,
    coefficient: float,
    seed_vectors: np.ndarray,
    seeds: Seeds,
) -> dict[str, Any]:
    """Accuracy of each method, and of diffusion after each iteration, over all tests."""
    tests = Collection(store, "tests")
    assert tests.truth is not None
    by_iteration = [Accuracy() for _ in scores]
    knn, logistic, fusion = Accuracy(), Accuracy(logarithms=True), Accuracy(logarithms=True)
    for first in range(0, len(tests), BLOCK_ROWS):
        rows = slice(first, min(first + BLOCK_ROWS, len(tests)))
        truth = tests.truth[rows]
        for t, accuracy in enumerate(by_iteration):
            accuracy.update(np.asarray(scores[t, rows]), truth)
        knn.update(knn_scores(seed_vectors, seeds.classes, tests.array("vectors", rows), n_classes=seeds.n_classes), truth)
        log_logistic = model.log_probabilities(tests.array("descriptors", rows))
        logistic.update(log_logistic, truth)
        reached = np.asarray(scores[n_iter, rows]).any(axis=1)
        fusion.update(fuse(log_logistic, log_scores(scores[n_iter, rows]), coefficient), np.where(reached, truth, -1))
    found = [accuracy.result() for accuracy in by_iteration]
    best = max(range(len(found)), key=lambda t: found[t]["top1"])
    methods = [knn.result(), found[n_iter], logistic.result(), fusion.result(), found[best]]
    return {"methods": dict(zip(METHODS, methods, strict=True)), "iterations": found}


def summarize_evaluation(record: Record) -> dict[str, Any]:
    """Return mean and standard deviation over the draws: ``{method: {n: {"top1": (mean, std), "top5": ...}}}``."""
    draws = record["draws"]
    summary: dict[str, Any] = {}
    for method in record["methods"]:
        summary[method] = {
            n: {top: mean_std([draw[str(n)]["methods"][method][top] for draw in draws]) for top in ("top1", "top5")}
            for n in record["n_per_class"]
        }
    return summary
