"""The product W L: `ooc_diffusion.diffusion.kernels` against SciPy, in the same run and on the same graph.

Claim: with constant weights the streaming product is not slower than ``scipy.sparse.csr_array @ dense`` in float32, though it
reads half the bytes per edge from files and accumulates in float64.

Run from the root of the repository::

    python benchmarks/bench_product.py --json product.json
    python benchmarks/bench_product.py --root /usr/share/datasets/fashion-mnist --threads 1

The graph is that of the 60 000 training images of Fashion-MNIST (pixels, PCA-64, exact neighbors, k = 30) where ``--root`` has
them, else of ``--nodes`` points of a mixture of Gaussians in 16 dimensions. Ours and SciPy alternate, ``--repeats`` times each;
medians and their ratio are printed. SciPy uses one thread; ours is timed with one thread and with ``--threads``. SciPy
multiplies a W whose weights are stored, in the same order of the nodes, so that locality helps both.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ooc_diffusion.diffusion import kernels
from ooc_diffusion.graph import Graph, build_graph, locality_order
from ooc_diffusion.neighbors import assign_lists, search, train_centroids
from ooc_diffusion.parallel import limit_threads

COLUMNS = (1, 8, 32, 64, 128)


def fashion_mnist(root: Path) -> np.ndarray:
    """Return the training images as unit vectors of 64 principal components, float32 (60000, 64)."""
    import gzip

    with gzip.open(root / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    centered = pixels / np.float32(255) - pixels.mean(axis=0, dtype=np.float64).astype(np.float32) / np.float32(255)
    directions = np.linalg.eigh(centered.T.astype(np.float64) @ centered)[1][:, :-65:-1]
    return unit_rows(centered @ directions.astype(np.float32))


def mixture(n: int) -> np.ndarray:
    """Return points of 200 Gaussians in 16 dimensions, as unit vectors."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(200, 16))
    return unit_rows((centers[rng.integers(0, 200, n)] + 0.5 * rng.normal(size=(n, 16))).astype(np.float32))


def unit_rows(X: np.ndarray) -> np.ndarray:
    """Scale rows to unit length."""
    return np.ascontiguousarray(X / np.linalg.norm(X, axis=1, keepdims=True), np.float32)


def make_graph(vectors: np.ndarray, k: int) -> Graph:
    """Build the graph of the k nearest neighbors, in locality order."""
    centroids = train_centroids(vectors)
    order = locality_order(assign_lists(vectors, centroids), centroids)
    table = np.concatenate([ids for ids, _ in search(vectors, vectors, k=k)])
    return build_graph(table, order=order)


def scipy_matrix(graph: Graph) -> sp.csr_array:
    """Return W with explicit float32 weights, its nodes in the order of the graph."""
    entries = np.asarray(graph.indices)
    scale = np.repeat(graph.row_scale, np.diff(graph.indptr))
    weights = (1 + (entries >> 31)).astype(np.float32) * scale
    indices = (entries & kernels.POSITION).astype(np.int32)
    return sp.csr_array((weights, indices, graph.indptr.astype(np.int32)), shape=(graph.n, graph.n))


def ours(graph: Graph, L: np.ndarray, out: np.ndarray, threads: int) -> Callable[[], object]:
    """Return a call that writes W L into ``out``."""
    shares = np.linspace(0, graph.nnz, 16 * threads + 1)[1:-1]
    bounds = np.concatenate([[0], np.searchsorted(graph.indptr[1:], shares), [graph.n]])

    def run() -> None:
        with limit_threads(threads):
            kernels.multiply(bounds, graph.indptr, graph.indices, graph.row_scale, L, out)

    return run


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(graph: Graph, threads: int, repeats: int) -> list[dict[str, Any]]:
    """Time ours (1 and ``threads`` threads) and SciPy, alternating, for each number of columns."""
    W = scipy_matrix(graph)
    results = []
    for columns in COLUMNS:
        L = np.random.default_rng(0).random((graph.n, columns), np.float32)
        out = np.empty_like(L)
        calls: dict[str, Callable[[], object]] = {
            "one_thread": ours(graph, L, out, 1),
            "threads": ours(graph, L, out, threads),
            "scipy": functools.partial(W.__matmul__, L),
        }
        for call in calls.values():
            call()  # compiles, and reads the files
        np.testing.assert_allclose(out, W @ L, rtol=1e-4)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(repeats):
            for name, call in calls.items():
                times[name].append(seconds(call))
        median = {name: float(np.median(values)) for name, values in times.items()}
        results.append(
            {
                "columns": columns,
                **{f"{name}_seconds": value for name, value in median.items()},
                "speedup_one_thread": median["scipy"] / median["one_thread"],
                "speedup": median["scipy"] / median["threads"],
                "billion_multiply_adds_per_second": graph.nnz * columns / median["threads"] / 1e9,
            }
        )
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="folder of Fashion-MNIST")
    parser.add_argument("--nodes", type=int, default=100_000, help="nodes of the synthetic graph, where there is no such folder")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--repeats", type=int, default=7, help="default: 7")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    real = options.root.is_dir()
    graph = make_graph(fashion_mnist(options.root) if real else mixture(options.nodes), 30)
    what = "Fashion-MNIST" if real else "mixture of Gaussians"
    results = measure(graph, options.threads, options.repeats)
    print(f"W L on {what}: {graph.n:,} nodes, {graph.nnz:,} entries; medians of {options.repeats}, times in ms")
    print(f"{'columns':>8}{'SciPy':>10}{'1 thread':>10}{f'{options.threads} threads':>11}{'ratio 1':>9}{'ratio':>7}")
    for row in results:
        times = [1000 * row[f"{name}_seconds"] for name in ("scipy", "one_thread", "threads")]
        speedups = f"{row['speedup_one_thread']:9.2f}{row['speedup']:7.2f}"
        print(f"{row['columns']:8d}{times[0]:10.1f}{times[1]:10.1f}{times[2]:11.1f}{speedups}")
    if options.json:
        about = {"graph": what, "nodes": graph.n, "entries": graph.nnz, "threads": options.threads, "repeats": options.repeats}
        options.json.write_text(json.dumps({**about, "load_average": os.getloadavg(), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
