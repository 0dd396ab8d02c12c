"""The neighbor tables: the background among itself, seeds and tests among the background."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, DoesNotFit
from ..memory import StagePlan
from ..neighbors import (
    MOST_GPU_SELECTED,
    Inverted,
    assign_lists,
    draw_sample,
    n_lists,
    n_probes,
    probes_for,
    recall_of_table,
    require_free,
    resolve_device,
    search,
    search_lists,
    train_centroids,
)
from ..store import Store
from .forecast import RoleForecast, SearchForecast, search_forecast
from .ordered_search import open_lists, rewrite_in_order, search_among_itself, searches_at_once
from .own_index import OwnIndex, search_own_index, try_index
from .own_table import OwnTable, copy_table
from .plans import BLOCK_ROWS, EXTRA_NEIGHBORS, plan_neighbors
from .search_options import (
    OF_FILE,
    PRECISIONS,
    SearchOptions,
    check_options,
    open_own,
    reopen_own,
    where_searched,
)
from .settings import ROLES, Record, Settings, Worker, open_store, run_stage
from .table_quality import require_recall, share_of_short, warn_of_low_recall

DEFAULT_K = 30


def neighbors(
    store: Store | str | Path,
    *,
    k: int = DEFAULT_K,
    index: str = "auto",
    probes: int | None = None,
    target_recall: float | None = None,
    min_recall: float | None = None,
    precision: str = "float32",
    table: str | Path | None = None,
    similarities: str | Path | None = None,
    table_width: int | None = None,
    index_file: str | Path | None = None,
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
        or ``"IVFFlat"`` where GPUs have the memory for it.
    probes : int, optional
        Lists that are visited for each image. Default: 256, at most 3/4 of them, as in the paper.
    target_recall : float, optional
        Visit as many lists as this recall takes on a sample, instead.
    min_recall : float, optional
        Fail where the recall that was measured is lower.
    precision : {"float32", "float16"}
        How ``"list-major"`` keeps the vectors of the background that it searches (half the disk, half the reading), or
        ``"IVFFlat"`` on a GPU. The record's ``recall`` then has ``visited``: what it would be in float32. Default ``"float32"``.
    table : str or Path, optional
        ``.npy`` file of shape (n, w >= k), integers: the neighbors of the background, best first, -1 = none, found elsewhere.
        They are taken in place of a search; seeds and tests are searched by ``index`` as always.
    similarities : str or Path, optional
        ``.npy`` file of shape (n, w), floats: the inner products of the table. Default: they are computed.
    table_width : int, optional
        The w of files without a header, int32 and float32. Default: the number at the end of names like ``x.int32`` and
        ``x.float32``, as in the files of the paper; all others are ``.npy`` files.
    index_file : str or Path, optional
        A file that ``faiss.write_index`` wrote, of an index by inner product or L2 that holds the vectors of the background in
        their order. Everything is searched with it, in a process of its own; ``probes`` counts its lists.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The records of the stages ``neighbors.<role>``. Arrays, for each role: ``<role>/neighbor_ids`` (n, k + 2) int32, best
        first, -1 = none, as wide as a ``table`` where that is less; ``<role>/similarities``, likewise, float32;
        ``<role>/lists`` (n,) int32; and ``background/centroids`` (lists, d) float32. List-major leaves, too,
        ``background/order`` (n,) uint32, the ids by list, ``background/list_starts`` (lists + 1,) int64, and
        ``background/ordered`` (n, d), the vectors in that order.

    Notes
    -----
    Section 3.5 and appendix D of the paper: the blocks W_BB, W_LB and that of the tests, by inner product of unit vectors.
    Thousands of identical vectors share one list, and each of them has others of them as its neighbors.
    """
    settings = settings or Settings()
    target = open_store(store)
    n, dim = target.entry("background/vectors").shape
    if k < 1:
        raise BadInput(f"`k` is {k}; give at least 1 neighbor")
    if k > n:
        raise BadInput(f"`k` is {k}, but there are only {n} background images; give a `k` of at most {n}")
    index = grown_index(target) if index == "auto" and index_file is None else index
    chosen, device = where_searched(n, dim, index if index_file is None else OF_FILE, settings, precision)
    own = open_own(table, similarities, table_width, index_file, index, n, k)
    how = SearchOptions(k, chosen, device, settings.seed, precision, probes, target_recall, min_recall, own)
    check_options(how, n)
    roles = [role for role in ROLES if f"{role}/vectors" in target]
    known = own is None and device == "cpu"
    ahead = search_forecast(target, settings, k=k, index=chosen, probes=probes, target_recall=target_recall) if known else None
    records = {role: _search_role(target, role, how, settings, ahead) for role in roles}
    if "recall" in records["background"]:  # of a run before, too
        require_recall(records["background"]["recall"], min_recall, better=how.better)
    return records


def search_parameters(n: int, dim: int, *, k: int, settings: Settings) -> dict[str, Any]:
    """Return the parameters of the stage for n images of ``dim`` values with the default options."""
    index, device = where_searched(n, dim, "auto", settings)
    return SearchOptions(k, index, device, settings.seed, PRECISIONS[0], None, None, None).parameters


def grown_index(store: Store) -> str:
    """Return the index of a background that images were added to, which stays whatever their number, else ``"auto"``."""
    made = store.manifest.stages.get("neighbors.background", {"record": {}})
    return made["parameters"]["index"] if "added" in made["record"] else "auto"


def open_inverted(store: Store) -> Inverted | None:
    """Return the inverted lists of the background; None where it is too small to have any."""
    centroids = store.array("background/centroids")
    return Inverted(centroids, store.array("background/lists")) if len(centroids) else None


def search_again(store: Store, roles: Sequence[str], settings: Settings) -> dict[str, Record]:
    """Search seeds and tests among the background as that was searched, or its neighbors taken; return the records by role."""
    how, again = _as_searched(store), replace(settings, overwrite=True)
    if isinstance(how.own, OwnIndex):
        how.own.require_same()
    return {role: _search_role(store, role, how, again) for role in roles}


def plan_again(store: Store, q: int, settings: Settings) -> StagePlan:
    """Plan such a search of q images."""
    return _plan(store, q, _as_searched(store), False, settings)


def _as_searched(store: Store) -> SearchOptions:
    made = store.parameters("neighbors.background")
    given: dict[str, Any] = {each.name: made.get(each.name) for each in fields(SearchOptions)}
    device, precision = resolve_device(made["device"]), made.get("precision", PRECISIONS[0])
    return SearchOptions(**given | {"device": device, "precision": precision, "own": reopen_own(made)})


def _search_role(store: Store, role: str, how: SearchOptions, settings: Settings, ahead: SearchForecast | None = None) -> Record:
    q = store.entry(f"{role}/vectors").shape[0]
    background = role == "background"
    inputs = ["background/vectors"]
    if not background:
        inputs.append(f"{role}/vectors")
        if not settings.dry_run:
            inputs += ["background/centroids", "background/lists"]
            if how.index == "list-major":
                inputs += ["background/list_starts", "background/order", "background/ordered"]
    plan = _plan(store, q, how, background, settings)
    grouped, found = _counted(store, how, background)
    foretold = RoleForecast(ahead, q, plan, train=background)
    return run_stage(
        store,
        f"neighbors.{role}",
        settings,
        plan=plan,
        parameters=how.parameters,
        inputs=inputs,
        total=(1 + grouped) * q,
        unit=f"assignments and {found}" if grouped else found,
        work=lambda worker: _find(worker, store, role, how, foretold),
        forecast=lambda: foretold.planned(role),
    )


def _plan(store: Store, q: int, how: SearchOptions, background: bool, settings: Settings) -> StagePlan:
    n, dim = store.entry("background/vectors").shape
    own = how.own
    taken = background and isinstance(own, OwnTable)
    plan = plan_neighbors(
        n,
        q,
        dim,
        k=how.k,
        index="Flat" if how.index == OF_FILE or (taken and how.index == "IVFFlat") else how.index,
        train=background,
        probes=how.probes,
        precision=how.precision,
        budget=settings.budget,
        device=how.device,
        threads=settings.threads,
        target_recall=how.target_recall,
        measured=background and own is not None,
    )
    width = how.k + EXTRA_NEIGHBORS
    if isinstance(own, OwnIndex):
        return own.plan(plan, settings.budget, n, q, dim, width=width, threads=settings.threads)
    return own.plan(plan, settings.budget, dim, width) if background and isinstance(own, OwnTable) else plan


def _counted(store: Store, how: SearchOptions, background: bool) -> tuple[bool, str]:
    """Return whether images are assigned to lists, which few have not, and what else the progress counts."""
    grouped = n_lists(store.entry("background/vectors").shape[0]) > 0
    return grouped, "rows of the table" if background and isinstance(how.own, OwnTable) else "searches"


def _find(worker: Worker, store: Store, role: str, how: SearchOptions, ahead: RoleForecast) -> dict[str, Any]:
    vectors, queries = store.array("background/vectors"), store.array(f"{role}/vectors")
    background = role == "background"
    width = min(how.k + EXTRA_NEIGHBORS, len(vectors))
    # what is wrong with a file shows before anything is trained
    copied = copy_table(worker, how.own, vectors, k=how.k) if background and isinstance(how.own, OwnTable) else None
    if background and isinstance(how.own, OwnIndex):
        try_index(worker, how.own, vectors, width=width, probes=how.probes)
    if how.on_gpus and copied is None:
        _require_gpus(worker, vectors, how)
    ahead.begin(resumed=worker.job.resumed)
    inverted = _assign(worker, store, role, queries, how)
    about: dict[str, Any] = {"images": len(queries), "k": how.k, "index": how.index}
    if how.index not in ("Flat", OF_FILE):
        assert inverted is not None
        if background:
            with worker.clock.step("samples"):
                about["probes"] = _probes(how, vectors, inverted)
        else:
            about["probes"] = store.record("neighbors.background")["probes"]
        ahead.know(about["probes"], inverted)
    if isinstance(how.own, OwnIndex):
        found, more = search_own_index(worker, how.own, vectors, queries, role=role, width=width, probes=how.probes)
        about |= more
    elif copied is not None:
        if how.index == "list-major":  # for those of seeds and tests
            assert inverted is not None
            rewrite_in_order(worker, vectors, inverted, how.precision)
        found = copied
    elif how.index == "list-major" and background:
        assert inverted is not None
        how_many = {"width": width, "probes": about["probes"], "precision": how.precision}
        found = search_among_itself(worker, vectors, inverted, look_ahead=ahead.see, **how_many)
    else:
        found = _search_blocks(worker, store, role, how, inverted, about.get("probes"), width)
    if background:
        with worker.clock.step("checking"):
            about["short"] = share_of_short(found, how.k)
    if background and (how.index != "Flat" or how.own is not None):
        # not the sample that the probes were chosen on
        with worker.clock.step("samples"):
            searched = {} if how.precision == PRECISIONS[0] else {"inverted": inverted, "probes": about["probes"]}
            about["recall"] = recall_of_table(found, vectors, k=how.k, seed=how.seed + 1, **searched)
        warn_of_low_recall(about["recall"])
        require_recall(about["recall"], how.min_recall, better=how.better)
    return about | ahead.foretold


def _require_gpus(worker: Worker, vectors: np.ndarray, how: SearchOptions) -> None:
    """Raise `DoesNotFit` where GPUs have not the memory now, before anything is trained: other options are free then."""
    try:
        require_free(vectors.shape, inverted=how.index == "IVFFlat", precision=how.precision)
    except DoesNotFit:
        if not worker.job.resumed:
            worker.job.discard()
        raise


def _probes(how: SearchOptions, vectors: np.ndarray, inverted: Inverted) -> int:
    if how.target_recall is not None:
        sample = draw_sample(vectors, k=how.k, seed=how.seed)
        wanted = probes_for(sample, inverted.lists, inverted.centroids, target_recall=how.target_recall)
        return min(wanted, MOST_GPU_SELECTED) if (how.index, how.device) == ("IVFFlat", "cuda") else wanted
    return how.probes or n_probes(len(inverted.centroids))


def _search_blocks(
    worker: Worker, store: Store, role: str, how: SearchOptions, inverted: Inverted | None, probes: int | None, width: int
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
        where: dict[str, Any] = {"device": how.device, "precision": how.precision}
        blocks = search(vectors, queries, k=width, inverted=lists, probes=probes, start=ids.rows, **where)
    for block_ids, block in worker.clock.each("searching", blocks):
        ids.append(block_ids)
        similarities.append(block)
        worker.job.checkpoint()
        worker.advance(len(block))
    return ids.view()


def _assign(worker: Worker, store: Store, role: str, queries: np.ndarray, how: SearchOptions) -> Inverted | None:
    """Train the inverted lists (background) and assign every image to one; they order the graph also where search is exact."""
    if role == "background":
        dim = queries.shape[1]
        count = n_lists(len(queries))
        if worker.job.array("background/centroids", "<f4", (count, dim)).rows == 0:
            with worker.clock.step("training"):
                trained = train_centroids(queries, seed=how.seed, device=how.device) if count else np.empty((0, dim), np.float32)
            worker.job.put("background/centroids", trained)
            worker.job.checkpoint(now=True)
        centroids = worker.job.array("background/centroids", "<f4", (count, dim)).view()
    else:
        centroids = store.array("background/centroids")
    lists = worker.job.array(f"{role}/lists", "<i4", (len(queries),))
    worker.advance(lists.rows * (len(centroids) > 0))
    with worker.clock.step("assigning"):
        for block in worker.checked_blocks(f"{role}/vectors", rows=BLOCK_ROWS, start=lists.rows):
            lists.append(assign_lists(block, centroids, device=how.device))
            worker.advance(len(block) * (len(centroids) > 0))
            worker.job.checkpoint()
        worker.job.checkpoint(now=True)
    if len(centroids) == 0:
        return None
    return Inverted(centroids, lists.view() if role == "background" else store.array("background/lists"))
