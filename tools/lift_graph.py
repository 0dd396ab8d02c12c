"""Make a large graph of neighbors from a searched one, without any search: a random lift.

A collection of 200 000 images can be searched exactly in minutes, one of 100 million cannot. A lift with c layers has c copies of
each node; where i lists j, copy a of i lists copy a + s of j, with a random shift s for each pair (i, j), taken back for (j, i).
Every node then has the degree of its original, reciprocal edges stay reciprocal, and near neighbors (within 4096 rows in locality
order) stay near, in their own layer: non-zeros per row, reciprocity, the tail of the in-degree and the part of near edges are
exactly those of the searched graph. What a lift loses is triangles between far nodes: labels spread faster than on real data, so
that it flatters no engine.

    python tools/make_collection.py hard 200000 --folder hard-200k
    python tools/lift_graph.py hard-200k --layers 5 --folder hard-1m

leaves in the folder ``neighbors.npy``, a store with the graph, and ``collection.json`` as `make_collection` does.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import numpy as np
from make_collection import NEAR, measure

from ooc_diffusion import build_graph
from ooc_diffusion.graph import Graph

_ROWS = 65536


def shifts(rows: np.ndarray, neighbors: np.ndarray, position: np.ndarray, layers: int) -> np.ndarray:
    """Return the shift of each edge: antisymmetric in the two nodes, 0 between near ones; int64 of the shape of ``neighbors``."""
    i, j = np.broadcast_to(rows[:, None], neighbors.shape).astype(np.uint64), neighbors.astype(np.uint64)
    mixed = (np.minimum(i, j) * np.uint64(0x9E3779B97F4A7C15)) ^ (np.maximum(i, j) * np.uint64(0xC2B2AE3D27D4EB4F))
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    size = ((mixed >> np.uint64(32)) % np.uint64(layers)).astype(np.int64)
    near = np.abs(position[rows][:, None].astype(np.int64) - position[neighbors]) < NEAR
    return np.where(near, 0, np.where(i < j, size, -size))


def write_lift(graph: Graph, table: np.ndarray, layers: int, file: Path) -> np.ndarray:
    """Write the table of the lift, layer after layer, and return it mapped."""
    n, k = table.shape
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.int32, shape=(layers * n, k))
    for first in range(0, n, _ROWS):
        rows = np.arange(first, min(first + _ROWS, n))
        neighbors = np.asarray(table[rows])
        shift = shifts(rows, neighbors, graph.position, layers)
        for layer in range(layers):
            out[layer * n + rows] = (layer + shift) % layers * n + neighbors
    out.flush()
    return np.load(file, mmap_mode="r")


def main() -> None:
    """Write a lift."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a folder that make_collection.py has written")
    parser.add_argument("--layers", type=int, required=True, help="copies of each node")
    parser.add_argument("--folder", type=Path, required=True, help="where it goes; about 350 bytes per node")
    parser.add_argument("--memory-budget", default="auto", help="for building the graph; default: auto")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.folder.mkdir(parents=True)
    source, original = Graph(options.source / "store"), np.load(options.source / "neighbors.npy", mmap_mode="r")
    started = time.perf_counter()
    table = write_lift(source, original, options.layers, options.folder / "neighbors.npy")
    seconds = {"neighbors": time.perf_counter() - started}
    begun = time.perf_counter()
    order = (np.arange(options.layers, dtype=np.uint32)[:, None] * np.uint32(source.n) + source.order).reshape(-1)
    graph = build_graph(table, order=order, store=options.folder / "store", memory_budget=options.memory_budget)
    seconds["graph"] = time.perf_counter() - begun
    about = {"source": str(options.source), "layers": options.layers, **measure(graph), "seconds": seconds}
    (options.folder / "collection.json").write_text(json.dumps(about, indent=1) + "\n")
    print(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
