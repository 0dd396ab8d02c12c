"""What an approximate graph costs in accuracy: the tests of a data set labelled by diffusion over graphs of several recalls.

    python benchmarks/bench_recall.py fashion-mnist

The paper searches with inverted lists and remarks that this costs nothing. The training images are the graph (pixels,
64 dimensions, k = 30), the test images stand outside it and are searched in the same way. The
same labelled images are drawn for every graph.
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

RECALLS, SIZES, ITERATIONS = (0.5, 0.8, 0.9, 0.95, 0.99, 1.0), (1, 2, 5, 20), (3, 10, 30)


def describe(dataset: str, root: str | None, folder: Path, settings: Settings) -> None:
    """Go from images to vectors."""
    for role, split in (("background", "train"), ("tests", "test")):
        extract(dataset, store=folder, role=role, root=root, split=split, model="pixels", settings=settings)
    reduce(folder, dim=64, settings=settings)


def connect(folder: Path, recall: float, settings: Settings) -> dict[str, Any]:
    """Build the graph with a recall; return what the search says of itself."""
    how = {"index": "Flat"} if recall == 1 else {"index": "list-major", "target_recall": recall}
    found = neighbors(folder, k=30, settings=settings, **how)["background"]  # type: ignore[arg-type]
    about = graph(folder, settings=settings)
    return {
        "recall": found["recall"]["recall"] if recall < 1 else 1.0,
        "probes": found.get("probes"),
        "seconds": found["seconds"],
        "nnz_per_row": about["nnz_per_row"],
    }


def accuracies(store: Store, n: int, draws: int, options: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Return the accuracy of the tests by number of iterations, mean over the draws."""
    truth, tests = (np.asarray(store.array(f"{role}/truth")) for role in ("background", "tests"))
    queries = query_table(store)[:, : store.parameters("graph")["k"]]
    found = {t: Accuracy() for t in ITERATIONS}
    for draw in range(draws):
        nodes, classes = draw_seeds(truth, n_per_class=n, seed=draw)
        given: dict[str, Any] = {"queries": queries, "n_iter": max(ITERATIONS), "every_iteration": True, **options}
        scores = diffuse(Graph(store), nodes, classes, int(truth.max()) + 1, **given)
        for t in ITERATIONS:
            found[t].update(scores[t], tests)
    return {t: accuracy.result() for t, accuracy in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="fashion-mnist, or another torchvision data set of 4096 images or more")
    parser.add_argument("--root", help="where its files are")
    parser.add_argument("--draws", type=int, default=5, help="default: 5")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--memory-budget", default="2GiB", help="default: 2GiB")
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    options = {"threads": given.threads, "memory_budget": given.memory_budget}
    settings = Settings(device="cpu", overwrite=True, **options)
    titles = [f"n = {n}, T = {t}" for n in SIZES for t in ITERATIONS]
    print(f"| recall | lists | non-zeros a row | {' | '.join(titles)} |")
    print("| --- " * (3 + len(titles)) + "|", flush=True)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        describe(given.dataset, given.root, folder, settings)
        for recall in RECALLS:
            about = connect(folder, recall, settings)
            top = {n: accuracies(Store(folder), n, given.draws, options) for n in SIZES}
            results.append({"target": recall, **about, "accuracy": top})
            cells = [f"{100 * top[n][t]['top1']:.2f}" for n in SIZES for t in ITERATIONS]
            print(
                f"| {about['recall']:.3f} | {about['probes'] or 'all'} | {about['nnz_per_row']:.1f} | {' | '.join(cells)} |",
                flush=True,
            )
    if given.json:
        given.json.write_text(json.dumps({"dataset": given.dataset, "draws": given.draws, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
