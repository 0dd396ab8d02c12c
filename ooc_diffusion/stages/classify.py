"""Logistic regression, late fusion, and a prediction for every image."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..classify import DEFAULT_VOTERS, EdgeSampler, Smoothness, fuse, knn_scores, log_scores, predict, softmax, train_logistic
from ..errors import BadInput
from ..store import Store
from .collection import Collection
from .graph import open_graph
from .output import check_output, write_output
from .plans import BLOCK_ROWS, plan_classify
from .selection import Seeds, select_coefficient
from .settings import Record, Settings, Worker, open_store, run_stage

logger = logging.getLogger(__name__)

METHODS = ("fusion", "diffusion", "logistic", "graph-logistic", "knn")


def classify(
    store: Store | str | Path,
    *,
    method: str = "fusion",
    coefficient: float | None = None,
    k: int | None = None,
    smoothness: float = 1.0,
    output: str | Path | None = None,
    settings: Settings | None = None,
) -> Record:
    """Predict a class for every image that was given scores.

    Parameters
    ----------
    store : Store or str or Path
        A store with diffused scores.
    method : {"fusion", "diffusion", "logistic", "graph-logistic", "knn"}
        Diffusion and logistic regression fused, either alone, logistic regression that is smooth over the graph, or the nearest
        seeds. Default ``"fusion"``.
    coefficient : float, optional
        Weight of logistic regression in the fusion, 0 to 1. Default: chosen by cross-validation on the seeds, 0 where no class
        has two.
    k : int, optional
        With ``"knn"``: so many nearest seeds vote, all where there are fewer, and the votes of each class are divided by its
        number of seeds: 0 iterations of diffusion. Default: the 5 nearest vote, undivided.
    smoothness : float
        With ``"graph-logistic"``: μ, 0 or more. Default 1.
    output : str or Path, optional
        CSV to write: ``path,label,confidence,origin``.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The record of the stage. Arrays: ``predictions/labels`` (rows,) int32, -1 = unreached or unreadable, and
        ``predictions/confidence`` (rows,) float32. Seeds keep the label that they were given, with confidence 1.

    Notes
    -----
    Section 3.3 and appendix C of the paper: a log l_logreg + (1 - a) log l_dif.
    """
    settings = settings or Settings()
    target = open_store(store)
    diffused = target.record("diffuse")
    if method not in METHODS:
        raise BadInput(f"method {method!r} is not one of {', '.join(METHODS)}")
    if coefficient is not None and not 0 <= coefficient <= 1:
        raise BadInput(f"`coefficient` is {coefficient}; give a number from 0 (diffusion alone) to 1 (logistic regression alone)")
    if k is not None and (method != "knn" or k < 1):
        raise BadInput(f"`k` is {k} for `method` {method}; give 1 or more, and `method` knn")
    if not 0 <= smoothness < np.inf:
        raise BadInput(f"`smoothness` is {smoothness}; give a number of 0 or more")
    check_output(target, output, settings)
    images = Collection(target, diffused["rows"])
    parameters: dict[str, Any] = {"method": method, "coefficient": coefficient, "seed": settings.seed}
    if k is not None:
        parameters["k"] = k  # left out where there is none, so that stores from before there was a choice stay good
    inputs = ["diffusion/scores", "diffusion/seed_nodes", "diffusion/seed_classes", "diffusion/folds"]
    roles = sorted({*images.roles, *Collection(target, "nodes").roles})  # the seeds are nodes, also where tests are classified
    inputs += [f"{role}/{name}" for role in roles for name in ("descriptors", "vectors")]
    d = max(target.entry(f"{role}/descriptors").shape[1] for role in roles)
    if method == "graph-logistic":
        parameters["smoothness"] = smoothness
        inputs += [f"graph/{name}" for name in ("indptr", "indices", "order", "weights") if f"graph/{name}" in target]
    network = method in ("fusion", "logistic", "graph-logistic")
    record = run_stage(
        target,
        "classify",
        settings,
        plan=plan_classify(len(images), d, len(diffused["class_names"]), network=network, budget=settings.budget),
        parameters=parameters,
        inputs=inputs,
        total=len(images),
        unit="images",
        work=lambda worker: _classify(worker, target, images, parameters, settings),
    )
    if output is not None and not settings.dry_run:
        write_output(target, output)
    return record


def _classify(worker: Worker, store: Store, images: Collection, asked: dict[str, Any], settings: Settings) -> dict[str, Any]:
    class_names = store.record("diffuse")["class_names"]
    seeds = Seeds(store.array("diffusion/seed_nodes"), store.array("diffusion/seed_classes"), len(class_names))
    score, details = _scorer(store, images, seeds, asked, worker.threads, settings)
    labels = worker.job.array("predictions/labels", "<i4", (len(images),))
    confidences = worker.job.array("predictions/confidence", "<f4", (len(images),))
    worker.advance(labels.rows)
    in_graph = store.record("diffuse")["rows"] == "nodes"
    unreadable = images.unreadable
    for first in range(labels.rows, len(images), BLOCK_ROWS):
        block_labels, block_confidences = predict(score(slice(first, min(first + BLOCK_ROWS, len(images)))))
        if in_graph:
            given = (seeds.nodes >= first) & (seeds.nodes < first + BLOCK_ROWS)
            block_labels[seeds.nodes[given] - first] = seeds.classes[given]
            block_confidences[seeds.nodes[given] - first] = 1.0
        failed = unreadable[(unreadable >= first) & (unreadable < first + BLOCK_ROWS)] - first
        block_labels[failed], block_confidences[failed] = -1, 0.0
        labels.append(block_labels)
        confidences.append(block_confidences)
        worker.job.checkpoint()
        worker.advance(len(block_labels))
    unreached = int((labels.view() < 0).sum()) - len(unreadable)
    return {"method": asked["method"], "images": len(images), "unreached": unreached, **details}


Scorer = Callable[[slice], np.ndarray]


def _scorer(
    store: Store,
    images: Collection,
    seeds: Seeds,
    asked: dict[str, Any],
    threads: int,
    settings: Settings,
) -> tuple[Scorer, dict[str, Any]]:
    """Return a function from rows to non-negative scores (b, C), rows of zeros where unreached, and what to record."""
    scores, method, coefficient = store.array("diffusion/scores"), asked["method"], asked["coefficient"]
    if method == "diffusion":
        return lambda rows: np.array(scores[rows]), {}
    nodes = Collection(store, "nodes")
    if method == "knn":
        vectors = nodes.array("vectors", seeds.nodes)
        _warn_of_all_voting(asked.get("k", DEFAULT_VOTERS), len(vectors))
        voters = {"n_neighbors": asked["k"], "by_class_size": True} if "k" in asked else {}
        options = {"n_classes": seeds.n_classes, **voters}
        return lambda rows: knn_scores(vectors, seeds.classes, images.array("vectors", rows), **options), {}
    descriptors = nodes.array("descriptors", seeds.nodes)
    training: dict[str, Any] = {"seed": settings.seed, "threads": threads, "device": torch_device(settings.device)}
    details: dict[str, Any] = {}
    if method == "fusion":
        details["coefficient"] = coefficient if coefficient is not None else _select(store, descriptors, seeds, training)
        if details["coefficient"] == 0:
            return lambda rows: np.array(scores[rows]), details
    if method == "graph-logistic":
        edges = EdgeSampler(open_graph(store), np.random.default_rng(settings.seed))
        training["smooth"] = Smoothness(asked["smoothness"], edges, lambda rows: nodes.array("descriptors", rows))
    model = train_logistic(descriptors, seeds.classes, n_classes=seeds.n_classes, **training)
    if method in ("logistic", "graph-logistic"):
        return lambda rows: softmax(model.log_probabilities(images.array("descriptors", rows))), details

    def fused(rows: slice) -> np.ndarray:
        log_logistic = model.log_probabilities(images.array("descriptors", rows))
        block = softmax(fuse(log_logistic, log_scores(scores[rows]), details["coefficient"]))
        return np.where(scores[rows].any(axis=1, keepdims=True), block, np.float32(0))

    return fused, details


def _warn_of_all_voting(k: int, labelled: int) -> None:
    if k >= labelled:
        logger.warning(
            "`k` is %d, but %d images are labelled: all of them vote on every image, so that how near they are decides only "
            "between classes of equal votes; give a `k` below that, or label more images",
            k,
            labelled,
        )


def _select(store: Store, descriptors: np.ndarray, seeds: Seeds, training: dict[str, Any]) -> float:
    parts = (store.array(f"diffusion/{name}") for name in ("folds", "held_out", "held_out_scores"))
    return select_coefficient(descriptors, seeds, *parts, **training)


def torch_device(device: str) -> str:
    """Return the device for torch: with ``"auto"`` the GPU where there is one."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
