"""The paper's largest run on one small machine: 100 million nodes, 5.2 billion edges, 507 classes, 5 iterations.

Claims: graph and diffusion stay within the stated memory budget, and the diffusion takes no longer than the paper's 54 minutes.

    python benchmarks/bench_f100m.py f100m --memory-budget 8GiB --json f100m.json

makes, in the folder f100m, a searched collection of 200 000 images, its lift to 100 million nodes (500 layers; see
tools/lift_graph.py) and the scores of 25 000 queries. It needs some 60 GB of disk and says so first. A diffusion goes on where it
was stopped; a collection that is complete is taken as it is. The folder is removed at the end unless --keep is given. --check
recomputes two columns, one with 1280 seeds and one with 2, block by block with SciPy in float64, and compares. --classes 16 takes
the 8 classes with the most seeds and the 8 with the fewest alone, which is enough for a check.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from bench_diffusion import N_CLASSES, N_ITER, make_job
from bench_out_of_core import disk_rate, drop_caches
from peers import machine

from ooc_diffusion.diffusion import Diffusion, write_scores
from ooc_diffusion.graph import Graph
from ooc_diffusion.memory import MemoryBudget, MemoryMeter, disk_bytes_read, format_size
from ooc_diffusion.parallel import limit_threads
from ooc_diffusion.store import Store

TOOLS = Path(__file__).resolve().parent.parent / "tools"
SEARCHED = 200_000
NODE_BYTES = 600  # table 120, W 212, order and the like 20; L and W again in part while diffusing
POSITION = (1 << 31) - 1


def build(folder: Path, layers: int, budget: str) -> dict[str, Any]:
    """Make the collections that are not there yet; return what is known of the lift."""
    source, lift = folder / "searched", folder / "lift"
    if not (source / "collection.json").exists():
        shutil.rmtree(source, ignore_errors=True)
        subprocess.run(
            [sys.executable, f"{TOOLS}/make_collection.py", "hard", str(SEARCHED), "--folder", str(source)], check=True
        )
    if not (lift / "collection.json").exists():
        shutil.rmtree(lift, ignore_errors=True)
        command = [sys.executable, f"{TOOLS}/lift_graph.py", str(source), "--layers", str(layers), "--folder", str(lift)]
        subprocess.run([*command, "--memory-budget", budget], check=True)
    collection = json.loads((lift / "collection.json").read_text())
    if collection["nodes"] != SEARCHED * layers:
        raise SystemExit(f"{lift} has {collection['nodes']:,} nodes, not {SEARCHED * layers:,}; give another folder or remove it")
    return collection


def some_of_job(graph: Graph, job: str, n_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return seeds, classes and queries of a job, but only of those classes with the most and with the fewest seeds."""
    seeds, classes, queries = make_job(graph, job)
    order = np.argsort(np.bincount(classes, minlength=N_CLASSES), kind="stable")
    number = np.full(N_CLASSES, -1)
    number[np.concatenate([order[: n_classes // 2], order[N_CLASSES - (n_classes - n_classes // 2) :]])] = np.arange(n_classes)
    kept = number[classes] >= 0
    return seeds[kept], number[classes[kept]], queries


class Clock:
    """Seconds, bytes read and peak memory of all sessions of a run, noted after each batch of columns."""

    def __init__(self, file: Path, n_classes: int) -> None:
        self.file, self.n_classes = file, n_classes
        self.before = json.loads(file.read_text()) if file.exists() else {"seconds": 0.0, "bytes_read": 0, "peak_bytes": 0}
        self.started, self.read, self.meter, self.done = time.perf_counter(), disk_bytes_read(), MemoryMeter(), 0

    def advance(self, columns: int) -> None:
        """Note that columns are done."""
        self.done += columns
        self.file.write_text(json.dumps(self.now()))
        print(f"{self.done} of {self.n_classes} classes, {self.now()['seconds'] / 60:.1f} min", flush=True)

    def now(self) -> dict[str, Any]:
        """Return the figures of this session and those before."""
        return {
            "seconds": self.before["seconds"] + time.perf_counter() - self.started,
            "bytes_read": self.before["bytes_read"] + disk_bytes_read() - self.read,
            "peak_bytes": max(self.before["peak_bytes"], self.meter.peak),
        }


def diffuse_job(
    folder: Path, job: str, n_classes: int, precision: str, budget: str, threads: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Diffuse the paper's job into a store of its own; return scores and figures."""
    graph = Graph(folder / "lift" / "store")
    seeds, classes, queries = some_of_job(graph, job, n_classes)
    what = Diffusion(seeds, classes, n_classes, N_ITER, queries, precision=precision)
    name = f"{job}-{precision}" if n_classes == N_CLASSES else f"{job}-{precision}-{n_classes}"
    target, clock = Store(folder / f"scores-{name}", create=True), Clock(folder / f"clock-{name}.json", n_classes)
    with clock.meter, limit_threads(threads) as n_threads, target.job("diffuse", parameters={"job": job}) as work:
        if not work.published:
            limit = MemoryBudget.parse(budget)
            record = write_scores(work, graph, what, name="scores", budget=limit, threads=n_threads, advance=clock.advance)
            work.publish({**record, **clock.now()})
    return target.array("scores"), target.record("diffuse")


def check(graph: Graph, job: str, n_classes: int, scores: np.ndarray) -> float:
    """Recompute two columns in blocks with SciPy; return the largest difference relative to the largest score."""
    seeds, classes, queries = some_of_job(graph, job, n_classes)
    counts = np.bincount(classes, minlength=n_classes)
    columns = [int(np.argmax(counts)), int(np.argmin(counts))]
    L = np.zeros((graph.n, 2))
    for column, c in enumerate(columns):
        L[graph.position[seeds[classes == c]], column] = 1
    for _ in range(N_ITER):
        after = np.empty_like(L)
        for begin in range(0, graph.n, 2**20):
            indptr = graph.indptr[begin : begin + 2**20 + 1]
            entries = graph.indices[indptr[0] : indptr[-1]]
            block = sp.csr_matrix(
                (1.0 + (entries >> 31), (entries & POSITION).astype(np.int64), indptr - indptr[0]), (len(indptr) - 1, graph.n)
            )
            after[begin : begin + 2**20] = (block @ L) * graph.row_scale[begin : begin + 2**20, None].astype(np.float64)
        L = after
    L /= L.sum(axis=0)
    expected = (L[graph.position[queries]] * (queries >= 0)[..., None]).sum(axis=1)
    return float((np.abs(scores[:, columns] - expected) / expected.max(axis=0)).max())


def main() -> None:
    """Build, diffuse, print, clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for everything that is made")
    parser.add_argument("--memory-budget", default="8GiB", help="default: 8GiB")
    parser.add_argument("--layers", type=int, default=500, help="times 200 000 nodes; default: 500")
    parser.add_argument("--jobs", nargs="+", choices=["protocol", "few"], default=["protocol"], help="default: protocol")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of L; default: float32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument(
        "--check", action="store_true", help="recompute two columns with SciPy, which takes 4 GB and some minutes"
    )
    parser.add_argument("--classes", type=int, default=N_CLASSES, help=f"how many of the {N_CLASSES}; default: all")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    held = sum(file.stat().st_size for file in options.folder.rglob("*") if file.is_file())
    needed, free = NODE_BYTES * SEARCHED * options.layers - held, shutil.disk_usage(options.folder).free
    print(f"{format_size(max(0, needed))} of disk are needed beside what is there; {format_size(free)} are free", flush=True)
    if needed > free:
        raise SystemExit("give a folder on a larger disk, or fewer --layers")
    collection = build(options.folder, options.layers, options.memory_budget)
    store = options.folder / "lift" / "store"
    about: dict[str, Any] = {
        "collection": collection,
        "memory_budget": options.memory_budget,
        "precision": options.precision,
        **machine(),
    }
    about |= {"disk_bytes_per_second": disk_rate(store), "jobs": {}}
    print(f"{collection['nodes']:,} nodes, {collection['non_zeros']:,} non-zeros; graph built in {collection['seconds']} seconds")
    for job in options.jobs:
        drop_caches(store)
        how = (job, options.classes, options.precision, options.memory_budget, options.threads)
        scores, record = diffuse_job(options.folder, *how)
        if options.check:
            record = {**record, "largest_difference": check(Graph(store), job, options.classes, scores)}
        about["jobs"][job] = record
        sizes = f"peak {format_size(record['peak_bytes'])}, {format_size(record['bytes_read'])} read"
        print(f"{job}: {record['seconds'] / 60:.1f} min (the paper: 54 min on 24 cores, 75 GiB), {sizes}, {record}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(about, indent=1) + "\n")
    if not options.keep:
        shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
