"""What writing only the touched rows of W could save where other seeds come to the same background.

    python tools/make_collection.py hard 1000000 --dimensions 64 --vectors-only --folder hard64-1m
    python benchmarks/bench_touched.py hard64-1m/vectors.npy --seeds 622 25000 250000 --json touched.json

`graph` builds W anew for each set of seeds. Touched are the rows of the seeds and of their neighbors, the rows that a seed
enters, and those of the neighbors that it drives out; all others keep their neighbors. But seeds stand among the background in
locality order, so that each number in each row moves as well. So the least that a way without rebuilding takes is measured:
every number of W is read, moved by a table and written again; sorting in the touched rows and checking are left out.
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

from ooc_diffusion.graph import Graph
from ooc_diffusion.parallel import limit_threads
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store

K = 30
BLOCK = 65536


def fill(store: Store, role: str, vectors: np.ndarray) -> None:
    """Put the vectors of a role into a store, as `reduce` leaves them."""
    with store.job(f"reduce.{role}", parameters={"rows": len(vectors)}, overwrite=True) as job:
        out = job.array(f"{role}/vectors", "<f4", vectors.shape)
        for first in range(0, len(vectors), BLOCK):
            out.append(np.ascontiguousarray(vectors[first : first + BLOCK]))
        job.publish({})


def touched(store: Store) -> float:
    """Return the share of the nodes whose rows of W are others than without the seeds."""
    ids, before = store.array("graph/neighbor_ids"), store.array("background/neighbor_ids")
    n_seeds = len(ids) - len(before)
    mask = np.zeros(len(ids), bool)
    mask[:n_seeds] = True
    for first in range(0, n_seeds, BLOCK):
        block = ids[first : min(first + BLOCK, n_seeds), :K]
        mask[block[block >= 0]] = True
    for first in range(0, len(before), BLOCK):
        old = before[first : first + BLOCK, :K]
        entered = (ids[n_seeds + first : n_seeds + first + len(old), :K] < n_seeds).sum(axis=1)
        mask[n_seeds + first : n_seeds + first + len(old)] |= entered > 0
        # so many of the old list, whose best come first, were driven out
        driven = np.arange(K) >= K - entered[:, None]
        mask[n_seeds + old[driven & (old >= 0)]] = True
    return float(mask.mean())


def move_all(store: Store, folder: Path) -> float:
    """Read every number of W, look it up in a table and write it; return the seconds, those of syncing to disk included."""
    entries = Graph(store).indices
    table = np.arange(len(store.array("graph/neighbor_ids")), dtype=np.uint32)
    started = time.perf_counter()
    with (folder / "moved").open("wb") as file:
        for first in range(0, len(entries), 2**22):
            block = np.asarray(entries[first : first + 2**22])
            high = block & np.uint32(1 << 31)
            file.write((table[block ^ high] | high).tobytes())
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path, help="an .npy of vectors (n, d), float32, of unit length")
    parser.add_argument("--seeds", type=int, nargs="+", default=[622, 25_000, 250_000], help="default: 622 25000 250000")
    parser.add_argument("--memory-budget", default="4GiB", help="default: 4GiB")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    settings = Settings(memory_budget=options.memory_budget, threads=options.threads, overwrite=True)  # what other seeds change
    vectors = np.load(options.vectors, mmap_mode="r")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.vectors.parent) as name, limit_threads(options.threads):
        folder = Path(name)
        store = Store(folder / "store", create=True)
        n = len(vectors) - max(options.seeds)
        fill(store, "background", vectors[:n])
        for n_seeds in options.seeds:
            fill(store, "seeds", vectors[n : n + n_seeds])
            neighbors(store, k=K, index="list-major", target_recall=0.95, settings=settings)
            record = graph(store, settings=settings)
            rows.append(
                {
                    "background": n,
                    "seeds": n_seeds,
                    "touched": touched(store),
                    "graph_seconds": record["seconds"],
                    "step_seconds": record["step_seconds"],
                    "moving_seconds": move_all(store, folder),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({**machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
