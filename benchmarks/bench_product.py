"""One product W L: the engine's dense step against MKL and SciPy, in the same run.

Claims: on the locality order the step is never slower than MKL from 8 columns on; and, with that order, 2.5 times (hard data) to
4 times (clustered data) as fast as MKL on the nodes as they come, which is how the paper's code multiplies.

    python tools/make_collection.py hard 1000000 --folder hard-1m
    python benchmarks/bench_product.py hard-1m/store --json product.json

MKL needs ``pip install sparse_dot_mkl``. All use ``--threads`` threads but SciPy, which has one. Every result is compared with
SciPy's. Medians of ``--repeats`` alternating runs.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import alternate, load_mkl, machine, scipy_matrix

from ooc_diffusion.diffusion.iterate import InMemory, step
from ooc_diffusion.diffusion.needed import all_rows
from ooc_diffusion.diffusion.registers import MOST_COLUMNS
from ooc_diffusion.diffusion.room import make_rows
from ooc_diffusion.graph import Graph
from ooc_diffusion.parallel import limit_threads

COLUMNS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 507)
SCIPY_COLUMNS = (32, 96)


def aligned(L: np.ndarray) -> np.ndarray:
    """Copy L as the engine holds it."""
    copy = make_rows(*L.shape)
    copy[:] = L
    return copy


def measure(graph: Graph, columns: int, W: dict[str, Any], threads: int, repeats: int) -> dict[str, Any]:
    """Time all for one number of columns."""
    L = np.random.default_rng(0).random((graph.n, columns), np.float32)
    by_id = L[graph.position]
    # the engine takes batches of at most 64 columns
    batches = [aligned(L[:, first : first + MOST_COLUMNS]) for first in range(0, columns, MOST_COLUMNS)]
    outs = [InMemory(aligned(batch)) for batch in batches]
    needed = all_rows(graph, 1)
    multiply = load_mkl(threads)

    def ours() -> list[np.ndarray]:
        return [step(graph, batch, out, needed, 1, threads=threads) for batch, out in zip(batches, outs, strict=True)]

    expected = np.empty_like(L)
    calls: dict[str, Callable[[], Any]] = {
        "ours": ours,
        "mkl_ordered": functools.partial(multiply, W["ordered"], L, out=expected),
        "mkl_shuffled": functools.partial(multiply, W["shuffled"], by_id, out=np.empty_like(L)),
    }
    if columns in SCIPY_COLUMNS:
        calls["scipy_ordered"] = functools.partial(W["ordered"].__matmul__, L)
        calls["scipy_shuffled"] = functools.partial(W["shuffled"].__matmul__, by_id)
    with limit_threads(threads):
        found = np.concatenate(ours(), axis=1)
        np.testing.assert_allclose(found, multiply(W["ordered"], L), rtol=1e-4)
        del found
        # the arrays change places in each step: ours multiplies whatever is there, as much work as before
        times = alternate(calls, repeats)
    rates = {f"{name}_gflops": 2e-9 * graph.nnz * columns / seconds for name, seconds in times.items()}
    ratios = {
        "over_mkl_shuffled": times["mkl_shuffled"] / times["ours"],
        "over_mkl_ordered": times["mkl_ordered"] / times["ours"],
    }
    return {"columns": columns, **{f"{name}_seconds": value for name, value in times.items()}, **rates, **ratios}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a store with a graph, such as tools/make_collection.py leaves")
    parser.add_argument("--columns", type=int, nargs="+", default=COLUMNS, help="numbers of columns C")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--repeats", type=int, default=5, help="default: 5")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    graph = Graph(options.store)
    W = {"ordered": scipy_matrix(graph, shuffled=False), "shuffled": scipy_matrix(graph, shuffled=True)}
    print(f"W L, {graph.n:,} nodes, {graph.nnz:,} non-zeros ({graph.nnz / graph.n:.1f} a row), {options.threads} threads")
    print(f"{'C':>4}{'ours':>10}{'MKL':>10}{'MKL, shuffled':>15}   GFLOP/s;{'ours/MKL':>10}{'ours/shuffled':>15}")
    results = []
    for columns in options.columns:
        row = measure(graph, columns, W, options.threads, options.repeats)
        results.append(row)
        rates = f"{row['ours_gflops']:10.2f}{row['mkl_ordered_gflops']:10.2f}{row['mkl_shuffled_gflops']:15.2f}"
        print(f"{columns:4d}{rates}           {row['over_mkl_ordered']:10.2f}{row['over_mkl_shuffled']:15.2f}", flush=True)
    if options.json:
        about = {"nodes": graph.n, "non_zeros": graph.nnz, "threads": options.threads, "repeats": options.repeats, **machine()}
        options.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
