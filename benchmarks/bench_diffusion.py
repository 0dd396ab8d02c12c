"""The paper's online job: labels of all classes diffused, the test images read; against the paper's scheme in the same run.

Two jobs of 507 classes, 5 iterations, 25 000 test images that stand outside the graph: ``protocol``, 196 base classes with 1280
seeds each and 311 novel ones with n = 2, as the paper has them; and ``few``, n = 2 for all classes.

The peer does what the paper's code does: W in memory with its weights, nodes in the order in which they come, panels of 96
columns, 5 dense products by MKL, columns normalized after each, and the rows of the neighbors summed at the end.

    python tools/make_collection.py hard 1000000 --folder hard-1m
    python benchmarks/bench_diffusion.py hard-1m/store --json diffusion.json

Claims: 8 times as fast at a quarter of the memory for ``protocol``, 30 times for ``few``. Scores are compared. Each run is a
process of its own; its peak is that of RssAnon + RssShmem above what the process holds before the work.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import load_mkl, machine, scipy_matrix, shuffled_nodes

from ooc_diffusion import diffuse
from ooc_diffusion.graph import Graph
from ooc_diffusion.memory import MemoryMeter
from ooc_diffusion.parallel import limit_threads

N_CLASSES, N_BASE, N_ITER, PANEL = 507, 196, 5, 96
N_QUERIES, K = 25_000, 30
_SEEDS = {"base": 1280, "novel": 2}


def make_job(graph: Graph, job: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw seeds, their classes, and the neighbors of the test images, each the neighborhood of some node."""
    rng = np.random.default_rng(0)
    base = _SEEDS["base"] if job == "protocol" else _SEEDS["novel"]
    counts = np.full(N_CLASSES, _SEEDS["novel"])
    counts[rng.choice(N_CLASSES, N_BASE, replace=False)] = max(1, min(base, graph.n // (4 * N_CLASSES)))
    # the images of a class are neighbors: each class takes seeds from its own stretch of the locality order
    stretch = graph.n // N_CLASSES
    seeds = [graph.order[c * stretch + rng.choice(stretch, count, replace=False)] for c, count in enumerate(counts)]
    queries = np.full((min(N_QUERIES, graph.n // 4), K), -1, np.int64)
    for row, node in zip(queries, rng.choice(graph.n, len(queries), replace=False), strict=True):
        some = graph.indices[graph.indptr[node] : graph.indptr[node + 1]][:K] & ((1 << 31) - 1)
        row[: len(some)] = graph.order[some]
    return np.concatenate(seeds).astype(np.int64), np.repeat(np.arange(N_CLASSES), counts), queries


def ours(store: Path, job: str, threads: int, budget: str) -> tuple[np.ndarray, float, int]:
    """Diffuse; return scores, seconds and peak memory."""
    graph = Graph(store)
    seeds, classes, queries = make_job(graph, job)
    options: dict[str, Any] = {"n_iter": N_ITER, "memory_budget": budget, "threads": threads}
    diffuse(graph, seeds[:2], classes[:2], N_CLASSES, queries=queries[:9], **options)  # compiles
    with MemoryMeter() as meter:
        before = meter.sample()
        started = time.perf_counter()
        scores = diffuse(graph, seeds, classes, N_CLASSES, queries=queries, **options)
        seconds = time.perf_counter() - started
    return scores, seconds, meter.peak - before


def papers(store: Path, job: str, threads: int, budget: str) -> tuple[np.ndarray, float, int]:
    """Do as the paper's code does; return scores, seconds and peak memory, W counted."""
    graph = Graph(store)
    seeds, classes, queries = make_job(graph, job)
    multiply = load_mkl(threads)
    with MemoryMeter() as meter, limit_threads(threads):
        before = meter.sample()
        W = scipy_matrix(graph, shuffled=True)
        row = shuffled_nodes(graph)[graph.position]
        seeds, queries = row[seeds], np.where(queries >= 0, row[queries], -1)
        scores = np.empty((len(queries), N_CLASSES), np.float32)
        started = time.perf_counter()
        for begin in range(0, N_CLASSES, PANEL):
            end = min(begin + PANEL, N_CLASSES)
            inside = (classes >= begin) & (classes < end)
            L = np.zeros((graph.n, end - begin), np.float32)
            L[seeds[inside], classes[inside] - begin] = 1
            for _ in range(N_ITER):
                L = multiply(W, L)
                sums = L.sum(axis=0)
                L /= np.where(sums > 0, sums, 1)
            for first in range(0, len(queries), 1024):
                some = queries[first : first + 1024]
                scores[first : first + 1024, begin:end] = (L[some] * (some >= 0)[..., None]).sum(axis=1)
        seconds = time.perf_counter() - started
    return scores, seconds, meter.peak - before


def _run(which: str, arguments: tuple[Any, ...], pipe: Any) -> None:
    pipe.send({"ours": ours, "papers": papers}[which](*arguments))


def in_own_process(which: str, *arguments: Any) -> tuple[np.ndarray, float, int]:
    """Run one of the two in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(which, arguments, sender))
    process.start()
    sender.close()
    found = receiver.recv()
    process.join()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a store with a graph, such as tools/make_collection.py leaves")
    parser.add_argument("--jobs", nargs="+", choices=["protocol", "few"], default=["protocol", "few"], help="default: both")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--memory-budget", default="auto", help="for ours; default: auto")
    parser.add_argument("--repeats", type=int, default=3, help="default: 3")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    graph = Graph(options.store)
    print(f"{graph.n:,} nodes, {graph.nnz:,} non-zeros, {N_CLASSES} classes, {N_ITER} iterations, {options.threads} threads")
    results = []
    for job in options.jobs:
        seconds: dict[str, list[float]] = {"ours": [], "papers": []}
        peak: dict[str, int] = {}
        scores: dict[str, np.ndarray] = {}
        for _ in range(options.repeats):
            for which in seconds:
                scores[which], took, peak[which] = in_own_process(
                    which, options.store, job, options.threads, options.memory_budget
                )
                seconds[which].append(took)
        # the peer adds up a million rows in float32, which is wrong by some thousandths: columns are compared in themselves
        parts = {which: found / found.sum(axis=0, dtype=np.float64) for which, found in scores.items()}
        np.testing.assert_allclose(parts["ours"], parts["papers"], rtol=1e-4, atol=1e-12)
        medians = {which: statistics.median(values) for which, values in seconds.items()}
        row = {
            "job": job,
            "seconds": medians,
            "all_seconds": seconds,
            "peak_bytes": peak,
            "speedup": medians["papers"] / medians["ours"],
            "memory_ratio": peak["ours"] / peak["papers"],
            "largest_difference": float(np.abs(scores["ours"] - scores["papers"]).max() / scores["papers"].max()),
            "largest_difference_without_column_sums": float(
                np.abs(parts["ours"] - parts["papers"]).max() / parts["papers"].max()
            ),
        }
        results.append(row)
        print(
            f"{job:9} ours {medians['ours']:7.2f} s, {peak['ours'] / 2**20:6.0f} MiB; paper's scheme {medians['papers']:7.2f} s, "
            f"{peak['papers'] / 2**20:6.0f} MiB: {row['speedup']:.1f} times as fast at {row['memory_ratio']:.2f} of the memory",
            flush=True,
        )
    if options.json:
        about = {"nodes": graph.n, "non_zeros": graph.nnz, "threads": options.threads, "repeats": options.repeats, **machine()}
        options.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
