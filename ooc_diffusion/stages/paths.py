"""Diffusion paths: from which seed, and over which images, a label came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion import Diffusion, forecast, walk_back, write_scores
from ..errors import BadInput
from ..graph import Graph
from ..images import printable
from ..parallel import resolve_threads
from ..store import Store
from .collection import Collection
from .graph import open_graph, query_table
from .plans import BLOCK_ROWS, plan_paths
from .settings import Record, Settings, Worker, open_store, run_stage
from .walk_output import Wanted, check_walk_folder, write_walks

# More rows of thumbnails nobody looks at, and those of a page are in memory together.
MOST_IMAGES = 200
_ITERATES = "paths/iterates"


def paths(
    store: Store | str | Path,
    *,
    output: str | Path,
    images: Sequence[str] = (),
    rows: Sequence[int] = (),
    number: int = 12,
    class_name: str | None = None,
    command: str = "",
    settings: Settings | None = None,
) -> Record:
    """Walk back from images to the seeds that their labels came from.

    Parameters
    ----------
    store : Store or str or Path
        A store with predictions.
    output : str or Path
        Folder to write: ``paths.csv``; where there are images also a picture for each walk, and ``paths.html``.
    images : sequence of str
        Names of images: of tests where these have scores, else of nodes of the graph.
    rows : sequence of int
        Images by their number among these.
    number : int
        How many are drawn from those with a prediction and without a given label, where none is named. Default 12.
    class_name : str, optional
        Walk for this class besides the predicted one. Default: the true class where it is known.
    command : str
        The command line, for the page.
    settings : Settings, optional
        Options of the run. An earlier run on other images is replaced in any case; ``overwrite`` replaces the output.

    Returns
    -------
    dict
        The record of the stage. Arrays: ``paths/nodes`` (w, T + 1) int64, from the seed on, -1 where no label of the class has
        come to the image; ``paths/shares`` (w, T + 1) float32, see `walk_back`.

    Raises
    ------
    BadInput
        Where nothing was classified; with Sinkhorn's η, whose scales of rows and columns follow from all entries; and with
        Zhou's α, where each iteration adds L_0.

    Notes
    -----
    Section 4.7 of the paper. The columns of the classes that are asked for are diffused again, on the CPU, and their L_0 .. L_T
    kept on disk meanwhile; where η takes all columns, or the seeds are reset, those of all classes.
    """
    settings = settings or Settings()
    target = open_store(store)
    graph = open_graph(target)
    _require_paths(target)
    check_walk_folder(output, overwrite=settings.overwrite)
    diffused = target.record("diffuse")
    pictured = Collection(target, diffused["rows"])
    wanted = _wanted(target, pictured, _chosen(target, pictured, images, rows, number, settings.seed), class_name)
    diffusion, labels = _diffusion(target, wanted)
    plan = plan_paths(
        graph.n,
        graph.nnz,
        len(labels),
        diffusion.n_iter,
        walks=len(wanted),
        budget=settings.budget,
        n_seeds=len(diffusion.seeds),
        weighted=graph.weights is not None,
        precision=diffusion.precision,
        coupled=diffusion.coupled,
    )
    parameters = {
        "walks": [[walk.row, walk.label, walk.kind] for walk in wanted],
        "rows": diffused["rows"],
        "n_iter": diffusion.n_iter,
        "precision": diffusion.precision,
    }
    inputs = [f"graph/{name}" for name in ("indptr", "indices", "row_scale", "position", "order")]
    inputs += ["diffusion/seed_nodes", "diffusion/seed_classes", "predictions/labels"]
    record = run_stage(
        target,
        "paths",
        replace(settings, overwrite=True),
        plan=plan,
        parameters=parameters,
        inputs=inputs,
        total=len(labels),
        unit="classes",
        work=lambda worker: _walk(worker, target, graph, wanted, diffusion, labels),
        forecast=lambda: {
            "planned": forecast(graph, diffusion, budget=settings.budget, threads=resolve_threads(settings.threads))
        },
    )
    if settings.dry_run:
        return record
    return {**record, **write_walks(target, wanted, output, command=command)}


def _require_paths(store: Store) -> None:
    eta = store.parameters("diffuse")
    why = None
    if "alpha" in eta:
        why = "--alpha, which adds the seeds anew in each iteration"
    elif eta["normalization"] == "sinkhorn":
        why = "--normalization sinkhorn, whose scales follow from all entries, so that no neighbor has a share of its own"
    if why is not None:
        raise BadInput(
            f"{store.path} was diffused with {why}: there are no paths; run diffuse with another normalization, no alpha"
        )


def _chosen(store: Store, images: Collection, names: Sequence[str], rows: Sequence[int], number: int, seed: int) -> list[int]:
    """Return the images to walk from, each once."""
    found = list(rows)
    for row in rows:
        if not 0 <= row < len(images):
            raise BadInput(f"{row} is not a row of the {len(images)} images; rows go from 0 to {len(images) - 1}")
    for name in names:
        row = images.find(name.removeprefix("./"))
        if row < 0:
            among = " and ".join(images.roles)
            raise BadInput(f"no image of the {among} has the path {printable(name)!r}; paths are relative, as {images.name(0)!r}")
        found.append(row)
    found = list(dict.fromkeys(found)) or _drawn(store, number, seed)
    if len(found) > MOST_IMAGES:
        raise BadInput(f"{len(found)} images are more than the {MOST_IMAGES} that are shown at once; give fewer")
    return found


def _drawn(store: Store, number: int, seed: int) -> list[int]:
    """Draw images that were given a label by the diffusion, in one pass over the predictions."""
    labels, seeds = store.array("predictions/labels"), store.array("diffusion/seed_nodes")
    in_graph = store.record("diffuse")["rows"] == "nodes"
    rng = np.random.default_rng(seed)
    best: list[tuple[float, int]] = []
    for first in range(0, len(labels), BLOCK_ROWS):
        eligible = np.asarray(labels[first : first + BLOCK_ROWS]) >= 0
        if in_graph:
            eligible[seeds[(seeds >= first) & (seeds < first + len(eligible))] - first] = False
        keys = rng.random(len(eligible))
        rows = np.flatnonzero(eligible)
        rows = rows[np.argsort(keys[rows])[:number]]
        best = sorted(best + [(float(keys[row]), first + int(row)) for row in rows])[:number]
    if not best:
        raise BadInput(f"{store.path}: no image was given a label by the diffusion; there is nothing to walk back from")
    return sorted(row for _, row in best)


def _wanted(store: Store, images: Collection, rows: list[int], class_name: str | None) -> list[Wanted]:
    """Return the walks from images: for the predicted class, and for the given or the true one where that differs."""
    names: list[str] = store.record("diffuse")["class_names"]
    if class_name is not None and class_name not in names:
        raise BadInput(f"class {printable(class_name)!r} is not among the classes of the labels, such as {names[0]!r}")
    predicted, truth = store.array("predictions/labels"), images.true_classes(rows)
    walks = []
    for row, true in zip(rows, truth, strict=True):
        label = int(predicted[row])
        other, kind = (true, "true") if class_name is None else (class_name, "given")
        if label >= 0:
            walks.append(Wanted(row, label, "predicted"))
        if other in names and names.index(other) != label:
            walks.append(Wanted(row, names.index(other), kind))
    if not walks:
        raise BadInput("the images have no predicted class: no label has come to them; give others, or --class")
    return walks


def _diffusion(store: Store, wanted: list[Wanted]) -> tuple[Diffusion, list[int]]:
    """Return the diffusion of the classes of some walks, every iteration and node of it, and the class of each column."""
    nodes, classes = store.arrays("diffusion/seed_nodes", "diffusion/seed_classes")
    eta = store.parameters("diffuse")
    if eta["reset"] or eta["normalization"] not in ("columns", "none"):  # an entry depends on all classes
        n_classes = len(store.record("diffuse")["class_names"])
        return Diffusion(
            np.array(nodes),
            np.array(classes),
            n_classes,
            store.record("diffuse")["n_iter"],
            every_iteration=True,
            prior=np.array(store.array("diffusion/prior")) if "diffusion/prior" in store else None,
            **{name: eta[name] for name in ("normalization", "reset", "power")},
        ), list(range(n_classes))
    labels = sorted({walk.label for walk in wanted})
    kept = np.isin(classes, labels)
    return Diffusion(
        np.array(nodes[kept]),
        np.searchsorted(labels, classes[kept]),
        len(labels),
        store.record("diffuse")["n_iter"],
        normalization="none",
        every_iteration=True,
        precision=store.parameters("diffuse").get("precision", "float32"),
    ), labels


def _walk(
    worker: Worker, store: Store, graph: Graph, wanted: list[Wanted], diffusion: Diffusion, labels: list[int]
) -> dict[str, Any]:
    job, kept = worker.job, diffusion.n_iter + 1
    # begun as scratch, so that it is given back when the walks are published
    iterates = job.array(_ITERATES, "<f4", (kept * graph.n, len(labels)), scratch=True)
    options: dict[str, Any] = {"budget": worker.budget, "threads": worker.threads, "advance": worker.advance}
    details = write_scores(job, graph, diffusion, name=_ITERATES, **options)
    L = iterates.view().reshape(kept, graph.n, len(labels))
    tests = store.record("diffuse")["rows"] == "tests"
    table = query_table(store)[:, : store.parameters("graph")["k"]] if tests else None
    held = diffusion.seeds if diffusion.reset else None
    nodes, shares = np.full((len(wanted), kept), -1, np.int64), np.full((len(wanted), kept), np.nan, np.float32)
    for i, walk in enumerate(wanted):
        start = np.array([walk.row]) if table is None else table[walk.row]
        found = walk_back(graph, L, start, labels.index(walk.label), reset=held)
        if found is not None:
            nodes[i], shares[i] = found
    job.put("paths/nodes", nodes)
    job.put("paths/shares", shares)
    return {"walks": len(wanted), "without_path": int((nodes[:, 0] < 0).sum()), "n_iter": diffusion.n_iter, **details}
