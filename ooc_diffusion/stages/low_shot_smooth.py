"""Logistic regression of the protocol that is to be smooth over the in-domain graph."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from ..classify import EdgeSampler, Smoothness
from ..evaluation import MEASURES
from ..memory import StagePlan
from ..store import Store
from ..store.npy import HEADER_BYTES
from .low_shot import INPUTS, Protocol
from .low_shot_logistic import accuracy_of, low_shot_logistic, plan_logistic, train, training_options
from .low_shot_plan import plan_low_shot
from .low_shot_variant import Variant
from .settings import Record, Settings, Worker, run_stage
from .stage_names import stage_name
from .temporary_graphs import GraphKeeper

MUS = (0.0, 0.1, 1.0, 10.0)


def low_shot_smooth(
    store: Store, protocol: Protocol, *, k: int, keeper: GraphKeeper | None = None, settings: Settings
) -> tuple[str, Record]:
    """Train graph-regularized logistic regression on group 1, with the settings that are best without the graph.

    Parameters
    ----------
    store : Store
        With vectors, descriptors and classes of background and tests.
    protocol : Protocol
        What is drawn.
    k : int
        Neighbors per node of the in-domain graph.
    keeper : GraphKeeper, optional
        Keeps the graph for later runs.
    settings : Settings
        Options of the run.

    Returns
    -------
    name : str
        Of the stage, and of the folder of its array ``accuracy`` (draws * sizes, weights of the graph, 4).
    record : dict
        ``mus``: the weights; the first is 0, logistic regression as it is.
    """
    problem, variant = protocol.problems(store)[0], Variant("in-domain", k=k, max_iter=0)
    variant.check([problem], None)
    logistic = low_shot_logistic(store, protocol, settings=settings)[0]
    # a plan does not know it before it is chosen
    chosen = store.record(logistic)["chosen"] if logistic in store.manifest.stages else {}
    parameters = {**protocol.parameters, "k": k, "mus": list(MUS), "chosen": chosen}
    name = stage_name("low-shot-smooth", parameters)

    def work(worker: Worker) -> dict[str, Any]:
        sizes = protocol.n_per_class
        accuracy = worker.job.array(f"{name}/accuracy", "<f8", (protocol.draws * len(sizes), len(MUS), len(MEASURES)))
        worker.advance(accuracy.rows * len(MUS))
        vectors, descriptors = store.arrays("background/vectors", "background/descriptors")
        tests = (store.array("tests/vectors"), problem.test_rows)
        with contextlib.nullcontext(keeper) if keeper else GraphKeeper() as kept:
            graphs = kept.graphs(store, tests=tests, background=None, k=k, settings=settings)
            graph, _ = graphs.build([(vectors, problem.train_rows)], {}, k=k)
            for run in range(accuracy.rows, protocol.draws * len(sizes)):
                labelled = problem.labelled(run // len(sizes))[run % len(sizes)]
                options = {**chosen[str(sizes[run % len(sizes)])], **training_options(worker, settings)}
                found = []
                for mu in MUS:
                    edges = EdgeSampler(graph, np.random.default_rng(settings.seed))
                    smooth = Smoothness(mu, edges, lambda nodes: np.asarray(descriptors[problem.train_rows[nodes]]))
                    model = train(store, labelled, problem, {**options, "smooth": smooth})
                    found.append(accuracy_of(store, model, problem))
                    worker.advance(1)
                accuracy.append(np.stack(found)[None])
                worker.job.checkpoint()
        return {"sizes": list(sizes), "mus": list(MUS), "by": problem.by}

    widest = keeper.widest if keeper else 0
    options: dict[str, Any] = {"draws": protocol.draws, "widest": widest, "settings": settings}
    graph_plan = plan_low_shot(store, variant, [problem], 0, fusion=True, **options)  # it is trained beside the graph
    training = plan_logistic(store, protocol, [problem], settings)
    least, scratch = max(graph_plan.least_bytes, training.least_bytes), graph_plan.scratch_bytes
    trainings = protocol.draws * len(protocol.n_per_class) * len(MUS)
    disk = HEADER_BYTES + 8 * trainings * len(MEASURES)
    what = f"{trainings:,} trainings over a graph of {len(problem.train_rows):,} nodes"
    return name, run_stage(
        store,
        name,
        settings,
        plan=StagePlan("low-shot-smooth", what, least, least, disk, scratch),
        parameters=parameters,
        inputs=INPUTS,
        title=f"logistic regression, smooth over the graph ({protocol.told})",
        total=trainings,
        unit="trainings",
        work=work,
    )
