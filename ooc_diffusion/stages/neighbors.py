"""The neighbor tables: the background among itself, seeds and tests among the background."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..memory import StagePlan
from ..neighbors import (
    INDEXES,
    Inverted,
    assign_lists,
    choose_index,
    draw_sample,
    measure_recall,
    n_lists,
    n_probes,
    probes_for,
    resolve_device,
    search,
    search_lists,
    train_centroids,
)
from ..store import Store
from .ordered_search import open_lists, search_among_itself, searches_at_once
from .plans import BLOCK_ROWS, EXTRA_NEIGHBORS, plan_neighbors
from .settings import ROLES, Record, Settings, Worker, open_store, run_stage

DEFAULT_K = 30
PRECISIONS = ("float32", "float16")
_MORE = "give more --probes, or a higher --target-recall, with --overwrite"


@dataclass(frozen=True)
class _How:
    """How neighbors are searched."""

    k: int
    index: str
    device: str
    seed: int
    precision: str
    probes: int | None
    target_recall: float | None
    min_recall: float | None

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines the result."""
        parameters = {"k": self.k, "index": self.index, "seed": self.seed, "device": self.device}
        chosen = {"probes": self.probes, "target_recall": self.target_recall}
        if self.precision != PRECISIONS[0]:
            parameters["precision"] = self.precision
        return parameters | {name: value for name, value in chosen.items() if value is not None}


def neighbors(
    store: Store | str | Path,
    *,
    k: int = DEFAULT_K,
    index: str = "auto",
    probes: int | None = None,
    target_recall: float | None = None,
    min_recall: float | None = None,
    precision: str = "float32",
    settings: Settings | None = None,
) -> Record:
    """Find the nearest neighbors of every image among the background.

    Parameters
    ----------
    store : Store or str or Path
        A store with ``background/vectors``.
    k : int
        Neighbors per image, itself included where it is found. Two more are stored, for the merge. Default 30.
    index : {"auto", "Flat", "IVFFlat", "list-major"}
        Exact search; or 4 √n inverted lists, some of which are visited: by faiss, in memory (``"IVFFlat"``), or list after list
        on disk, in any memory (``"list-major"``, on the CPU). ``"auto"`` is exact up to 100 000 images; above it is list-major,
        or ``"IVFFlat"`` where there is a GPU.
    probes : int, optional
        Lists that are visited for each image. Default: 256, at most 3/4 of them, as in the paper.
    target_recall : float, optional
        Visit as many lists as this recall takes on a sample, instead.
    min_recall : float, optional
        Fail where the recall that was measured is lower.
    precision : {"float32", "float16"}
        How ``"list-major"`` keeps the vectors of the background that it searches; half the disk, half the reading. Default
        ``"float32"``.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The records of the stages ``neighbors.<role>``. Arrays, for each role: ``<role>/neighbor_ids`` (n, k + 2) int32, best
        first, -1 = none; ``<role>/similarities`` (n, k + 2) float32; ``<role>/lists`` (n,) int32; and
        ``background/centroids`` (lists, d) float32. List-major leaves, too, ``background/order`` (n,) uint32, the ids by list,
        ``background/list_starts`` (lists + 1,) int64, and ``background/ordered`` (n, d), the vectors in that order.

    Notes
    -----
    Section 3.5 and appendix D of the paper: the blocks W_BB, W_LB and that of the tests, by inner product of unit vectors.
    Thousands of identical vectors share one list, and each of them has others of them as its neighbors.
    """
    settings = settings or Settings()
    target = open_store(store)
    n = target.entry("background/vectors").shape[0]
    if k < 1:
        raise BadInput(f"k is {k}; give at least 1 neighbor")
    if k >= n:
        raise BadInput(f"k is {k}, but there are only {n} background images; give a k of at most {n - 1}")
    device = resolve_device(settings.device)
    index = grown_index(target) if index == "auto" else index
    # "auto" takes the last
    chosen = choose_index(n, index, indexes=INDEXES if device == "cpu" else (*INDEXES[:-2], *reversed(INDEXES[-2:])))
    device = "cpu" if chosen == "list-major" else device
    how = _How(k, chosen, device, settings.seed, precision, probes, target_recall, min_recall)
    _check(how, n)
    roles = [role for role in ROLES if f"{role}/vectors" in target]
    records = {role: _search_role(target, role, how, settings) for role in roles}
    if "recall" in records["background"]:  # of a run before, too
        require_recall(records["background"]["recall"], min_recall)
    return records


def _check(how: _How, n: int) -> None:
    if how.precision not in PRECISIONS:
        raise BadInput(f"precision {how.precision!r} is not one of {', '.join(PRECISIONS)}")
    if how.index != "list-major" and how.precision != PRECISIONS[0]:
        raise BadInput(f"precision {how.precision} is for index list-major; {how.index} searches in float32")
    if how.index == "Flat" and (how.probes or how.target_recall):
        raise BadInput(
            "an exact search (index Flat) visits everything; leave out probes and target_recall, or choose another index"
        )
    if how.probes is not None and how.target_recall is not None:
        raise BadInput("give either probes or target_recall: the one follows from the other")
    if how.probes is not None and not 1 <= how.probes <= n_lists(n):
        raise BadInput(f"probes is {how.probes}; give from 1 to all {n_lists(n)} lists")
    for name, recall in (("target_recall", how.target_recall), ("min_recall", how.min_recall)):
        if recall is not None and not 0 < recall <= 1:
            raise BadInput(f"{name} is {recall}; give a share above 0, up to 1")


def grown_index(store: Store) -> str:
    """Return the index of a background that images were added to, which stays whatever their number, else ``"auto"``."""
    made = store.manifest.stages.get("neighbors.background", {"record": {}})
    return made["parameters"]["index"] if "added" in made["record"] else "auto"


def open_inverted(store: Store) -> Inverted | None:
    """Return the inverted lists of the background; None where it is too small to have any."""
    centroids = store.array("background/centroids")
    return Inverted(centroids, store.array("background/lists")) if len(centroids) else None


def search_background(store: Store) -> Inverted | None:
    """Return the inverted lists where the background was searched by them, None where the search was exact."""
    return None if store.parameters("neighbors.background")["index"] == "Flat" else open_inverted(store)


def _search_role(store: Store, role: str, how: _How, settings: Settings) -> Record:
    q = store.entry(f"{role}/vectors").shape[0]
    background = role == "background"
    inputs = ["background/vectors"]
    if not background:
        inputs.append(f"{role}/vectors")
        if not settings.dry_run:
            inputs += ["background/centroids", "background/lists"]
            if how.index == "list-major":
                inputs += ["background/list_starts", "background/order", "background/ordered"]
    return run_stage(
        store,
        f"neighbors.{role}",
        settings,
        plan=_plan(store, q, how, background, settings),
        parameters=how.parameters,
        inputs=inputs,
        total=2 * q,
        unit="images assigned or searched",
        work=lambda worker: _find(worker, store, role, how),
    )


def _plan(store: Store, q: int, how: _How, background: bool, settings: Settings) -> StagePlan:
    n, dim = store.entry("background/vectors").shape
    return plan_neighbors(
        n,
        q,
        dim,
        k=how.k,
        index=how.index,
        train=background,
        probes=how.probes,
        precision=how.precision,
        budget=settings.budget,
        device=how.device,
        threads=settings.threads,
    )


def _find(worker: Worker, store: Store, role: str, how: _How) -> dict[str, Any]:
    vectors, queries = store.array("background/vectors"), store.array(f"{role}/vectors")
    background = role == "background"
    inverted = _assign(worker, store, role, queries, how.seed)
    about: dict[str, Any] = {"images": len(queries), "k": how.k, "index": how.index}
    if how.index != "Flat":
        assert inverted is not None
        about["probes"] = _probes(how, vectors, inverted) if background else store.record("neighbors.background")["probes"]
    width = min(how.k + EXTRA_NEIGHBORS, len(vectors))
    if how.index == "list-major" and background:
        assert inverted is not None
        found = search_among_itself(worker, vectors, inverted, width=width, probes=about["probes"], precision=how.precision)
    else:
        found = _search_blocks(worker, store, role, how, inverted, about.get("probes"), width)
    if background:
        about["short"] = share_of_short(found, how.k)
    if background and how.index != "Flat":
        # not the sample that the probes were chosen on
        about["recall"] = measure_recall(draw_sample(vectors, k=how.k, seed=how.seed + 1), found)
        require_recall(about["recall"], how.min_recall)
    return about


def _probes(how: _How, vectors: np.ndarray, inverted: Inverted) -> int:
    if how.target_recall is not None:
        sample = draw_sample(vectors, k=how.k, seed=how.seed)
        return probes_for(sample, vectors, inverted.lists, inverted.centroids, target_recall=how.target_recall)
    return how.probes or n_probes(len(inverted.centroids))


def _search_blocks(
    worker: Worker, store: Store, role: str, how: _How, inverted: Inverted | None, probes: int | None, width: int
) -> np.ndarray:
    """Search the images of a role block by block, in their own order; return their table."""
    queries = store.array(f"{role}/vectors")
    ids = worker.job.array(f"{role}/neighbor_ids", "<i4", (len(queries), width))
    similarities = worker.job.array(f"{role}/similarities", "<f4", (len(queries), width))
    worker.advance(ids.rows)
    blocks: Iterator[tuple[np.ndarray, np.ndarray]]
    if how.index == "list-major" and probes is not None:
        at_once = searches_at_once(len(queries), queries.shape[1], width, probes, worker.budget, worker.threads)
        blocks = search_lists(open_lists(store), queries, k=width, probes=probes, threads=at_once, start=ids.rows)
    else:
        lists = None if how.index == "Flat" else inverted
        vectors = store.array("background/vectors")
        blocks = search(vectors, queries, k=width, inverted=lists, probes=probes, device=how.device, start=ids.rows)
    for block_ids, block in blocks:
        ids.append(block_ids)
        similarities.append(block)
        worker.job.checkpoint()
        worker.advance(len(block))
    return ids.view()


def share_of_short(ids: np.ndarray, k: int) -> float:
    """Return the share of the rows with less than k neighbors."""
    short = sum(int((ids[first : first + BLOCK_ROWS, k - 1] < 0).sum()) for first in range(0, len(ids), BLOCK_ROWS))
    return short / len(ids)


def require_recall(found: dict[str, float], min_recall: float | None, *, remedy: str = _MORE) -> None:
    """Raise `BadInput` where a recall that was measured is below what was asked for."""
    if min_recall is not None and found["recall"] < min_recall:
        raise BadInput(
            f"the recall is {found['recall']:.4f} ± {found['uncertainty']:.4f}, below the {min_recall} that was asked for; "
            f"{remedy}"
        )


def _assign(worker: Worker, store: Store, role: str, queries: np.ndarray, seed: int) -> Inverted | None:
    """Train the inverted lists (background) and assign every image to one; they order the graph also where search is exact."""
    if role == "background":
        dim = queries.shape[1]
        count = n_lists(len(queries))
        if worker.job.array("background/centroids", "<f4", (count, dim)).rows == 0:
            worker.job.put(
                "background/centroids", train_centroids(queries, seed=seed) if count else np.empty((0, dim), np.float32)
            )
            worker.job.checkpoint(now=True)
        centroids = worker.job.array("background/centroids", "<f4", (count, dim)).view()
    else:
        centroids = store.array("background/centroids")
    lists = worker.job.array(f"{role}/lists", "<i4", (len(queries),))
    worker.advance(lists.rows)
    for first in range(lists.rows, len(queries), BLOCK_ROWS):
        block = queries[first : first + BLOCK_ROWS]
        lists.append(assign_lists(block, centroids) if len(centroids) else np.zeros(len(block), np.int32))
        worker.advance(len(block))
        worker.job.checkpoint()
    worker.job.checkpoint(now=True)
    if len(centroids) == 0:
        return None
    return Inverted(centroids, lists.view() if role == "background" else store.array("background/lists"))
