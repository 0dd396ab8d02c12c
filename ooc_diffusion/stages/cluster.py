"""Markov clustering of the nodes of a small graph."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..graph import markov_clusters
from ..store import Store
from ..store.files import os_errors
from .collection import Collection
from .graph import open_graph
from .output import check_folder
from .plans import plan_cluster
from .settings import Record, Settings, Worker, open_store, run_stage


def cluster(
    store: Store | str | Path,
    *,
    output: str | Path,
    power: float = 2.0,
    threshold: float = 1e-5,
    max_steps: int = 100,
    settings: Settings | None = None,
) -> Record:
    """Cluster the images of a small graph by full Markov clustering, without labels.

    Parameters
    ----------
    store : Store or str or Path
        A store with a graph.
    output : str or Path
        CSV to write: ``path,cluster``, the images in the order of the nodes.
    power, threshold, max_steps
        As in `ooc_diffusion.graph.markov_clusters`.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The record of the stage. Array: ``clusters/labels`` (N,) int32, the cluster of each node.
    """
    settings = settings or Settings()
    target = open_store(store)
    graph = open_graph(target)
    check_folder(output)
    if Path(output).exists() and not settings.overwrite:
        raise BadInput(f"{output} exists; give another --output, or --overwrite to replace it")
    options: dict[str, Any] = {"power": power, "threshold": threshold, "max_steps": max_steps}
    inputs = [f"graph/{name}" for name in ("indptr", "indices", "row_scale", "position")]

    def work(worker: Worker) -> dict[str, Any]:
        clusters, about = markov_clusters(graph, **options, budget=worker.budget)
        worker.job.put("clusters/labels", clusters)
        worker.advance(graph.n)
        return about

    record = run_stage(
        target,
        "cluster",
        settings,
        plan=plan_cluster(graph.n, graph.nnz, budget=settings.budget),
        parameters=options,
        inputs=inputs,
        total=graph.n,
        unit="nodes",
        work=work,
    )
    if not settings.dry_run:
        _write(target, Path(output))
    return record


def _write(store: Store, output: Path) -> None:
    """Write the CSV; it appears whole or not at all."""
    images, clusters = Collection(store, "nodes"), store.array("clusters/labels")
    temporary = output.absolute().with_name(f".{output.name}.tmp")
    try:
        with os_errors(output, "writing"):
            with temporary.open("wb") as out:
                out.write(b"path,cluster\n")
                for i, number in enumerate(clusters):
                    text = io.StringIO(newline="")
                    csv.writer(text, lineterminator="\n").writerow([images.name(i), int(number)])
                    out.write(os.fsencode(text.getvalue()))
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
