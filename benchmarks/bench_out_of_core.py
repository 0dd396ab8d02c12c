"""The same diffusion under smaller and smaller budgets, from a cold cache: time, bytes read, peak memory, and the same bytes.

Claims: the scores are the same under every budget; the budget is never passed; with 32 columns or more per batch the run takes
at most 15 % longer than with all the memory.

    python tools/lift_graph.py hard-200k --layers 50 --folder hard-10m
    python benchmarks/bench_out_of_core.py hard-10m/store --budgets 1GiB 2GiB 4GiB 8GiB auto --json out_of_core.json

Before each run the files of the store are put out of the system's cache (as root all of the cache is dropped). Each run is a
process of its own. The rate of the disk itself is that of one reading of W in large blocks, cold.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_diffusion import make_job
from peers import machine

from ooc_diffusion import build_graph, diffuse
from ooc_diffusion.graph import Graph
from ooc_diffusion.memory import MemoryBudget, MemoryMeter, disk_bytes_read, format_size

N_ITER = 5


def drop_caches(store: Path) -> None:
    """Put the files of a store out of the system's cache."""
    os.sync()
    for file in (store / "data").iterdir():
        fd = os.open(file, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("1\n")


def disk_rate(store: Path) -> float:
    """Read W once, cold, and return bytes per second."""
    drop_caches(store)
    file = max((store / "data").iterdir(), key=lambda file: file.stat().st_size)
    buffer = bytearray(2**24)
    started = time.perf_counter()
    with file.open("rb", buffering=0) as source:
        while source.readinto(buffer):
            pass
    return file.stat().st_size / (time.perf_counter() - started)


def run(store: Path, budget: str, classes: int, threads: int, job: tuple[np.ndarray, ...], pipe: Any) -> None:
    """Diffuse a job, and send what was measured; it comes drawn, since drawing it reads W."""
    seeds, seed_classes, queries = job
    options: dict[str, Any] = {"n_iter": N_ITER, "memory_budget": budget, "threads": threads}
    small = build_graph((np.arange(999)[:, None] + np.arange(3)) % 999)
    diffuse(small, np.array([0]), np.array([0]), 1, queries=np.array([[500]]), **options)  # compiles
    drop_caches(store)  # before the files are mapped: what is mapped stays
    graph = Graph(store)
    before = disk_bytes_read()
    started = time.perf_counter()
    with MemoryMeter() as meter:
        scores = diffuse(graph, seeds, seed_classes, classes, queries=queries, **options)
    row = {
        "budget": budget,
        "budget_bytes": MemoryBudget.parse(budget).total,
        "seconds": time.perf_counter() - started,
        "peak_bytes": meter.peak,
        "bytes_read": disk_bytes_read() - before,
        "digest": hashlib.sha256(scores.tobytes()).hexdigest(),
    }
    pipe.send(row)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a store with a graph, such as tools/lift_graph.py leaves")
    parser.add_argument("--budgets", nargs="+", default=["auto"], help="memory budgets, such as 2GiB; default: auto")
    parser.add_argument("--classes", type=int, default=64, help="number of classes; default: 64")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    rate = disk_rate(options.store)
    print(f"{Graph(options.store)}, {options.classes} classes, {N_ITER} iterations; the disk reads {rate / 1e9:.2f} GB/s")
    print(f"{'budget':>8}{'seconds':>9}{'peak':>11}{'read':>11}{'GB/s':>7}")
    seeds, seed_classes, queries = make_job(Graph(options.store), "protocol")
    kept = seed_classes < options.classes
    job = seeds[kept], seed_classes[kept], queries
    context = multiprocessing.get_context("spawn")
    results = []
    for budget in options.budgets:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=run, args=(options.store, budget, options.classes, options.threads, job, sender))
        process.start()
        sender.close()
        row = receiver.recv()
        process.join()
        results.append(row)
        sizes = f"{format_size(row['peak_bytes']):>11}{format_size(row['bytes_read']):>11}"
        print(f"{budget:>8}{row['seconds']:9.1f}{sizes}{row['bytes_read'] / row['seconds'] / 1e9:7.2f}", flush=True)
    if len({row["digest"] for row in results}) > 1:
        raise SystemExit("the scores differ between budgets")
    passed = [row["budget"] for row in results if row["peak_bytes"] > row["budget_bytes"]]
    if passed:
        raise SystemExit(f"these budgets were passed: {', '.join(passed)}")
    print("same scores under every budget; no budget was passed")
    if options.json:
        about = {"store": str(options.store), "disk_bytes_per_second": rate, "classes": options.classes, **machine()}
        options.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
