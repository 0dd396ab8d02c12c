"""Completing the neighbor table with the seeds, and building W from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..graph import Graph, write_graph
from ..neighbors import locality_order, merge_neighbors, search
from ..store import Store
from .plans import BLOCK_ROWS, plan_graph
from .settings import ROLES, Record, Settings, Worker, open_store, run_stage

WEIGHTINGS = ("constant", "gaussian")


def graph(
    store: Store | str | Path,
    *,
    k: int | None = None,
    weighting: str = "constant",
    sigma: float = 0.5,
    settings: Settings | None = None,
) -> Record:
    """Complete, symmetrize and normalize the graph W = D⁻¹(W0 + W0ᵀ).

    Parameters
    ----------
    store : Store or str or Path
        A store with neighbor tables.
    k : int, optional
        Neighbors per node, at most those that were searched for. Default: as many.
    weighting : {"constant", "gaussian"}
        Weight of an edge of W0: 1, or exp(-x² / σ²) with x the distance of the unit vectors. Default ``"constant"``.
    sigma : float
        σ of the Gaussian, default 0.5.
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
    are found by exact search in the seeds, and each row keeps the k best of its two lists.
    """
    settings = settings or Settings()
    target = open_store(store)
    searched = target.parameters("neighbors.background")["k"]
    k = searched if k is None else k
    _require_same_search(target)
    if not 1 <= k <= searched:
        raise BadInput(f"k is {k}, but {searched} neighbors were searched for; give at most that, or run neighbors again")
    if weighting not in WEIGHTINGS:
        raise BadInput(f"weighting {weighting!r} is not one of {', '.join(WEIGHTINGS)}")
    if sigma <= 0:
        raise BadInput(f"sigma is {sigma}; give a distance above 0")
    n_background, dim = target.entry("background/vectors").shape
    n_seeds = target.entry("seeds/vectors").shape[0] if "seeds/vectors" in target else 0
    weighted = weighting != "constant"
    plan = plan_graph(
        n_background + n_seeds,
        k,
        budget=settings.budget,
        n_seeds=n_seeds,
        dim=dim,
        tests=target.entry("tests/neighbor_ids").shape[0] if "tests/neighbor_ids" in target else 0,
        weighted=weighted,
        threads=settings.threads,
    )
    parameters = {"k": k, "weighting": weighting} | ({"sigma": sigma} if weighted else {})
    return run_stage(
        target,
        "graph",
        settings,
        plan=plan,
        parameters=parameters,
        inputs=_inputs(target, n_seeds > 0),
        total=n_background + n_seeds,
        unit="nodes",
        work=lambda worker: _build(worker, target, k, sigma if weighted else None),
    )


def _require_same_search(store: Store) -> None:
    """Refuse tables of different k or index, which an interrupted `neighbors` leaves behind."""
    for role in ROLES[1:]:
        stage = f"neighbors.{role}"
        if stage in store.manifest.stages and store.parameters(stage) != store.parameters("neighbors.background"):
            raise BadInput(
                f"{store.path}: the neighbors of {role} were searched otherwise than the background; run neighbors again"
            )


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
    return [*names, "background/centroids", *(f"{role}/vectors" for role in roles if seeds)]


def _build(worker: Worker, store: Store, k: int, sigma: float | None) -> dict[str, Any]:
    if "seeds/neighbor_ids" in store:
        ids, similarities = _complete(worker, store, k)
        lists = np.concatenate([store.array("seeds/lists"), store.array("background/lists")])
    else:
        ids, similarities = store.array("background/neighbor_ids"), store.array("background/similarities")
        lists = store.array("background/lists")
    ids, similarities = ids[:, :k], similarities[:, :k]
    centroids = store.array("background/centroids")
    # on disk at once, so that building has its memory
    order = worker.job.put("graph/order", locality_order(lists, len(centroids))[0]) if len(centroids) else None
    weights = None if sigma is None else _gaussian(worker, ids, similarities, sigma)
    checked = write_graph(
        worker.job, ids, weights=weights, order=order, budget=worker.budget, threads=worker.threads, advance=worker.advance
    )
    return {"nodes": len(ids), "k": k, **checked}


def _complete(worker: Worker, store: Store, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Merge, row by row, what was found among the seeds with what was found among the background."""
    n_seeds = len(store.array("seeds/vectors"))
    rows = n_seeds + len(store.array("background/vectors"))
    ids = worker.job.array("graph/neighbor_ids", "<i4", (rows, k))
    similarities = worker.job.array("graph/similarities", "<f4", (rows, k))
    for role, first_row in (("seeds", 0), ("background", n_seeds)):
        done = ids.rows - first_row
        for block_ids, block in _merged(store, role, k, max(0, done)):
            ids.append(block_ids)
            similarities.append(block)
            worker.job.checkpoint()
    if "tests/neighbor_ids" in store:
        queries = worker.job.array("graph/query_ids", "<i4", (len(store.array("tests/vectors")), k))
        for block_ids, _ in _merged(store, "tests", k, queries.rows):
            queries.append(block_ids)
            worker.job.checkpoint()
    return ids.view(), similarities.view()


def _merged(store: Store, role: str, k: int, start: int) -> Any:
    seeds, queries = store.array("seeds/vectors"), store.array(f"{role}/vectors")
    found_ids, found = store.array(f"{role}/neighbor_ids"), store.array(f"{role}/similarities")
    row = start
    for ids, similarities in search(seeds, queries, k=min(k, len(seeds)), start=start):
        rows = slice(row, row + len(ids))
        background = np.where(found_ids[rows] < 0, np.int32(-1), found_ids[rows] + np.int32(len(seeds)))
        yield merge_neighbors(ids, similarities, background, found[rows], k=k)
        row = rows.stop


def _gaussian(worker: Worker, ids: np.ndarray, similarities: np.ndarray, sigma: float) -> np.ndarray:
    weights = worker.job.array("table/weights", "<f4", ids.shape, scratch=True)
    for first in range(weights.rows, len(ids), BLOCK_ROWS):
        # unit vectors: x² = 2 - 2 s, which rounding may take below 0
        squared = np.maximum(0.0, 2.0 - 2.0 * similarities[first : first + BLOCK_ROWS].astype(np.float64))
        weights.append(np.where(ids[first : first + BLOCK_ROWS] < 0, 0.0, np.exp(-squared / sigma**2)).astype(np.float32))
    return weights.view()
