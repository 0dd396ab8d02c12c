"""What a diffusion is planned to do, and to take, beside what it does: the paper's online job.

Claim: the time planned is within 30 % of the time taken.

    python benchmarks/bench_plan.py hard-1m/store --job protocol
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from bench_diffusion import N_CLASSES, N_ITER, make_job

from ooc_diffusion.cli.tables import show
from ooc_diffusion.diffusion import Diffusion, forecast, write_scores
from ooc_diffusion.graph import Graph
from ooc_diffusion.memory import MemoryBudget, MemoryMeter
from ooc_diffusion.parallel import limit_threads
from ooc_diffusion.store import Store


def main() -> None:
    """Plan, diffuse, print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a store with a graph, such as tools/make_collection.py leaves")
    parser.add_argument("--job", choices=["protocol", "few"], default="protocol", help="default: protocol")
    parser.add_argument("--memory-budget", default="auto", help="default: auto")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    options = parser.parse_args()
    graph, budget = Graph(options.store), MemoryBudget.parse(options.memory_budget)
    seeds, classes, queries = make_job(graph, options.job)
    what = Diffusion(seeds, classes, N_CLASSES, N_ITER, queries)
    with limit_threads(options.threads) as threads, Store.temporary().job("diffuse", parameters={}) as job:
        planned = forecast(graph, what, budget=budget, threads=threads)
        started = time.perf_counter()
        with MemoryMeter() as meter:
            record = write_scores(job, graph, what, name="scores", budget=budget, threads=threads)
        seconds = time.perf_counter() - started
    show({"stage": "diffuse", "planned": planned, **record, "seconds": seconds, "peak_memory_bytes": meter.peak})
    print(f"planned {sum(step['seconds'] for step in planned):.1f} s, took {seconds:.1f} s")


if __name__ == "__main__":
    main()
