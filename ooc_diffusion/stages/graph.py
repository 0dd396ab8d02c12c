"""Completing the neighbor table with the seeds, and building W from it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..graph import Graph, write_graph
from ..neighbors import locality_order
from ..parallel import resolve_threads
from ..store import Store
from .completion import DEFAULT_RECALL, How, by_lists, complete
from .graph_forecast import WORTH_A_FORECAST, graph_seconds, seed_copies_bytes
from .plans import BLOCK_ROWS, plan_graph
from .settings import ROLES, Record, Settings, Worker, open_store, run_stage

WEIGHTINGS = ("constant", "gaussian", "meaningful")
# Row sums and their inverses stay within float32.
_LEAST_WEIGHT = 1e-20

# From squared distances (rows, k), rising, NaN where there is no neighbor, to weights: float64.
Weigh = Callable[[np.ndarray], np.ndarray]


def graph(
    store: Store | str | Path,
    *,
    k: int | None = None,
    weighting: str = "constant",
    sigma: float = 0.5,
    rate: float = 10.0,
    mutual: bool = False,
    exact: bool = False,
    target_recall: float = DEFAULT_RECALL,
    settings: Settings | None = None,
) -> Record:
    """Complete, symmetrize and normalize the graph W = D⁻¹(W0 + W0ᵀ).

    Parameters
    ----------
    store : Store or str or Path
        A store with neighbor tables.
    k : int, optional
        Neighbors per node, at most those that were searched for. Default: as many.
    weighting : {"constant", "gaussian", "meaningful"}
        Weight of an edge of W0: 1, exp(-x² / σ²) with x the distance of the unit vectors, or that of meaningful neighbors (see
        Notes). Default ``"constant"``.
    sigma : float
        σ of the Gaussian, default 0.5.
    rate : float
        λ of meaningful neighbors, default 10.
    mutual : bool
        Keep an edge only where both images list each other; images may then lose all edges. Default False.
    exact : bool
        Look for the seeds among the neighbors of the background by exact search, where the background was searched by lists on
        disk. Default False: by the same lists, which takes a small part of the time; the recall is in the record.
    target_recall : float
        Compare each seed with as many of these lists as this recall takes on a sample. Default 0.99.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The record of the stage. Arrays: those of `Graph`; and where there are seeds apart from the background the completed
        tables ``graph/neighbor_ids`` and ``graph/similarities``, and ``graph/query_ids`` for the tests.

    Notes
    -----
    Section 3.5 and appendix D of the paper: the seeds come first (0 .. n_L - 1), the background is shifted by n_L; W_LL and W_BL
    are found by search in the seeds, and each row keeps the k best of its two lists. Only a seed nearer than the k-th neighbor of
    a background image can enter its list, so W_BL is a product of inverted lists with the seeds near them.

    Meaningful neighbors (4.2, after Omercevic et al., ICCV 2007) weigh s (1 - exp(-λ s))^k, where s falls linearly with the
    distance, from 1 at the first neighbor to 0 at the last. The exponent is taken as the paper prints it, k being the number of
    neighbors: (1 - exp(-λ s))^k is the chance that each of k exponential variables stays below s, which is how the cited work
    tells a neighbor from the background. All neighbors of a row weigh alike where their distances are equal. Weights below
    1e-20 count as 0.
    """
    settings = settings or Settings()
    target = open_store(store)
    searched = target.parameters("neighbors.background")["k"]
    k = searched if k is None else k
    _require_same_search(target)
    if not 1 <= k <= searched:
        raise BadInput(f"`k` is {k}, but {searched} neighbors were searched for; give at most that, or run neighbors again")
    check_weights(weighting, sigma=sigma, rate=rate)
    how = How(exact, target_recall, settings.seed)
    _check(target, how)
    n_background, dim = target.entry("background/vectors").shape
    n_seeds = target.entry("seeds/vectors").shape[0] if "seeds/vectors" in target else 0
    weigh: Weigh | None = {"gaussian": partial(_gaussian, sigma=sigma), "meaningful": partial(_meaningful, rate=rate)}.get(
        weighting
    )
    plan = plan_graph(
        n_background + n_seeds,
        k,
        budget=settings.budget,
        n_seeds=n_seeds,
        dim=dim,
        tests=target.entry("tests/neighbor_ids").shape[0] if "tests/neighbor_ids" in target else 0,
        weighted=weigh is not None,
        mutual=mutual,
        by_lists=by_lists(target),
        threads=settings.threads,
        width=target.entry("background/neighbor_ids").shape[1],
        exact=exact,
        **_searched_by(target),
    )
    options = {"constant": {}, "gaussian": {"sigma": sigma}, "meaningful": {"rate": rate}}[weighting]
    parameters: dict[str, Any] = {"k": k, "weighting": weighting, **options}
    if mutual:
        parameters["mutual"] = True  # else left out, so that stores from before there was a choice stay good
    if n_seeds and by_lists(target):
        parameters |= how.parameters

    def foretell() -> dict[str, Any]:
        if seed_copies_bytes(n_seeds, dim) > max(0, settings.budget.total - plan.least_bytes):
            return {}  # there is no memory to measure in
        threads = resolve_threads(settings.threads)
        return {"planned_seconds": graph_seconds(target, k, plan, how, budget=settings.budget, threads=threads)}

    worth = (n_background + n_seeds) * k >= WORTH_A_FORECAST
    return run_stage(
        target,
        "graph",
        settings,
        plan=plan,
        parameters=parameters,
        inputs=_inputs(target, n_seeds > 0),
        total=n_background + n_seeds,
        unit="nodes",
        work=lambda worker: {
            **(foretell() if worth and not worker.job.resumed else {}),
            **_build(worker, target, k, weigh, mutual, how),
        },
        forecast=foretell,
    )


def check_weights(weighting: str = "constant", *, sigma: float = 0.5, rate: float = 10.0) -> None:
    """Raise `BadInput` unless edges are weighted in a way that there is."""
    if weighting not in WEIGHTINGS:
        raise BadInput(f"weighting {weighting!r} is not one of {', '.join(WEIGHTINGS)}")
    if not sigma > 0:  # nor NaN
        raise BadInput(f"`sigma` is {sigma}; give a distance above 0")
    if not 0 < rate < np.inf:
        raise BadInput(f"`rate` is {rate}; give a number above 0")


def _searched_by(store: Store) -> dict[str, Any]:
    """Return what the plan takes of the lists on disk that the background was searched by."""
    if not by_lists(store):
        return {}
    dtype = np.dtype(store.entry("background/ordered").dtype)
    return {"precision": dtype.name, "probes": store.record("neighbors.background").get("probes")}


def _require_same_search(store: Store) -> None:
    """Refuse tables of different k or index, which an interrupted `neighbors` leaves behind."""
    for role in ROLES[1:]:
        stage = f"neighbors.{role}"
        if stage in store.manifest.stages and store.parameters(stage) != store.parameters("neighbors.background"):
            raise BadInput(
                f"{store.path}: the neighbors of {role} were searched otherwise than the background; run neighbors again"
            )


def _check(store: Store, how: How) -> None:
    if not 0 < how.target_recall <= 1:
        raise BadInput(f"`target_recall` is {how.target_recall}; give a share above 0, up to 1")
    if how.exact and "background/ordered" in store and store.entry("background/ordered").dtype != "<f4":
        raise BadInput("exact search needs float32, but the background was searched in float16; run neighbors again with float32")
    if how.target_recall != DEFAULT_RECALL and (how.exact or not by_lists(store)):
        raise BadInput("exact search finds all seeds; leave out `target_recall`, which is for lists on disk (index list-major)")


def query_table(store: Store) -> np.ndarray:
    """Return the neighbor ids of the tests among all nodes, at least k columns."""
    return store.array("graph/query_ids" if "graph/query_ids" in store else "tests/neighbor_ids")


def open_graph(store: Store) -> Graph:
    """Open the graph; `BadInput` where seeds or tests came after it was built, so that it does not speak of them."""
    graph = Graph(store)
    names = store.manifest.arrays
    _require_same_search(store)
    seeds = any(name.startswith("seeds/") for name in names)
    if seeds != ("graph/neighbor_ids" in names) or (seeds and "tests/vectors" in names and "graph/query_ids" not in names):
        raise BadInput(
            f"{store.path} got seeds or tests after its graph was built; run reduce and neighbors, then graph with --overwrite"
        )
    return graph


def _inputs(store: Store, seeds: bool) -> list[str]:
    roles = ["background", "seeds"] if seeds else ["background"]
    if seeds and "tests/neighbor_ids" in store:
        roles.append("tests")
    names = [f"{role}/{name}" for role in roles for name in ("neighbor_ids", "similarities", "lists")]
    if seeds and by_lists(store):
        names += ["background/list_starts", "background/order", "background/ordered"]
    return [*names, "background/centroids", *(f"{role}/vectors" for role in roles if seeds)]


def _build(worker: Worker, store: Store, k: int, weigh: Weigh | None, mutual: bool, how: How) -> dict[str, Any]:
    about: dict[str, Any] = {}
    with worker.clock.step("comparing"):
        _check_tables(worker, store, weighted=weigh is not None)
    if "seeds/neighbor_ids" in store:
        ids, similarities, about = complete(worker, store, k, how)
        lists = np.concatenate([store.array("seeds/lists"), store.array("background/lists")])
    else:
        ids, similarities = store.array("background/neighbor_ids"), store.array("background/similarities")
        lists = store.array("background/lists")
    ids, similarities = ids[:, :k], similarities[:, :k]
    centroids = store.array("background/centroids")
    with worker.clock.step("building"):
        # on disk at once, so that building has its memory
        order = worker.job.put("graph/order", locality_order(lists, len(centroids))[0]) if len(centroids) else None
        weights = None if weigh is None else _weights(worker, ids, similarities, weigh)
    checked = write_graph(
        worker.job,
        ids,
        weights=weights,
        order=order,
        budget=worker.budget,
        threads=worker.threads,
        mutual=mutual,
        advance=worker.advance,
        clock=worker.clock,
    )
    return {"nodes": len(ids), "k": k, **about, **checked}


def _check_tables(worker: Worker, store: Store, *, weighted: bool) -> None:
    """Compare the tables with their checksums: the check of the finished graph trusts them."""
    seeds = "seeds/neighbor_ids" in store
    for role in ROLES if seeds else ROLES[:1]:
        for name in ("neighbor_ids", "similarities") if seeds or weighted else ("neighbor_ids",):
            if f"{role}/{name}" in store:
                for _ in worker.checked_blocks(f"{role}/{name}", rows=BLOCK_ROWS, start=0):
                    pass


def _weights(worker: Worker, ids: np.ndarray, similarities: np.ndarray, weigh: Weigh) -> np.ndarray:
    """Write the weights of a table (N, k), float32, to disk; 0 where there is no neighbor."""
    weights = worker.job.array("table/weights", "<f4", ids.shape, scratch=True)
    for first in range(weights.rows, len(ids), BLOCK_ROWS):
        # unit vectors: x² = 2 - 2 s, which rounding may take below 0
        squared = np.maximum(0.0, 2.0 - 2.0 * similarities[first : first + BLOCK_ROWS].astype(np.float64))
        squared[ids[first : first + BLOCK_ROWS] < 0] = np.nan
        block = weigh(squared)
        weights.append(np.where(block >= _LEAST_WEIGHT, block, 0.0).astype(np.float32))
    return weights.view()


def _gaussian(squared: np.ndarray, sigma: float) -> np.ndarray:
    return np.exp(-squared / sigma**2)


def _meaningful(squared: np.ndarray, rate: float) -> np.ndarray:
    distances = np.sqrt(squared)
    found = ~np.isnan(distances)
    first = np.min(distances, axis=1, keepdims=True, initial=np.inf, where=found)
    last = np.max(distances, axis=1, keepdims=True, initial=0.0, where=found)
    span = last - first
    s = np.divide(last - distances, span, out=np.ones_like(distances), where=span > 0)
    return np.where(found, s * (1.0 - np.exp(-rate * s)) ** squared.shape[1], np.nan)
