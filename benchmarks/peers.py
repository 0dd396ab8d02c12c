"""What the benchmarks measure against: W as others hold it, multiplied by MKL and by SciPy, and timing that alternates."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ooc_diffusion.graph import Graph

_POSITION = (1 << 31) - 1


def scipy_matrix(graph: Graph, *, shuffled: bool) -> sp.csr_matrix:
    """Return W with int32 indices and float32 weights, its nodes in random order, as photographs come, or in locality order."""
    entries = np.asarray(graph.indices)
    indices = (entries & _POSITION).astype(np.int32)
    weights = (1 + (entries >> 31)).astype(np.float32) * np.repeat(graph.row_scale, np.diff(graph.indptr))
    W = sp.csr_matrix((weights, indices, graph.indptr.astype(np.int32)), shape=(graph.n, graph.n))
    if not shuffled:
        return W
    nodes = shuffled_nodes(graph)
    W.indices = nodes[W.indices]
    W = W[np.argsort(nodes)]
    W.sort_indices()
    return W


def shuffled_nodes(graph: Graph) -> np.ndarray:
    """Return the row of each position in the shuffled W, int32 (N,)."""
    return np.random.default_rng(0).permutation(graph.n).astype(np.int32)


def load_mkl(threads: int) -> Callable[..., np.ndarray]:
    """Return MKL's product of a sparse and a dense matrix, held to a number of threads."""
    # the wheel of MKL puts its libraries where no loader looks
    libraries = sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*"))
    if libraries:
        os.environ.setdefault("MKL_RT", str(libraries[0]))
    import sparse_dot_mkl

    sparse_dot_mkl.mkl_set_num_threads(threads)
    return sparse_dot_mkl.dot_product_mkl


def alternate(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Call each once to warm up, then all in turn; return the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if repeat:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def machine() -> dict[str, Any]:
    """Return what a table of times must name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {"processor": model, "cores": len(os.sched_getaffinity(0)), "date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()}
