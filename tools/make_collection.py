"""Write a synthetic collection of any size and the graph of its neighbors, to measure on.

Real descriptors are harder than neat clusters: at k = 30 the W of 100 million photographs has 53 non-zeros a row, since only
about 7 of 30 neighbors list each other, and some images are in thousands of lists. Two families stand for two kinds of data:

``hard``       one broad Gaussian in 96 dimensions, its center away from the origin: neighborhoods overlap everywhere, those near
               the center are in the lists of many, and lists are rarely mutual.
``clustered``  200 Gaussians of long-tailed sizes in 14 dimensions: most neighbors are near in every sense.

With ``--dimensions d`` they have d dimensions instead, of which the i-th varies as i^-0.75, as those of a PCA do: ``hard`` is
one Gaussian, ``clustered`` a thousand. Inverted lists are of use then; with 96 equal dimensions half of all lists must be
visited for a recall of 0.95.

All are of unit length and in random order, and 0.2 % of their rows are one and the same vector, as missing images are. Vectors
are drawn in blocks of 65 536, each from its own seed: a collection of N begins with that of any smaller N.

    python tools/make_collection.py hard 1000000 --folder hard-1m

leaves in the folder ``vectors.npy``, ``neighbors.npy`` (N, 30), a store with the graph, and ``collection.json`` with what was
measured: non-zeros per row, reciprocal part, quantiles of the in-degree, part of the edges within 4096 rows.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path

import numpy as np

from ooc_diffusion import build_graph
from ooc_diffusion.graph import Graph
from ooc_diffusion.neighbors import Inverted, assign_lists, locality_order, search, train_centroids

BLOCK = 65536
DIMENSIONS = {"hard": 96, "clustered": 14}
# Number of clusters and spread of each, in units of the distance between their centers.
_CLUSTERS = {"hard": (1, 1.0), "clustered": (200, 0.5)}
_SAME = 0.002
# The same for a number of dimensions that was asked for, and how their standard deviations fall.
_DECAYING_CLUSTERS = {"hard": (1, 1.0), "clustered": (1000, 0.6)}
_DECAY = 0.75
NEAR = 4096
# Up to here the search is exact.
_MOST_EXACT = 300_000


def vectors_block(family: str, block: int, dimensions: int | None = None) -> np.ndarray:
    """Draw the vectors of one block, float32 (65536, d) of unit length."""
    rng = np.random.default_rng([2018, block + 1])
    d = dimensions or DIMENSIONS[family]
    scale = np.arange(1, d + 1, dtype=np.float32) ** np.float32(-_DECAY if dimensions else 0)
    rows = scale * rng.standard_normal((BLOCK, d), np.float32)
    clusters, spread = (_DECAYING_CLUSTERS if dimensions else _CLUSTERS)[family]
    centers = scale * np.random.default_rng(2018).standard_normal((clusters, d), np.float32)
    sizes = 1 / np.arange(1, clusters + 1) ** 0.7
    rows = centers[rng.choice(clusters, BLOCK, p=sizes / sizes.sum())] + np.float32(spread) * rows
    rows[rng.random(BLOCK) < _SAME] = 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_vectors(family: str, n: int, file: Path, dimensions: int | None = None) -> np.ndarray:
    """Write the vectors of a collection block by block and return them mapped."""
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(n, dimensions or DIMENSIONS[family]))
    for first in range(0, n, BLOCK):
        out[first : first + BLOCK] = vectors_block(family, first // BLOCK, dimensions)[: n - first]
    out.flush()
    return np.load(file, mmap_mode="r")


def write_neighbors(vectors: np.ndarray, k: int, file: Path) -> np.ndarray:
    """Search the neighbors of all vectors; return the locality order."""
    centroids = train_centroids(vectors)
    lists = np.concatenate([assign_lists(vectors[i : i + BLOCK], centroids) for i in range(0, len(vectors), BLOCK)])
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.int32, shape=(len(vectors), k))
    first = 0
    for ids, _ in search(vectors, vectors, k=k, inverted=None if len(vectors) <= _MOST_EXACT else Inverted(centroids, lists)):
        out[first : first + len(ids)] = ids
        first += len(ids)
        print(f"\r{first:,} of {len(vectors):,} rows searched", end="", flush=True, file=sys.stderr)
    out.flush()
    return locality_order(lists, len(centroids))[0]


def measure(graph: Graph) -> dict[str, object]:
    """Return the figures that tell how hard a graph is."""
    rows = np.random.default_rng(0).choice(graph.n, min(graph.n, 100_000), replace=False)
    near = total = 0
    for row in rows:
        others = (graph.indices[graph.indptr[row] : graph.indptr[row + 1]] & ((1 << 31) - 1)).astype(np.int64)
        near += int((np.abs(others - row) < NEAR).sum())
        total += len(others)
    degrees = np.diff(graph.indptr)
    reciprocal = sum(int((graph.indices[i : i + 2**24] >> 31).sum()) for i in range(0, graph.nnz, 2**24))
    return {
        "nodes": graph.n,
        "non_zeros": graph.nnz,
        "non_zeros_per_row": graph.nnz / graph.n,
        "reciprocal_per_row": reciprocal / graph.n,
        "degree_quantiles_50_90_99_99.9_100": np.percentile(degrees, [50, 90, 99, 99.9, 100]).tolist(),
        "edges_within_4096_rows": near / total,
    }


def main() -> None:
    """Write a collection."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=list(DIMENSIONS))
    parser.add_argument("n", type=int, help="number of images N")
    parser.add_argument("--folder", type=Path, required=True, help="where it goes; about 4 N d + 350 N bytes")
    parser.add_argument("--dimensions", type=int, help="d; default: 96 (hard), 14 (clustered), all alike")
    parser.add_argument("--vectors-only", action="store_true", help="search nothing, build no graph")
    parser.add_argument("--k", type=int, default=30, help="neighbors per image, itself among them; default: 30")
    parser.add_argument("--memory-budget", default="auto", help="for building the graph; default: auto")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.folder.mkdir(parents=True)
    seconds = {}
    started = time.perf_counter()
    vectors = write_vectors(options.family, options.n, options.folder / "vectors.npy", options.dimensions)
    if options.vectors_only:
        return
    seconds["vectors"] = time.perf_counter() - started
    order = write_neighbors(vectors, options.k, options.folder / "neighbors.npy")
    seconds["neighbors"] = time.perf_counter() - started - seconds["vectors"]
    table = np.load(options.folder / "neighbors.npy", mmap_mode="r")
    begun = time.perf_counter()
    graph = build_graph(table, order=order, store=options.folder / "store", memory_budget=options.memory_budget)
    seconds["graph"] = time.perf_counter() - begun
    about = {"family": options.family, "k": options.k, **measure(graph), "seconds": seconds}
    (options.folder / "collection.json").write_text(json.dumps(about, indent=1) + "\n")
    print(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
