"""What bfloat16 costs in accuracy: the tests of a data set labelled by diffusion in both precisions.

    python benchmarks/bench_precision.py digits
    python benchmarks/bench_precision.py fashion-mnist

The training images are the graph (pixels, 64 dimensions, k = 30; digits k = 10), the test images stand outside it. Each line is
a number of labelled images per class and of iterations: accuracies in percent, mean over the draws; the part of the tests whose
first class is another one; and by how much a score differs at most, relatively. Both precisions diffuse the same seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ooc_diffusion import diffuse
from ooc_diffusion.evaluation import Accuracy, draw_seeds
from ooc_diffusion.graph import Graph
from ooc_diffusion.stages.extract import extract
from ooc_diffusion.stages.graph import graph, query_table
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store

PRECISIONS = ("float32", "bfloat16")
SIZES, ITERATIONS = (1, 2, 5, 10, 20), (3, 10, 30)


def build(dataset: str, root: str | None, folder: Path, settings: Settings) -> Store:
    """Go from images to the graph, unless that has been done."""
    k = 10 if dataset == "digits" else 30
    for role, split in (("background", "train"), ("tests", "test")):
        extract(dataset, store=folder, role=role, root=root, split=split, model="pixels", settings=settings)
    reduce(folder, dim=64, settings=settings)
    neighbors(folder, k=k, settings=settings)
    graph(folder, settings=settings)
    return Store(folder)


def score(store: Store, n: int, draw: int, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the scores of the tests after each iteration in both precisions, (T + 1, tests, C)."""
    truth = np.asarray(store.array("background/truth"))
    nodes, classes = draw_seeds(truth, n_per_class=n, seed=draw)
    queries = query_table(store)[:, : store.parameters("graph")["k"]]
    given: dict[str, Any] = {"queries": queries, "n_iter": max(ITERATIONS), "every_iteration": True, **options}
    return {
        precision: diffuse(Graph(store), nodes, classes, int(truth.max()) + 1, precision=precision, **given)
        for precision in PRECISIONS
    }


def measure(store: Store, n: int, draws: int, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare both precisions with ``n`` labelled images per class; a row for each number of iterations."""
    truth = np.asarray(store.array("tests/truth"))
    accuracies = {(t, precision): Accuracy() for t in ITERATIONS for precision in PRECISIONS}
    rows: list[dict[str, Any]] = [{"n": n, "t": t, "other_class": 0.0, "largest_difference": 0.0} for t in ITERATIONS]
    for draw in range(draws):
        found = score(store, n, draw, options)
        for row in rows:
            exact, rounded = (found[precision][row["t"]] for precision in PRECISIONS)
            for precision, scores in zip(PRECISIONS, (exact, rounded), strict=True):
                accuracies[row["t"], precision].update(scores, truth)
            row["other_class"] += float((exact.argmax(axis=1) != rounded.argmax(axis=1)).mean()) / draws
            difference = float((np.abs(rounded - exact) / np.where(exact > 0, exact, 1)).max())
            row["largest_difference"] = max(row["largest_difference"], difference)
    return [{**row, **{precision: accuracies[row["t"], precision].result() for precision in PRECISIONS}} for row in rows]


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    cells = [f"{100 * row[precision][top]:.2f}" for top in ("top1", "top5") for precision in PRECISIONS]
    differences = f"{100 * row['other_class']:.2f} % | {100 * row['largest_difference']:.2f} %"
    return f"| {row['n']} | {row['t']} | {' | '.join(cells)} | {differences} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="digits, fashion-mnist, or another torchvision data set")
    parser.add_argument("--root", help="where its files are")
    parser.add_argument("--store", type=Path, help="folder to keep the graph in; default: a temporary one")
    parser.add_argument("--draws", type=int, default=5, help="default: 5")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--memory-budget", default="2GiB", help="default: 2GiB")
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    options = {"threads": given.threads, "memory_budget": given.memory_budget}
    print("| n | T | top-1 float32 | bfloat16 | top-5 float32 | bfloat16 | another first class | largest difference |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        store = build(given.dataset, given.root, given.store or Path(temporary) / "store", Settings(device="cpu", **options))
        for n in SIZES:
            rows = measure(store, n, given.draws, options)
            results += rows
            print("\n".join(map(line, rows)), flush=True)
    if given.json:
        about = {"dataset": given.dataset, "draws": given.draws}
        given.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
