"""The kNN classifier of the protocol: no iteration of diffusion and no graph, but more neighbors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..classify import count_votes, votes_bytes
from ..evaluation import MEASURES, choose_place, count_hits, shares
from ..memory import StagePlan
from ..neighbors import DATABASE_ROWS, index_bytes, search, search_bytes
from ..parallel import resolve_threads
from ..store import Store
from ..store.npy import HEADER_BYTES
from .low_shot import INPUTS, Labelled, LowShot, Protocol
from .plans import BLOCK_ROWS, SLACK
from .settings import Record, Settings, Worker, run_stage
from .stage_names import stage_name

NEIGHBORS = (1, 5, 10, 30, 100, 300, 1000)


def low_shot_knn(store: Store, protocol: Protocol, *, settings: Settings) -> tuple[str, Record]:
    """Measure the kNN classifier for several numbers of neighbors.

    Parameters
    ----------
    store : Store
        With vectors and classes of background and tests.
    protocol : Protocol
        What is drawn.
    settings : Settings
        Options of the run.

    Returns
    -------
    name : str
        Of the stage, and of the folder of its array ``accuracy`` (groups * draws * sizes, numbers of neighbors, 4).
    record : dict
        ``chosen``: the number of neighbors for each number of labelled images, by the accuracy on group 1.

    Notes
    -----
    The end of section 4.3: the scores of diffusion after 0 iterations, with η = columns, so that a neighbor counts the less the
    more images its class has; of equal ones the larger sum of similarities counts, as everywhere (`count_votes`). More neighbors
    than labelled images are all of them.
    """
    parameters = {**protocol.parameters, "neighbors": list(NEIGHBORS), "equal votes": "by similarity"}
    name = stage_name("low-shot-knn", parameters)
    problems = protocol.problems(store)
    record = run_stage(
        store,
        name,
        settings,
        plan=_plan(store, protocol, problems, settings),
        parameters=parameters,
        inputs=INPUTS,
        title=f"kNN classifier ({protocol.told})",
        total=protocol.runs,
        unit="searches",
        work=lambda worker: _measure(worker, store, protocol, problems, name),
    )
    return name, record


def _plan(store: Store, protocol: Protocol, problems: list[LowShot], settings: Settings) -> StagePlan:
    most, m = max(p.n_classes for p in problems), max(len(p.train_rows) for p in problems)
    dim, k = store.entry("background/vectors").shape[1], min(max(NEIGHBORS), m)
    arrays = index_bytes(DATABASE_ROWS, dim, inverted=False) + search_bytes(dim, k, threads=resolve_threads(settings.threads))
    arrays += BLOCK_ROWS * (24 * k + 48 * most) + votes_bytes(k, most) + 64 * m
    least = settings.budget.overhead() + arrays + SLACK
    work = f"up to {k} neighbors among {m:,} labelled images"
    disk = HEADER_BYTES + 8 * protocol.runs * len(NEIGHBORS) * len(MEASURES)
    return StagePlan("low-shot-knn", work, least, least, disk, 4 * m * dim)


def _measure(worker: Worker, store: Store, protocol: Protocol, problems: list[LowShot], name: str) -> dict[str, Any]:
    sizes = protocol.n_per_class
    accuracy = worker.job.array(f"{name}/accuracy", "<f8", (protocol.runs, len(NEIGHBORS), len(MEASURES)))
    worker.advance(accuracy.rows)
    for place in range(accuracy.rows // len(sizes), len(problems) * protocol.draws):
        number, draw = divmod(place, protocol.draws)
        for labelled in problems[number].labelled(draw):
            accuracy.append(_accuracy(worker, store, labelled, problems[number])[None])
            worker.advance(1)
        worker.job.checkpoint(now=True)
    first = accuracy.view()[: protocol.draws * len(sizes)].reshape(protocol.draws, len(sizes), len(NEIGHBORS), len(MEASURES))
    chosen = {str(n): NEIGHBORS[choose_place(first[:, i], problems[0].by)] for i, n in enumerate(sizes)}
    return {"sizes": list(sizes), "chosen": chosen, "by": problems[0].by, "neighbors": list(NEIGHBORS)}


def _accuracy(worker: Worker, store: Store, labelled: Labelled, problem: LowShot) -> np.ndarray:
    """Return the accuracies for each number of neighbors, (numbers, 4)."""
    train, tests = store.array("background/vectors"), store.array("tests/vectors")
    worker.job.drop("labelled")
    vectors = worker.job.array("labelled", "<f4", (len(labelled.rows), train.shape[1]), scratch=True)
    for first in range(0, len(labelled.rows), BLOCK_ROWS):
        vectors.append(np.ascontiguousarray(train[labelled.rows[first : first + BLOCK_ROWS]]))
    sizes = np.bincount(labelled.columns, minlength=problem.n_classes)
    counts = np.zeros((len(NEIGHBORS), len(MEASURES)), np.int64)
    for first in range(0, len(problem.test_rows), BLOCK_ROWS):
        block = np.ascontiguousarray(tests[problem.test_rows[first : first + BLOCK_ROWS]])
        found = search(vectors.view(), block, k=min(max(NEIGHBORS), len(labelled.rows)))
        ids, similarities = (np.concatenate(parts) for parts in zip(*found, strict=True))
        voters = labelled.columns[ids]
        for place, k in enumerate(NEIGHBORS):
            scores = count_votes(voters[:, :k], similarities[:, :k], problem.n_classes, sizes)
            counts[place] += count_hits(scores, problem.test_columns[first : first + len(block)], problem.n_base)
    return shares(counts, problem.test_columns, problem.n_base)
