"""Diffusing the labels over the graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion import (
    Diffusion,
    Needed,
    check_alpha,
    check_normalization,
    check_precision,
    forecast,
    most_passes,
    resolve_device,
    rows_needed,
    warn_of_unsolved,
    write_scores,
)
from ..errors import BadInput
from ..graph import Graph
from ..memory import MemoryBudget, StagePlan
from ..parallel import resolve_threads
from ..store import Store, append_strings
from .collection import Collection
from .graph import open_graph, query_table
from .labels import Labels, read_labels, readable_labels, seed_role
from .plans import plan_diffuse
from .prior import Prior
from .selection import MAX_ITER, Seeds, Selection, held_out_bytes, hold_out, select_iterations
from .settings import Record, Settings, Worker, open_store, run_stage


def diffuse(
    store: Store | str | Path,
    *,
    labels: str | Path | Labels,
    classes: str | Path | None = None,
    rows: str = "auto",
    n_iter: int | None = None,
    normalization: str = "columns",
    reset: bool = False,
    power: float = 2.0,
    prior: str | Path | None = None,
    prior_power: float = 1.0,
    alpha: float | None = None,
    solver: str = "iterate",
    tolerance: float = 1e-5,
    max_steps: int = 1000,
    precision: str = "float32",
    settings: Settings | None = None,
) -> Record:
    """Diffuse the labels of a few images: L_{t+1} = η(W L_t).

    Parameters
    ----------
    store : Store or str or Path
        A store with a graph.
    labels : str or Path or Labels
        CSV with ``path,label`` or ``row,label``: the seeds; or what `readable_labels` left of one.
    classes : str or Path, optional
        Text file with all classes, one per line. Default: those of the CSV, sorted.
    rows : {"auto", "tests", "nodes"}
        Which images get scores: the tests, by their neighbors, or all nodes of the graph. ``"auto"``: tests where there are any.
    n_iter : int, optional
        Number of iterations. Default: chosen by cross-validation on the seeds; where no class has two, by coverage. Conjugate
        gradients have none.
    normalization : {"columns", "none", "rows", "sinkhorn", "gamma"}
        η, as in `ooc_diffusion.diffuse`. Default ``"columns"``.
    reset : bool
        Set labelled images back to their labels after each iteration. Default False.
    power : float
        r of ``"gamma"``. Default 2.
    prior : str or Path, optional
        How frequent the classes are, for ``"columns"`` and ``"sinkhorn"``: a CSV with the columns ``class,frequency``, or
        ``"estimate"``: the mean of the probabilities that logistic regression on the seeds predicts for all nodes of the graph.
        Default: all classes are equally frequent.
    prior_power : float
        Power that these frequencies are raised to, 0 or more. Default 1.
    alpha, solver, tolerance, max_steps
        Zhou's diffusion, as in `ooc_diffusion.diffuse`. Default: none.
    precision : {"float32", "bfloat16"}
        How L is stored, as in `ooc_diffusion.diffuse`. Default ``"float32"``.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The record of the stage. Arrays: ``diffusion/scores`` (rows, C) float32, ``diffusion/seed_nodes`` (m,) int64,
        ``diffusion/seed_classes`` (m,) int64, what cross-validation left for the fusion, and ``diffusion/prior`` (C,) float64,
        the shares of the classes before they are raised to a power, where there is a prior.
    """
    settings = settings or Settings()
    target = open_store(store)
    graph = open_graph(target)
    if not isinstance(labels, Labels):
        labels = readable_labels(read_labels(labels, target, classes=classes), target, labels)
    given = labels
    rows = _resolve_rows(rows, target)
    check_normalization(normalization, power)
    if n_iter is not None and n_iter < 0:
        raise BadInput(f"`n_iter` is {n_iter}; give 0 or more iterations")
    # labelled images are rows of their role, and the first nodes of the graph where that role is seeds, all of them otherwise
    eta = {"normalization": normalization, "reset": reset, "power": power}
    zhou = {"alpha": alpha, "solver": solver, "tolerance": tolerance, "max_steps": max_steps}
    seeds = Seeds(given.rows, given.classes, len(given.class_names), {**eta, **zhou, "precision": precision})
    asked = None if prior is None else Prior.of(prior, prior_power, given.class_names, normalization)
    if solver != "iterate" and n_iter is not None:
        raise BadInput(f"`solver` {solver} has no number of iterations; leave out `n_iter`, or take `solver` iterate")
    most_iter = (MAX_ITER if solver == "iterate" else 0) if n_iter is None else n_iter
    what = seeds.diffusion(most_iter, None)
    check_alpha(what)
    check_precision(precision, unskipped=what.unskipped)
    device = resolve_device(settings.device, unskipped=what.unskipped, precision=precision)
    estimated = asked is not None and asked.estimated
    parameters: dict[str, Any] = {
        "labels": _digest(given),
        "class_names": given.class_names,
        "rows": rows,
        "n_iter": n_iter,
        **eta,
        "seed": settings.seed,
    }
    if device != "cpu":
        # scores from a GPU have other last bits; left out on the CPU, so that stores from before there was a choice stay good
        parameters["device"] = device.partition(":")[0]
    if precision != "float32":
        parameters["precision"] = precision  # left out for the same reason
    if asked:
        parameters |= asked.parameters
    if alpha is not None:
        parameters |= zhou
    inputs = [f"graph/{name}" for name in ("indptr", "indices", "row_scale", "position")]
    if estimated:
        inputs += [f"{role}/descriptors" for role in Collection(target, "nodes").roles]
    if rows == "tests":
        inputs.append("graph/query_ids" if "graph/query_ids" in target else "tests/neighbor_ids")
    return run_stage(
        target,
        "diffuse",
        settings,
        plan=_plan(target, graph, what, rows, estimated=estimated, device=device, settings=settings),
        parameters=parameters,
        inputs=inputs,
        total=seeds.n_classes,
        unit="classes",
        work=lambda worker: _diffuse(
            worker,
            target,
            graph,
            given,
            asked.applied(worker, target, seeds, settings) if asked else seeds,
            rows,
            n_iter,
            settings.seed,
            device,
        ),
        forecast=lambda: {
            "planned": _forecast(
                graph,
                seeds.diffusion(most_iter, _queries(target, rows)),
                settings.budget,
                resolve_threads(settings.threads),
                device,
            )
        },
    )


def _resolve_rows(rows: str, store: Store) -> str:
    """Return which images get scores, or raise `BadInput`."""
    if rows not in ("auto", "tests", "nodes"):
        raise BadInput(f"rows {rows!r} is not one of auto, tests, nodes")
    has_tests = "tests/neighbor_ids" in store
    if rows == "tests" and not has_tests:
        raise BadInput(f"{store.path} has no neighbors of tests; extract them with --role tests, or take --rows nodes")
    return ("tests" if has_tests else "nodes") if rows == "auto" else rows


def _plan(
    store: Store, graph: Graph, what: Diffusion, rows: str, *, estimated: bool, device: str, settings: Settings
) -> StagePlan:
    return plan_diffuse(
        graph.n,
        graph.nnz,
        what.n_classes,
        most_passes(what),
        rows=len(query_table(store)) if rows == "tests" else graph.n,
        budget=settings.budget,
        folds=5,
        held_out=held_out_bytes(len(what.seeds), what.n_classes, what.n_iter),
        n_seeds=len(what.seeds),
        weighted=graph.weights is not None,
        coupled=what.coupled,
        zhou=None if what.alpha is None else what.solver,
        estimated=store.entry("background/descriptors").shape[1] if estimated else 0,
        device=device,
        precision=what.precision,
    )


def _diffuse(
    worker: Worker,
    store: Store,
    graph: Graph,
    given: Labels,
    seeds: Seeds,
    rows: str,
    n_iter: int | None,
    seed: int,
    device: str,
) -> dict[str, Any]:
    queries = _queries(store, rows)
    chosen, how = _choose(worker, graph, seeds, queries, n_iter, seed, device)
    worker.job.put("diffusion/seed_nodes", seeds.nodes)
    worker.job.put("diffusion/seed_classes", seeds.classes)
    what = seeds.diffusion(chosen, queries)
    needed = rows_needed(graph, what) if device == "cpu" and not what.unskipped else None
    planned = _forecast(graph, what, worker.budget, worker.threads, device, needed)
    details = write_scores(
        worker.job,
        graph,
        what,
        name="diffusion/scores",
        budget=worker.budget,
        threads=worker.threads,
        device=device,
        needed=needed,
        advance=worker.advance,
    )
    warn_of_unsolved(details, what)
    return {
        "class_names": given.class_names,
        "seeds": len(given.rows),
        "seed_role": seed_role(store),
        "rows": rows,
        "n_iter": chosen,
        "n_iter_chosen_by": how,
        **details,
        "planned": planned,
    }


def _queries(store: Store, rows: str) -> np.ndarray | None:
    return query_table(store)[:, : store.parameters("graph")["k"]] if rows == "tests" else None


def _forecast(
    graph: Graph, what: Diffusion, budget: MemoryBudget, threads: int, device: str, needed: Needed | None = None
) -> list[dict[str, Any]]:
    return forecast(graph, what, budget=budget, threads=threads, needed=needed) if device == "cpu" else []


def _choose(
    worker: Worker, graph: Graph, seeds: Seeds, queries: np.ndarray | None, n_iter: int | None, seed: int, device: str
) -> tuple[int, str]:
    """Choose the iterations and write what the fusion needs, or find what an interrupted run had chosen."""
    job = worker.job
    chosen = job.array("diffusion/n_iter", "<i8", (1,))
    if chosen.rows == 0:
        selection = _select(worker, graph, seeds, queries, n_iter, seed, device)
        job.put("diffusion/folds", selection.folds)
        job.put("diffusion/held_out", selection.held_out)
        job.put("diffusion/held_out_scores", selection.held_out_scores)
        append_strings(job, "diffusion/chosen_by", [selection.how])
        chosen.append(np.array([selection.n_iter], np.int64))
        job.checkpoint(now=True)
    how = job.array("diffusion/chosen_by_bytes", "|u1", (None,)).view().tobytes().decode()
    return int(chosen.view()[0]), how


def _select(
    worker: Worker, graph: Graph, seeds: Seeds, queries: np.ndarray | None, n_iter: int | None, seed: int, device: str
) -> Selection:
    options: dict[str, Any] = {"seed": seed, "budget": worker.budget, "threads": worker.threads, "device": device}
    if seeds.eta.get("solver") == "conjugate-gradient":
        return replace(hold_out(graph, seeds, 0, **options), how="closed form")
    if n_iter is None:
        return select_iterations(graph, seeds, queries, **options)
    return hold_out(graph, seeds, n_iter, **options)


def _digest(labels: Labels) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(labels.rows.tobytes() + labels.classes.tobytes())
