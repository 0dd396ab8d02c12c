"""From descriptors to the scores of test images, stage by stage: time, memory, disk, recall.

    python tools/make_collection.py hard 10025000 --dimensions 64 --vectors-only --folder hard64-10m
    python benchmarks/bench_end_to_end.py hard64-10m/vectors.npy --memory-budget 4GiB --neighbors-budget 1GiB --json end.json

The last 25 000 rows are the test images, the rest the collection; n labelled images of each class are neighbors of one image
drawn at random. Every stage is the command of that name, with its files synced.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peers import machine

from ooc_diffusion.memory import format_size
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store

K, N_TESTS = 30, 25_000


def write_labels(store: Store, file: Path, classes: int, n: int) -> None:
    """Label images that lie together."""
    ids = store.array("background/neighbor_ids")
    lines, used = ["row,label"], set()
    for row in np.random.default_rng(0).permutation(len(ids)):
        some = [int(i) for i in ids[row, :K] if i >= 0 and int(i) not in used][:n]
        if len(some) == n:
            used.update(some)
            lines += [f"{i},class {len(lines) // n}" for i in some]
        if len(lines) > classes * n:
            break
    file.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run all stages and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path, help="an .npy of descriptors (n, d), float32")
    parser.add_argument("--classes", type=int, default=500, help="default: 500")
    parser.add_argument("--seeds", type=int, default=5, help="n, per class; default: 5")
    parser.add_argument("--iterations", type=int, default=4, help="T; default: 4, the best at 10 million in the paper")
    parser.add_argument("--target-recall", type=float, default=0.95, help="default: 0.95")
    parser.add_argument("--memory-budget", default="4GiB", help="default: 4GiB")
    parser.add_argument("--neighbors-budget", help="of the stage neighbors; default: the same")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    settings = Settings(memory_budget=options.memory_budget, threads=options.threads)
    searching = Settings(memory_budget=options.neighbors_budget or options.memory_budget, threads=options.threads)
    vectors = np.load(options.vectors, mmap_mode="r")
    records: list[dict[str, Any]] = []

    def note(found: dict[str, Any]) -> None:
        for record in [found] if "stage" in found else found.values():
            records.append(record)
            plan = record["plan"]
            print(
                f"{record['stage']:22} {record['seconds']:8.1f} s  {format_size(record['peak_memory_bytes']):>9} of "
                f"{format_size(record['memory_budget_bytes'])}, planned {format_size(plan['memory_bytes'])}; "
                f"disk {format_size(plan['disk_bytes'])}, and {format_size(plan['scratch_bytes'])} meanwhile",
                flush=True,
            )

    with tempfile.TemporaryDirectory(dir=options.vectors.parent) as temporary:
        folder = Path(temporary)
        for role, part in (("tests", vectors[-N_TESTS:]), ("background", vectors[:-N_TESTS])):
            file = folder / f"{role}.npy"
            np.save(file, part)
            note(import_descriptors(file, store=folder / "store", role=role, settings=settings))
            file.unlink()
        note(reduce(folder / "store", dim=vectors.shape[1], settings=settings))
        found = neighbors(folder / "store", k=K, index="list-major", target_recall=options.target_recall, settings=searching)
        note(found)
        note(graph(folder / "store", settings=settings))
        write_labels(Store(folder / "store"), folder / "few.csv", options.classes, options.seeds)
        labels = {"labels": folder / "few.csv", "n_iter": options.iterations, "rows": "tests"}
        note(diffuse(folder / "store", **labels, settings=settings))
    total = sum(record["seconds"] for record in records)
    print(f"recall {found['background']['recall']}, {found['background']['probes']} lists probed; in all {total / 60:.1f} min")
    if options.json:
        options.json.write_text(json.dumps({**machine(), "records": records}, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
