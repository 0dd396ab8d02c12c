"""One product W L and the paper's online job on a GPU, against the engine on the CPU in the same run.

Claims: none yet; this is the program that is to measure them.

    python tools/make_collection.py hard 1000000 --folder hard-1m
    python benchmarks/bench_gpu.py hard-1m/store --json gpu.json

Products are timed with W on the GPU and with W streamed to it, medians of ``--repeats`` alternating runs, each waited for. The
job is that of bench_diffusion.py, 5 iterations, loading W counted. Every result is compared with that of the CPU.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_diffusion import N_CLASSES, N_ITER, make_job
from bench_product import aligned
from peers import alternate, machine

from ooc_diffusion import diffuse
from ooc_diffusion.diffusion.device_matrix import DeviceMatrix
from ooc_diffusion.diffusion.gpu import iterates
from ooc_diffusion.diffusion.iterate import InMemory, step
from ooc_diffusion.diffusion.needed import all_rows
from ooc_diffusion.diffusion.registers import MOST_COLUMNS
from ooc_diffusion.graph import Graph
from ooc_diffusion.parallel import limit_threads

COLUMNS = (1, 8, 32, 64, 128, 256, 507)
# Sums of some thousand float32 in another order.
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-12}


def on_cpu(graph: Graph, batches: list[np.ndarray], outs: list[InMemory], threads: int) -> np.ndarray:
    """Multiply on the CPU, in batches of the columns that are fastest there."""
    needed = all_rows(graph, 1)
    done = [step(graph, batch, out, needed, 1, threads=threads) for batch, out in zip(batches, outs, strict=True)]
    return np.concatenate(done, axis=1)


def on_gpu(W: DeviceMatrix, L: Any) -> Any:
    """Multiply on the GPU and wait for it."""
    import torch

    *_, (_, done) = iterates(W, L, 1, [None, None])
    torch.cuda.synchronize()
    return done


def measure_product(graph: Graph, columns: int, matrices: dict[str, DeviceMatrix], threads: int, repeats: int) -> dict[str, Any]:
    """Time one product for one number of columns."""
    import torch

    L = np.random.default_rng(0).random((graph.n, columns), np.float32)
    batches = [aligned(L[:, first : first + MOST_COLUMNS]) for first in range(0, columns, MOST_COLUMNS)]
    sent = torch.from_numpy(L).to("cuda")
    calls = {name: functools.partial(on_gpu, W, sent) for name, W in matrices.items()}
    with limit_threads(threads):
        expected = on_cpu(graph, [batch.copy() for batch in batches], [InMemory(aligned(batch)) for batch in batches], threads)
        for call in calls.values():
            np.testing.assert_allclose(call().cpu().numpy(), expected, **CLOSE)
        del expected
        outs = [InMemory(aligned(batch)) for batch in batches]
        times = alternate({"cpu": functools.partial(on_cpu, graph, batches, outs, threads), **calls}, repeats)
    rates = {f"{name}_gflops": 2e-9 * graph.nnz * columns / seconds for name, seconds in times.items()}
    speedups = {f"{name}_speedup": times["cpu"] / times[name] for name in calls}
    return {"columns": columns, **{f"{name}_seconds": value for name, value in times.items()}, **rates, **speedups}


def measure_job(graph: Graph, job: str, budget: str, threads: int, repeats: int) -> dict[str, Any]:
    """Time the whole job on both."""
    seeds, classes, queries = make_job(graph, job)
    options: dict[str, Any] = {"n_iter": N_ITER, "memory_budget": budget, "threads": threads}
    seconds: dict[str, list[float]] = {"cpu": [], "cuda": []}
    for device in seconds:
        diffuse(graph, seeds[:2], classes[:2], N_CLASSES, queries=queries[:9], device=device, **options)  # compiles, loads
    found: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for device, times in seconds.items():
            started = time.perf_counter()
            found[device] = diffuse(graph, seeds, classes, N_CLASSES, queries=queries, device=device, **options)
            times.append(time.perf_counter() - started)
    np.testing.assert_allclose(found["cuda"], found["cpu"], **CLOSE)
    medians = {device: statistics.median(times) for device, times in seconds.items()}
    return {"job": job, "seconds": medians, "all_seconds": seconds, "speedup": medians["cpu"] / medians["cuda"]}


def gpu_name() -> str:
    """Return the name of the GPU, or end the program where there is none."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU: there is nothing to measure (see `ooc-diffusion doctor`)")
    return torch.cuda.get_device_name()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a store with a graph, such as tools/make_collection.py leaves")
    parser.add_argument("--columns", type=int, nargs="+", default=COLUMNS, help="numbers of columns C")
    parser.add_argument("--jobs", nargs="*", choices=["protocol", "few"], default=["protocol", "few"], help="default: both")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--memory-budget", default="auto", help="for the jobs; default: auto")
    parser.add_argument("--repeats", type=int, default=3, help="default: 3")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    name = gpu_name()
    import torch

    graph = Graph(options.store)
    device = torch.device("cuda", torch.cuda.current_device())
    matrices = {which: DeviceMatrix(graph, device, resident=which == "resident") for which in ("resident", "streamed")}
    print(f"{name}, {graph.n:,} nodes, {graph.nnz:,} non-zeros, {options.threads} threads for the CPU")
    print(f"{'C':>4}{'CPU':>10}{'resident':>10}{'streamed':>10}   GFLOP/s;{'speedup':>10}{'streamed':>10}")
    products = []
    for columns in options.columns:
        row = measure_product(graph, columns, matrices, options.threads, options.repeats)
        products.append(row)
        rates = f"{row['cpu_gflops']:10.2f}{row['resident_gflops']:10.2f}{row['streamed_gflops']:10.2f}"
        print(f"{columns:4d}{rates}           {row['resident_speedup']:10.2f}{row['streamed_speedup']:10.2f}", flush=True)
    matrices.clear()
    jobs = []
    for job in options.jobs:
        row = measure_job(graph, job, options.memory_budget, options.threads, options.repeats)
        jobs.append(row)
        cpu, cuda = row["seconds"].values()
        print(f"{job:9} CPU {cpu:7.2f} s, GPU {cuda:7.2f} s: {row['speedup']:.1f} times as fast", flush=True)
    if options.json:
        about = {"gpu": name, "nodes": graph.n, "non_zeros": graph.nnz, "threads": options.threads, "repeats": options.repeats}
        options.json.write_text(json.dumps({**about, **machine(), "products": products, "jobs": jobs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
