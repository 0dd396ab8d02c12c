"""The neighbor tables: the background among itself, seeds and tests among the background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..neighbors import (
    Inverted,
    assign_lists,
    choose_index,
    measure_recall,
    n_lists,
    resolve_device,
    search,
    train_centroids,
)
from ..store import Store
from .plans import BLOCK_ROWS, EXTRA_NEIGHBORS, plan_neighbors
from .settings import ROLES, Record, Settings, Worker, open_store, run_stage

DEFAULT_K = 30
_RECALL_ROWS = 500


def neighbors(store: Store | str | Path, *, k: int = DEFAULT_K, index: str = "auto", settings: Settings | None = None) -> Record:
    """Find the nearest neighbors of every image among the background.

    Parameters
    ----------
    store : Store or str or Path
        A store with ``background/vectors``.
    k : int
        Neighbors per image, itself included where it is found. Two more are stored, for the merge. Default 30.
    index : {"auto", "Flat", "IVFFlat"}
        Exact search, or 4 √n inverted lists of which 256 (at most 3/4) are visited. ``"auto"`` is exact up to 100 000 images.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The records of the stages ``neighbors.<role>``. Arrays, for each role: ``<role>/neighbor_ids`` (n, k + 2) int32, best
        first, -1 = none; ``<role>/similarities`` (n, k + 2) float32; ``<role>/lists`` (n,) int32; and
        ``background/centroids`` (lists, d) float32.

    Notes
    -----
    Section 3.5 and appendix D of the paper: the blocks W_BB, W_LB and that of the tests, by inner product of unit vectors.
    """
    settings = settings or Settings()
    target = open_store(store)
    n = target.entry("background/vectors").shape[0]
    if k < 1:
        raise BadInput(f"k is {k}; give at least 1 neighbor")
    if k >= n:
        raise BadInput(f"k is {k}, but there are only {n} background images; give a k of at most {n - 1}")
    roles = [role for role in ROLES if f"{role}/vectors" in target]
    return {role: _search_role(target, role, k, choose_index(n, index), settings) for role in roles}


def open_inverted(store: Store) -> Inverted | None:
    """Return the inverted lists of the background; None where it is too small to have any."""
    centroids = store.array("background/centroids")
    return Inverted(centroids, store.array("background/lists")) if len(centroids) else None


def search_background(store: Store) -> Inverted | None:
    """Return the inverted lists where the background was searched by them, None where the search was exact."""
    return open_inverted(store) if store.parameters("neighbors.background")["index"] == "IVFFlat" else None


def _search_role(store: Store, role: str, k: int, index: str, settings: Settings) -> Record:
    n, dim = store.entry("background/vectors").shape
    q = store.entry(f"{role}/vectors").shape[0]
    background = role == "background"
    inputs = ["background/vectors"]
    if not background:
        inputs.append(f"{role}/vectors")
        if not settings.dry_run:
            inputs += ["background/centroids", "background/lists"]
    device = resolve_device(settings.device)
    options: dict[str, Any] = {"budget": settings.budget, "device": device, "threads": settings.threads}
    plan = plan_neighbors(n, q, dim, k=k, index=index, train=background, **options)
    return run_stage(
        store,
        f"neighbors.{role}",
        settings,
        plan=plan,
        parameters={"k": k, "index": index, "seed": settings.seed, "device": device},
        inputs=inputs,
        total=q,
        unit="images",
        work=lambda worker: _find(worker, store, role, k, index, device, settings.seed),
    )


def _find(worker: Worker, store: Store, role: str, k: int, index: str, device: str, seed: int) -> dict[str, Any]:
    vectors, queries = store.array("background/vectors"), store.array(f"{role}/vectors")
    inverted = _assign(worker, store, role, queries, seed)
    width = min(k + EXTRA_NEIGHBORS, len(vectors))
    ids = worker.job.array(f"{role}/neighbor_ids", "<i4", (len(queries), width))
    similarities = worker.job.array(f"{role}/similarities", "<f4", (len(queries), width))
    worker.advance(ids.rows)
    lists = inverted if index == "IVFFlat" else None
    for block_ids, block in search(vectors, queries, k=width, inverted=lists, device=device, start=ids.rows):
        ids.append(block_ids)
        similarities.append(block)
        worker.job.checkpoint()
        worker.advance(len(block))
    if role != "background" or index == "Flat":
        return {"images": len(queries), "k": k, "index": index}
    recall = measure_recall(vectors, ids.view(), k=k, n_samples=_RECALL_ROWS, seed=seed)
    return {"images": len(queries), "k": k, "index": index, "recall": recall}


def _assign(worker: Worker, store: Store, role: str, queries: np.ndarray, seed: int) -> Inverted | None:
    """Train the inverted lists (background) and assign every image to one; they order the graph also where search is exact."""
    if role == "background":
        dim = queries.shape[1]
        trained = train_centroids(queries, seed=seed) if n_lists(len(queries)) else np.empty((0, dim), np.float32)
        centroids = worker.job.put("background/centroids", trained)
    else:
        centroids = store.array("background/centroids")
    lists = worker.job.array(f"{role}/lists", "<i4", (len(queries),))
    for first in range(lists.rows, len(queries), BLOCK_ROWS):
        block = queries[first : first + BLOCK_ROWS]
        lists.append(assign_lists(block, centroids) if len(centroids) else np.zeros(len(block), np.int32))
    worker.job.checkpoint(now=True)
    if len(centroids) == 0:
        return None
    return Inverted(centroids, lists.view() if role == "background" else store.array("background/lists"))
