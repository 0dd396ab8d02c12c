"""The neighbor table of a collection: list-major search beside faiss IVFFlat, faiss HNSW and PyNNDescent.

    python tools/make_collection.py hard 1000000 --dimensions 64 --vectors-only --folder hard64-1m
    python benchmarks/bench_neighbors.py hard64-1m/vectors.npy --recall 0.95 0.99 --json neighbors.json

List-major and IVFFlat visit the same lists, those that the recall takes on a sample; centroids and the list of each vector are
made once, before. HNSW and PyNNDescent are given more and more effort until their recall is as high. Times are for all that comes
after: list-major sorts, copies the vectors, searches, puts the table in order and syncs it to disk; the others build their index
in memory and search it. Each run is a process of its own; its peak is that of RssAnon + RssShmem, in all and above what the
process holds before the work. With `--peer-rows R`, the indexes of faiss hold all vectors but search for R random ones alone,
those on which recall is measured, and the seconds of that search are multiplied by N / R: the work is the same for each.

Claims: 3 times as fast as IVFFlat at the same recall, and at most 1 GiB in all.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers import machine

from ooc_diffusion.memory import MemoryBudget, MemoryMeter
from ooc_diffusion.neighbors import (
    SAMPLES,
    Inverted,
    assign_lists,
    draw_sample,
    measure_recall,
    probes_for,
    train_centroids,
)
from ooc_diffusion.neighbors.search import inverted_index
from ooc_diffusion.parallel import limit_threads
from ooc_diffusion.stages.ordered_search import search_among_itself
from ooc_diffusion.stages.settings import Worker
from ooc_diffusion.store import Store

K, WIDTH = 30, 32


def list_major(vectors: np.ndarray, inverted: Inverted, probes: int, options: argparse.Namespace) -> np.ndarray:
    """Search list after list; return the table."""
    budget = MemoryBudget.parse(options.memory_budget)
    with Store.temporary().job("neighbors", parameters={}) as job:
        worker = Worker(job, budget, options.threads, lambda done: None)
        ids = search_among_itself(worker, vectors, inverted, width=WIDTH, probes=probes, precision=options.precision)
        return np.array(ids.view())


def ivf_flat(vectors: np.ndarray, inverted: Inverted, probes: int, options: argparse.Namespace) -> Any:
    """Fill inverted lists of faiss."""
    return inverted_index(vectors, inverted, probes, "inner product")


def hnsw(vectors: np.ndarray, inverted: Inverted, effort: int, options: argparse.Namespace) -> Any:
    """Build faiss's HNSW: efSearch is the effort."""
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 40
    index.add(np.ascontiguousarray(vectors))
    return index


def nn_descent(vectors: np.ndarray, inverted: Inverted, effort: int, options: argparse.Namespace) -> np.ndarray:
    """Let PyNNDescent make its graph: the effort is the number of neighbors that it keeps."""
    from pynndescent import NNDescent

    index = NNDescent(np.ascontiguousarray(vectors), metric="dot", n_neighbors=effort, n_jobs=options.threads, random_state=0)
    return np.asarray(index.neighbor_graph[0])


TABLES: dict[str, Callable[..., np.ndarray]] = {"list-major": list_major, "PyNNDescent": nn_descent}
INDEXES: dict[str, Callable[..., Any]] = {"IVFFlat": ivf_flat, "HNSW": hnsw}
EFFORTS = {"HNSW": (48, 64, 96, 128, 192, 256, 384, 512), "PyNNDescent": (32, 48, 64, 96)}
Run = dict[str, Any]


def run_table(name: str, vectors: np.ndarray, inverted: Inverted, effort: int, options: argparse.Namespace) -> Iterator[Run]:
    """Make the table of all vectors."""
    started = time.perf_counter()
    table = TABLES[name](vectors, inverted, effort, options)
    yield {"seconds": time.perf_counter() - started, "effort": effort, "ids": table[options.sample.rows]}


def run_index(
    name: str, vectors: np.ndarray, inverted: Inverted, efforts: list[int], options: argparse.Namespace
) -> Iterator[Run]:
    """Build an index and search it, with one effort after the other."""
    started = time.perf_counter()
    index = INDEXES[name](vectors, inverted, efforts[0], options)
    built = time.perf_counter() - started
    rows = options.sample.rows if options.peer_rows else np.arange(len(vectors))
    queries = np.ascontiguousarray(vectors[rows])
    for effort in efforts:
        if name == "HNSW":
            index.hnsw.efSearch = effort
        started = time.perf_counter()
        ids = index.search(queries, WIDTH)[1]
        searched = (time.perf_counter() - started) * len(vectors) / len(rows)
        yield {
            "seconds": built + searched,
            "effort": effort,
            "ids": ids if options.peer_rows else ids[options.sample.rows],
        }


def _work(pipe: Any, name: str, files: Path, efforts: list[int], wanted: float, options: argparse.Namespace) -> None:
    vectors = np.load(options.vectors, mmap_mode="r")
    inverted = Inverted(np.load(files / "centroids.npy"), np.load(files / "lists.npy", mmap_mode="r"))
    with limit_threads(options.threads):
        if name in TABLES:
            some = np.asarray(vectors[:20_000])
            TABLES[name](some, Inverted(inverted.centroids, np.array(inverted.lists[:20_000])), 40, options)  # compiles
        with MemoryMeter() as meter:
            before = meter.sample()
            runs = (
                run_index(name, vectors, inverted, efforts, options)
                if name in INDEXES
                else (run for effort in efforts for run in run_table(name, vectors, inverted, effort, options))
            )
            for run in runs:
                run["recall"] = measure_recall(options.sample, run.pop("ids"), vectors)["recall"]
                if run["recall"] >= wanted or run["effort"] == efforts[-1]:
                    break
    pipe.send({**run, "peak_bytes": meter.peak - before, "peak_in_all_bytes": meter.peak})


def in_own_process(*arguments: Any) -> Run:
    """Run a method in a fresh process; return effort, recall, seconds, and its peak of memory: of the work, and in all."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, *arguments))
    process.start()
    sender.close()
    found: Run = receiver.recv()
    process.join()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path, help="an .npy of vectors (n, d), float32, of unit length")
    parser.add_argument("--recall", type=float, nargs="+", default=[0.95, 0.99], help="recall@30; default: 0.95 0.99")
    parser.add_argument(
        "--methods", nargs="+", choices=[*TABLES, *INDEXES], default=["list-major", "IVFFlat"], help="default: these two"
    )
    parser.add_argument("--precision", default="float32", choices=["float32", "float16"], help="of list-major; default: float32")
    parser.add_argument("--memory-budget", default="1GiB", help="of list-major; default: 1GiB")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--repeats", type=int, default=3, help="of list-major and IVFFlat, alternating; default: 3")
    parser.add_argument("--peer-rows", type=int, help="rows that the indexes of faiss search for; default: all")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    vectors = np.load(options.vectors, mmap_mode="r")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        with limit_threads(options.threads):
            started = time.perf_counter()
            centroids = train_centroids(vectors)
            trained = time.perf_counter()
            blocks = [assign_lists(np.asarray(vectors[i : i + 65536]), centroids) for i in range(0, len(vectors), 65536)]
            lists = np.concatenate(blocks)
            before = {"training": trained - started, "assigning": time.perf_counter() - trained}
            sample = draw_sample(vectors, k=K, n_samples=options.peer_rows or SAMPLES)
        np.save(files / "centroids.npy", centroids)
        np.save(files / "lists.npy", lists)
        options.sample = sample
        print(f"{len(vectors):,} vectors of {vectors.shape[1]}, {len(centroids):,} lists, {options.threads} threads; {before}")
        for wanted in options.recall:
            probes = probes_for(sample, lists, centroids, target_recall=wanted)
            measured: dict[str, list[Run]] = {}
            for _ in range(options.repeats):
                for name in options.methods:
                    if name in EFFORTS and name in measured:
                        continue
                    efforts = list(EFFORTS.get(name, (probes,)))
                    measured.setdefault(name, []).append(in_own_process(name, files, efforts, wanted, options))
            for name, found in measured.items():
                row = {
                    "recall_wanted": wanted,
                    "method": name,
                    **found[-1],
                    "seconds": statistics.median(run["seconds"] for run in found),
                    "all_seconds": [run["seconds"] for run in found],
                }
                results.append(row)
                print(
                    f"recall {wanted}: {name:12} effort {row['effort']:4}  recall {row['recall']:.4f}  {row['seconds']:8.1f} s  "
                    f"{row['peak_bytes'] / 2**20:6.0f} MiB ({row['peak_in_all_bytes'] / 2**20:.0f} in all)",
                    flush=True,
                )
    if options.json:
        about = {
            "vectors": vectors.shape,
            "threads": options.threads,
            "repeats": options.repeats,
            "peer_rows": options.peer_rows,
            "before": before,
            **machine(),
        }
        options.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
