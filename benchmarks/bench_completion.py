"""Completing a background table with seeds: W_BL by lists, and exactly, beside brute force, as in the paper.

    python tools/make_collection.py hard 1275622 --dimensions 256 --vectors-only --folder hard256
    python benchmarks/bench_completion.py hard256/vectors.npy --json completion.json

The last rows of the collection are the tests, those before them the seeds, the rest the background, whose table is searched list
after list first. The paper's way searches every background vector among all seeds; it is timed on some rows, and its time for all
of them is that times their number. Recall is that of W_BL: which of the seeds in the k best of a background vector are found.

Goals: 20 times as fast as brute force at 0.99 of its recall; exact mode finds what brute force does, and is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers import machine

from ooc_diffusion.memory import MemoryBudget, MemoryMeter
from ooc_diffusion.neighbors import entering, inverse
from ooc_diffusion.parallel import limit_threads
from ooc_diffusion.stages.completion import How, reach_of_seeds
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.ordered_search import open_lists
from ooc_diffusion.stages.settings import Settings, Worker
from ooc_diffusion.store import Store

K = 30
BLOCK = 65536
TORCH_ROWS = 512


def fill(store: Store, vectors: np.ndarray, n_seeds: int, n_tests: int) -> None:
    """Put the vectors of each role into a store, as `reduce` leaves them."""
    bounds = {"background": (0, -n_seeds - n_tests), "seeds": (-n_seeds - n_tests, -n_tests), "tests": (-n_tests, len(vectors))}
    for role, (begin, end) in bounds.items():
        part = vectors[begin:end]
        with store.job(f"reduce.{role}", parameters={}) as job:
            out = job.array(f"{role}/vectors", "<f4", part.shape)
            for first in range(0, len(part), BLOCK):
                out.append(np.ascontiguousarray(part[first : first + BLOCK]))
            job.publish({})


def by_lists(store: Store, recall: float | None, threads: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Find the seeds that enter, with a recall or exactly; return seconds, how many enter each list, and which."""
    started = time.perf_counter()
    lists, order = open_lists(store), np.argsort(store.array("seeds/lists"), kind="stable")
    seeds = np.ascontiguousarray(store.array("seeds/vectors")[order])
    least = np.ascontiguousarray(store.array("background/similarities")[:, K - 1][np.asarray(lists.order)])
    with Store.temporary().job("reach", parameters={}) as job:
        worker = Worker(job, MemoryBudget.parse("auto"), threads, lambda done: None)
        how = How(exact=recall is None, target_recall=recall or 1.0)
        reach = reach_of_seeds(worker, lists, seeds, least, K, how)
    parts = list(entering(lists, seeds, least, k=K, reach=reach, threads=threads))
    counts, ids = (np.concatenate([getattr(part, name) for part in parts]) for name in ("counts", "seeds"))
    return time.perf_counter() - started, counts, order[ids]


def brute_force(store: Store, rows: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Search some background vectors among all seeds with faiss (Flat), as the paper does; return seconds, ids, similarities."""
    import faiss

    index = faiss.IndexFlatIP(store.entry("seeds/vectors").shape[1])
    index.add(np.array(store.array("seeds/vectors")))
    started = time.perf_counter()
    similarities, ids = index.search(np.ascontiguousarray(store.array("background/vectors")[rows]), K)
    return time.perf_counter() - started, ids, similarities


def dense_products(store: Store, rows: np.ndarray) -> float:
    """Do the same with torch's product and topk; return seconds."""
    import torch

    vectors, seeds = store.array("background/vectors"), torch.from_numpy(np.array(store.array("seeds/vectors")))
    started = time.perf_counter()
    for first in range(0, len(rows), TORCH_ROWS):
        torch.topk(torch.from_numpy(np.ascontiguousarray(vectors[rows[first : first + TORCH_ROWS]])) @ seeds.T, K)
    return time.perf_counter() - started


def kept(store: Store, rows: np.ndarray, ids: np.ndarray, similarities: np.ndarray) -> list[set[int]]:
    """Return the seeds of each row that stand among the k best of seeds and background together."""
    known = store.array("background/similarities")[rows][:, :K]
    both = np.concatenate([similarities, known], axis=1)
    best = np.argsort(-both, axis=1, kind="stable")[:, :K]
    return [set(a[chosen[chosen < K]]) - {-1} for a, chosen in zip(ids, best, strict=True)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path, help="an .npy of vectors (n, d), float32, of unit length")
    parser.add_argument("--seeds", type=int, default=250_622, help="default: 250622, as in the paper")
    parser.add_argument("--tests", type=int, default=25_000, help="default: 25000")
    parser.add_argument("--target-recall", type=float, default=0.95, help="of the background table; default: 0.95")
    parser.add_argument("--recall-of-seeds", type=float, default=0.99, help="of W_BL; default: 0.99")
    parser.add_argument("--peer-rows", type=int, default=50_000, help="rows brute force is timed on; default: 50000")
    parser.add_argument("--exact", action="store_true", help="measure the exact mode as well")
    parser.add_argument("--memory-budget", default="4GiB", help="default: 4GiB")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    settings = Settings(memory_budget=options.memory_budget, threads=options.threads)
    with (
        tempfile.TemporaryDirectory(dir=options.vectors.parent) as folder,
        limit_threads(options.threads),
        MemoryMeter() as meter,
    ):
        store = Store(Path(folder) / "store", create=True)
        fill(store, np.load(options.vectors, mmap_mode="r"), options.seeds, options.tests)
        offline = neighbors(store, k=K, index="list-major", target_recall=options.target_recall, settings=settings)
        n = len(store.array("background/vectors"))
        rows = np.sort(np.random.default_rng(0).choice(n, min(options.peer_rows, n), replace=False))
        results: dict[str, Any] = {role: record["seconds"] for role, record in offline.items()}
        results |= {"n": n, "recall_of_background": offline["background"]["recall"]}
        seconds, ids, similarities = brute_force(store, rows)
        results["faiss_seconds_for_all"] = seconds * n / len(rows)
        results["torch_seconds_for_all"] = dense_products(store, rows) * n / len(rows)
        truth = kept(store, rows, ids, similarities)
        position = inverse(store.array("background/order"))[rows].astype(np.int64)
        for name, recall in [("by_lists", options.recall_of_seeds), *([("exact", None)] if options.exact else [])]:
            seconds, counts, found = by_lists(store, recall, options.threads)
            ends = np.cumsum(counts, dtype=np.int64)
            mine = [set(found[end - count : end]) for end, count in zip(ends[position], counts[position], strict=True)]
            hits = sum(len(a & b) for a, b in zip(truth, mine, strict=True))
            results[name] = {
                "seconds": seconds,
                "times_as_fast_as_faiss": results["faiss_seconds_for_all"] / seconds,
                "times_as_fast_as_torch": results["torch_seconds_for_all"] / seconds,
                "recall": hits / sum(map(len, truth)),
                "entered": len(found),
            }
            print(name, results[name], flush=True)
        results["graph"] = graph(store, settings=settings)["seconds"]
    results["peak_bytes"] = meter.peak
    print(json.dumps(results, indent=1))
    if options.json:
        options.json.write_text(json.dumps({**machine(), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
