"""Taking more images into the background: its arrays grow, and its neighbor table is updated, not searched anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, DoesNotFit
from ..neighbors import (
    Inverted,
    assign_lists,
    merge_neighbors,
    missing_room,
    recall_of_table,
    resolve_device,
    search,
    search_lists,
)
from ..store import Job, Store, Strings
from .class_names import class_names
from .completion import How, entered
from .import_descriptors import TWICE
from .listing import compare_names
from .neighbors import PRECISIONS, search_again
from .ordered_search import open_lists, rewrite_in_order, searches_at_once
from .plans import BLOCK_ROWS, EXTRA_NEIGHBORS, plan_add
from .search_options import FILES, held_by_gpus
from .settings import ROLES, Record, Settings, Worker, open_store, run_stage
from .table_quality import require_recall, share_of_short

# What an addition takes from the search of the background, and nobody can choose again.
SEARCHED = ("k", "index", "probes", "target_recall", "precision", "seed", "device", *FILES, "table_width")
_STAGE = "neighbors.background"
_TABLE = ("neighbor_ids", "similarities", "lists")
_COPY_BYTES = 2**24
_FIRST_UNREADABLE = 20
_BETTER = "give a lower --min-recall, and search anew afterwards with more --probes and --overwrite"
Blocks = Iterator[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _Search:
    """How the background, of n vectors, was searched, and m more are."""

    n: int
    m: int
    k: int
    width: int
    index: str
    probes: int | None
    precision: str
    seed: int
    device: str

    @property
    def by_lists(self) -> bool:
        return self.index == "list-major"


def add_images(
    store: Store | str | Path,
    *,
    stated: Mapping[str, Any] | None = None,
    min_recall: float | None = None,
    settings: Settings | None = None,
) -> Record:
    """Take the images of role ``added`` into the background, and update its neighbor table.

    Parameters
    ----------
    store : Store or str or Path
        A store with a searched background, and with ``added/vectors``.
    stated : mapping, optional
        Options of `neighbors` by name that must be those that the background was searched with.
    min_recall : float, optional
        Fail where the recall of the whole table is lower.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The record of the stage ``neighbors.background``: ``images`` (all of them), ``added``, ``added_in_all``, ``changed`` (how
        many images of before have other neighbors now), ``short`` and ``recall`` of the whole table. Each array of the background
        grows by the rows of the added images, which come last; those of role ``added`` are gone.

    Notes
    -----
    Only an image that is nearer than the last neighbor of a row can enter it, so the rows of before are completed as `graph`
    completes them with seeds; the added images are searched among all. PCA and centroids stay what they are. Seeds and tests that
    were searched before are searched again, in the same way; where that was interrupted, the same call does what is left of it.
    """
    settings = settings or Settings()
    target = open_store(store)
    if settings.dry_run:
        return _add(target, stated or {}, min_recall, settings)
    roles = [role for role in ROLES[1:] if f"neighbors.{role}" in target.manifest.stages]
    if _added_already(target, roles):
        record = {**target.record(_STAGE), "skipped": True}
    else:
        with target.lock:  # what is read here is what is added to
            record = _add(target, stated or {}, min_recall, settings)
    search_again(target, roles, settings)
    return record


def _added_already(store: Store, roles: Sequence[str]) -> bool:
    """Return whether images were added, none are to be, and these roles have yet to be searched again."""
    waiting = any(name.startswith("added/") for name in store.manifest.arrays)
    return not waiting and "added" in store.record(_STAGE) and any(store.outdated(f"neighbors.{role}") for role in roles)


def _add(target: Store, stated: Mapping[str, Any], min_recall: float | None, settings: Settings) -> Record:
    asked = _asked(target)
    _check(target, asked, stated, min_recall)
    joins = _joins(target, asked)
    parameters, dim = target.parameters(_STAGE), target.entry("background/vectors").shape[1]
    if held_by_gpus(asked.index, asked.device):
        _require_gpus(asked, dim)
    return run_stage(
        target,
        _STAGE,
        settings,
        plan=plan_add(
            asked.n,
            asked.m,
            dim,
            k=asked.k,
            index=asked.index,
            copied_bytes=sum(first.nbytes + second.nbytes for first, second, _ in joins.values()),
            budget=settings.budget,
            probes=asked.probes or 1,
            precision=asked.precision,
            device=asked.device,
            threads=settings.threads,
        ),
        parameters={**parameters, "added": asked.m},
        inputs=_inputs(target, joins),
        total=2 * (asked.n + asked.m),
        unit="images copied or searched",
        work=lambda worker: _work(worker, target, asked, joins, min_recall),
        extend=lambda job, record: _publish(job, record, target, asked, joins),
    )


def _asked(store: Store) -> _Search:
    """Return what there is to do; `BadInput` where there is nothing."""
    parameters, record = store.parameters(_STAGE), store.record(_STAGE)
    if "added/vectors" not in store:
        if "added/descriptors" in store:
            raise BadInput(f"the images to add to {store.path} have no vectors yet; run reduce first")
        raise BadInput(
            f"{store.path} has nothing to add; extract (or import) images with --role added and run reduce first, "
            f"the background has {store.entry('background/vectors').shape[0]:,} images"
        )
    n, m = (store.entry(f"{role}/vectors").shape[0] for role in ("background", "added"))
    k = parameters["k"]
    return _Search(
        n,
        m,
        k,
        min(k + EXTRA_NEIGHBORS, n + m),
        parameters["index"],
        record.get("probes"),
        parameters.get("precision", PRECISIONS[0]),
        parameters["seed"],
        resolve_device(parameters["device"]),
    )


def _check(store: Store, asked: _Search, stated: Mapping[str, Any], min_recall: float | None) -> None:
    searched = {"probes": asked.probes, "precision": asked.precision, **store.parameters(_STAGE)}
    for name, value in stated.items():
        if value not in ("auto", searched.get(name)):
            raise BadInput(
                f"`{name}` is {value}, but the background was searched with {searched.get(name)}; leave it out with --add"
            )
    if min_recall is not None and not 0 < min_recall <= 1:
        raise BadInput(f"`min_recall` is {min_recall}; give a share above 0, up to 1")
    if not {"table", "index_file"}.isdisjoint(searched):
        raise BadInput(
            f"{store.path}: the neighbors of the background come from a file; add the images to what made it, "
            "and take the new file in a new store"
        )
    if store.parameters("reduce.added") != store.parameters("reduce.background"):
        raise BadInput(f"{store.path}: the added images were reduced otherwise than the background; run reduce again")
    named = {role: f"{role}/path_offsets" in store for role in ("background", "added")}
    if named["background"] != named["added"]:
        have, have_not = ("background", "added images") if named["background"] else ("added images", "background")
        raise BadInput(f"{store.path}: the {have} have names, the {have_not} none; give names to both (import --names) or none")
    if named["background"]:
        compare_names(Strings.open(store, "background/path"), Strings.open(store, "added/path"))
    else:
        _refuse_twice(store)
    classes = [class_names(store, role) for role in named]
    if None not in classes and classes[0] != classes[1]:
        raise BadInput(f"{store.path}: the added images are of other classes than the background; add images of the same classes")


def _require_gpus(asked: _Search, dim: int) -> None:
    missing = missing_room((asked.n + asked.m, dim), inverted=asked.index == "IVFFlat", precision=asked.precision)
    if missing:
        raise DoesNotFit(f"{missing}; search the background anew with `index` list-major and --overwrite, then add the images")


def _refuse_twice(store: Store) -> None:
    """Refuse descriptors without names that are those of the background, or of an addition, to the last bit."""
    made = store.record(store.entry("background/descriptors").stage)
    known = [made.get("descriptors", store.entry("background/descriptors").identity)]
    if store.entry("added/descriptors").identity in known + [part.get("descriptors") for part in made.get("added", [])]:
        raise BadInput(f"{store.path}: the added descriptors are part of the background already, {TWICE}")


Join = tuple[np.ndarray, np.ndarray, int]


def _joins(store: Store, asked: _Search) -> dict[str, Join]:
    """Return what grows row by row: the rows of before, those that are added, and a number that the latter are moved by."""

    def pair(name: str, *missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        names = [f"{role}/{name}" for role in ("background", "added")]
        before, more = (store.array(one) if one in store else missing[place] for place, one in enumerate(names))
        return before, more

    def strings(name: str) -> dict[str, Join]:
        before, more = pair(f"{name}_offsets", *(np.zeros(1, np.int64),) * 2)
        characters = pair(f"{name}_bytes", *(np.empty(0, np.uint8),) * 2)
        return {f"{name}_bytes": (*characters, 0), f"{name}_offsets": (before, more, int(before[-1]))}

    joins: dict[str, Join] = {name: (*pair(name), 0) for name in ("descriptors", "vectors")}
    if "background/path_offsets" in store:
        joins |= strings("path")
    if "background/truth" in store or "added/truth" in store:
        joins["truth"] = *pair("truth", *(np.broadcast_to(np.int32(-1), (count,)) for count in (asked.n, asked.m))), 0
    if "background/failed_rows" in store or "added/failed_rows" in store:
        joins["failed_rows"] = *pair("failed_rows", *(np.empty(0, np.int64),) * 2), asked.n
        joins |= strings("failed_reason")
    return {f"background/{name}": join for name, join in joins.items()}


def _inputs(store: Store, joins: Mapping[str, Join]) -> list[str]:
    names = [*joins, *(name.replace("background/", "added/", 1) for name in joins)]
    names += [f"background/{name}" for name in (*_TABLE, "centroids", "path_parts", "order", "list_starts", "ordered")]
    return [name for name in names if name in store]


def _work(worker: Worker, store: Store, asked: _Search, joins: Mapping[str, Join], min_recall: float | None) -> dict[str, Any]:
    for name, join in joins.items():
        _copy(worker, name, join, asked)
    if "background/path_offsets" in joins:
        parts = Strings.open(store, "background/path").parts
        worker.job.put("background/path_parts", np.array([*parts, asked.n + asked.m], np.int64))
    vectors = worker.job.array("background/vectors", "<f4", joins["background/vectors"][0].shape).view()
    inverted = _assign(worker, store, vectors, asked)
    found = _search(worker, store, vectors, inverted, asked)
    about: dict[str, Any] = {"images": len(found), "k": asked.k, "index": asked.index}
    if asked.probes is not None:
        about["probes"] = asked.probes
    about |= {"added": asked.m, "added_in_all": store.record(_STAGE).get("added_in_all", 0) + asked.m}
    about |= {"changed": worker.job.state["changed"], "short": share_of_short(found, asked.k)}
    if asked.index != "Flat":  # as after a search
        about["recall"] = recall_of_table(found, vectors, k=asked.k, seed=asked.seed + 1)
        require_recall(about["recall"], min_recall, better=_BETTER)
    return about


def _copy(worker: Worker, name: str, join: Join, asked: _Search) -> None:
    """Write the rows of before and those that are added one after the other."""
    first, second, moved_by = join
    left_out = int(name.endswith("_offsets"))  # the begin of what is added is the end of what was there
    writer = worker.job.array(name, first.dtype.str, (len(first) + len(second) - left_out, *first.shape[1:]))
    rows = max(1, _COPY_BYTES // max(1, writer.row_bytes))
    advance = worker.advance if name == "background/descriptors" else lambda done: None
    advance(writer.rows)
    parts = (("background", first, 0, 0), ("added", second, len(first) - left_out, moved_by))
    for role, source, before, moved in parts:
        begin, copied = writer.rows - before, name.replace("background/", f"{role}/", 1)
        if begin >= len(source):
            continue
        if copied in worker.job.store:
            blocks = worker.checked_blocks(copied, rows=rows, start=begin)
        else:
            blocks = (source[at : at + rows] for at in range(begin, len(source), rows))
        for block in blocks:
            writer.append(block + moved if moved else block)
            worker.job.checkpoint()
            advance(len(block))
    worker.job.checkpoint(now=True)


def _assign(worker: Worker, store: Store, vectors: np.ndarray, asked: _Search) -> Inverted | None:
    """Assign the added images to the lists that there are."""
    centroids = store.array("background/centroids")
    lists = worker.job.array("background/lists", "<i4", (len(vectors),))
    if lists.rows < asked.n:
        for block in worker.checked_blocks("background/lists", rows=_COPY_BYTES, start=lists.rows):
            lists.append(block)
    for first in range(lists.rows, len(vectors), BLOCK_ROWS):
        lists.append(assign_lists(vectors[first : first + BLOCK_ROWS], centroids, device=asked.device))
        worker.job.checkpoint()
    worker.job.checkpoint(now=True)
    return Inverted(centroids, lists.view()) if len(centroids) else None


def _search(worker: Worker, store: Store, vectors: np.ndarray, inverted: Inverted | None, asked: _Search) -> np.ndarray:
    """Write the table: rows of before with what enters them, then those of the added images; return the ids."""
    job, n = worker.job, asked.n
    ids = job.array("background/neighbor_ids", "<i4", (len(vectors), asked.width))
    similarities = job.array("background/similarities", "<f4", (len(vectors), asked.width))
    worker.advance(ids.rows)
    known_ids, known = store.arrays("background/neighbor_ids", "background/similarities")
    for name in _TABLE[:2] if ids.rows < n else ():
        for _ in worker.checked_blocks(f"background/{name}", rows=BLOCK_ROWS, start=0):
            pass
    added = _rounded(worker, vectors[n:], asked)
    changed = job.state.get("changed", 0)

    def write(block_ids: np.ndarray, block: np.ndarray) -> None:
        ids.append(block_ids)
        similarities.append(block)
        job.checkpoint(changed=changed)
        worker.advance(len(block))

    for more_ids, more in _among_added(worker, store, added, known, asked, ids.rows) if ids.rows < n else ():
        rows = slice(ids.rows, ids.rows + len(more_ids))
        more_ids[more_ids >= 0] += n
        block_ids, block = merge_neighbors(known_ids[rows], known[rows], more_ids, more, k=asked.width)
        changed += int((block_ids[:, : asked.k] != known_ids[rows, : asked.k]).any(axis=1).sum())
        write(block_ids, block)
    for block_ids, block in _among_all(worker, vectors, added, inverted, asked, ids.rows - n):
        write(block_ids, block)
    return ids.view()


def _rounded(worker: Worker, vectors: np.ndarray, asked: _Search) -> np.ndarray:
    """Return vectors as they are searched, in float32."""
    if not asked.by_lists or asked.precision == PRECISIONS[0]:
        return vectors
    rounded = worker.job.array("background/rounded", "<f4", vectors.shape, scratch=True)
    for first in range(rounded.rows, len(vectors), BLOCK_ROWS):
        rounded.append(vectors[first : first + BLOCK_ROWS].astype(asked.precision).astype(np.float32))
    return rounded.view()


def _among_added(worker: Worker, store: Store, added: np.ndarray, known: np.ndarray, asked: _Search, start: int) -> Blocks:
    """Search the images of before among the added ones: all that enter their rows, and perhaps others."""
    if not asked.by_lists:
        yield from search(added, store.array("background/vectors"), k=min(asked.width, asked.m), start=start)
        return
    # a row that is not full takes anything
    full = known.shape[1] == asked.width
    least = known[:, -1] if full else np.broadcast_to(np.float32(-1e30), (asked.n,))
    numbers = worker.job.array("background/lists", "<i4", (asked.n + asked.m,)).view()[asked.n :]
    yield from entered(worker, open_lists(store), added, numbers, least, asked.width, start, How(seed=asked.seed))


def _among_all(
    worker: Worker, vectors: np.ndarray, added: np.ndarray, inverted: Inverted | None, asked: _Search, start: int
) -> Blocks:
    """Search the added images among all, as the background was searched."""
    if asked.by_lists:
        assert inverted is not None
        assert asked.probes is not None
        ordered = rewrite_in_order(worker, vectors, inverted, asked.precision)
        at_once = searches_at_once(asked.m, added.shape[1], asked.width, asked.probes, worker.budget, worker.threads)
        yield from search_lists(ordered, added, k=asked.width, probes=asked.probes, threads=at_once, start=start)
        return
    lists = None if asked.index == "Flat" else inverted
    where: dict[str, Any] = {"device": asked.device, "precision": asked.precision}
    yield from search(vectors, added, k=asked.width, inverted=lists, probes=asked.probes, start=start, **where)


def _publish(job: Job, record: Record, store: Store, asked: _Search, joins: Mapping[str, Join]) -> None:
    """Put the longer arrays in place of those of before; the stages of the added images go."""
    manifest = store.manifest
    describing = manifest.arrays["background/descriptors"].stage
    naming = manifest.arrays.get("background/path_offsets", manifest.arrays["background/descriptors"]).stage
    owners = {name: describing if "/failed_" in name else naming for name in [*joins, "background/path_parts"]}
    owners |= {name: manifest.arrays[name].stage for name in joins if name in manifest.arrays}
    records = {stage: _grown(store, stage, asked) for stage in owners.values()}
    retired = [stage for stage in manifest.stages if stage.endswith(".added")]
    job.extend(record, owners=owners, records=records, retired=retired)


def _grown(store: Store, stage: str, asked: _Search) -> Record:
    """Return what a stage that made arrays of the background says of all images."""
    said = dict(store.record(stage))
    about = store.manifest.stages.get(stage.replace(".background", ".added"), {"record": {}})["record"]
    if "images" in said:
        said["images"] = asked.n + asked.m
    for name in ("unreadable", "missing", "zero_rows", "zero_descriptors"):
        if name in said or name in about:
            said[name] = said.get(name, 0) + about.get(name, 0)
    if "first_unreadable" in said:
        moved = [[row + asked.n, *what] for row, *what in about.get("first_unreadable", [])]
        said["first_unreadable"] = [*said["first_unreadable"], *moved][:_FIRST_UNREADABLE]
    if stage == "reduce.background":
        said.setdefault("trained_on", asked.n)
    if stage in ("list.background", "import.background"):
        listed, imported = (
            store.manifest.stages.get(f"{how}.added", {"parameters": {}})["parameters"] for how in ("list", "import")
        )
        part = {"first": asked.n, "images": listed.get("images"), "fingerprint": listed.get("fingerprint", "")}
        # by which the same descriptors are known again
        part |= {"file": imported.get("file"), "descriptors": store.entry("added/descriptors").identity}
        said.setdefault("descriptors", store.entry("background/descriptors").identity)
        said["added"] = [*said.get("added", []), part]
    return said
