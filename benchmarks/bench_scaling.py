"""How the time of a diffusion grows with the nodes N, the classes C and the neighbors k: measured, and fitted.

    python benchmarks/bench_scaling.py hard-200k hard-1m hard-10m --json scaling.json

takes folders that tools/make_collection.py or tools/lift_graph.py left. The job has n seeds for each class, 5 iterations, 25 000
test images. N varies with all classes and the k of the collections; C and k on the second folder, whose table is cut to fewer
neighbors for this. The exponents of seconds = a N^x C^y k^z are fitted to the logarithms of all medians. The largest deviation is
printed too: where it is large, the formula says little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_diffusion import N_ITER, N_QUERIES, K
from peers import machine

from ooc_diffusion import build_graph, diffuse
from ooc_diffusion.graph import Graph
from ooc_diffusion.memory import MemoryMeter

CLASSES, NEIGHBORS = (32, 128, 507), (10, 20, 30)
POSITION = (1 << 31) - 1


def make_job(graph: Graph, n_classes: int, n_seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the seeds of each class from its own stretch of the locality order, and the neighbors of the test images."""
    rng = np.random.default_rng(0)
    stretch = graph.n // n_classes
    seeds = [graph.order[c * stretch + rng.choice(stretch, n_seeds, replace=False)] for c in range(n_classes)]
    queries = np.full((min(N_QUERIES, graph.n // 4), K), -1, np.int64)
    for row, node in zip(queries, rng.choice(graph.n, len(queries), replace=False), strict=True):
        some = graph.indices[graph.indptr[node] : graph.indptr[node + 1]][:K] & POSITION
        row[: len(some)] = graph.order[some]
    return np.concatenate(seeds).astype(np.int64), np.repeat(np.arange(n_classes), n_seeds), queries


def measure(graph: Graph, k: int, n_classes: int, options: argparse.Namespace) -> dict[str, Any]:
    """Diffuse a few times; return sizes, seconds and peak."""
    seeds, classes, queries = make_job(graph, n_classes, options.seeds)
    seconds = []
    with MemoryMeter() as meter:
        for _ in range(options.repeats):
            started = time.perf_counter()
            diffuse(
                graph,
                seeds,
                classes,
                n_classes,
                queries=queries,
                n_iter=N_ITER,
                memory_budget=options.memory_budget,
                threads=options.threads,
            )
            seconds.append(time.perf_counter() - started)
    row = {"n": graph.n, "k": k, "classes": n_classes, "non_zeros": graph.nnz, "seconds": statistics.median(seconds)}
    print(f"N {graph.n:>11,}  k {k:>3}  C {n_classes:>4}  {row['seconds']:8.2f} s", flush=True)
    return {**row, "all_seconds": seconds, "peak_bytes": meter.peak}


def fit(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return a, x, y, z of seconds = a N^x C^y k^z, and the largest factor between formula and measurement."""
    factors = np.array([[1.0, np.log(row["n"]), np.log(row["classes"]), np.log(row["k"])] for row in rows])
    seconds = np.log([row["seconds"] for row in rows])
    found, *_ = np.linalg.lstsq(factors, seconds, rcond=None)
    off = float(np.exp(np.abs(factors @ found - seconds).max()))
    return {"a": float(np.exp(found[0])), "x": found[1], "y": found[2], "z": found[3], "largest_factor": off}


def main() -> None:
    """Measure, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="collections, at least two, of ascending size")
    parser.add_argument("--seeds", type=int, default=20, help="n, per class; default: 20")
    parser.add_argument("--memory-budget", default="4GiB", help="the same for all; default: 4GiB")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--repeats", type=int, default=3, help="default: 3")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    if len(options.folders) < 2:
        raise SystemExit("give two collections or more: N must vary")
    first = Graph(options.folders[0] / "store")
    diffuse(
        first, np.arange(2), np.arange(2), 2, queries=np.array([[0]]), n_iter=N_ITER, memory_budget=options.memory_budget
    )  # compiles
    rows = [measure(Graph(folder / "store"), max(NEIGHBORS), max(CLASSES), options) for folder in options.folders]
    middle = options.folders[1]
    rows += [measure(Graph(middle / "store"), max(NEIGHBORS), classes, options) for classes in CLASSES[:-1]]
    table = np.load(middle / "neighbors.npy", mmap_mode="r")
    for k in NEIGHBORS[:-1]:
        with tempfile.TemporaryDirectory() as folder:
            graph = build_graph(np.ascontiguousarray(table[:, :k]), store=Path(folder) / "store")
            rows.append(measure(graph, k, max(CLASSES), options))
    found = fit(rows)
    print(
        f"seconds = {found['a']:.3g} N^{found['x']:.2f} C^{found['y']:.2f} k^{found['z']:.2f}, "
        f"within a factor of {found['largest_factor']:.2f}"
    )
    if options.json:
        options.json.write_text(json.dumps({**machine(), "seeds": options.seeds, "rows": rows, "fit": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
