"""Filling the HTML page from what stands in a store."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from ..evaluation import mean_std
from ..memory import format_size
from ..report import ClassPanel, Evaluation, Gallery, MethodCurve, Page, StageLine, Tile
from ..store import Store, Strings
from .class_names import class_names
from .collection import Collection
from .evaluate import summarize_evaluation
from .plans import BLOCK_ROWS
from .settings import disk_bytes

_TILES = 8
_UNREACHED_TILES = 48
_UNREADABLE_SHOWN = 200
_LIBRARIES = ("ooc-diffusion", "numpy", "numba", "faiss-gpu", "faiss-cpu", "torch", "torchvision", "scikit-learn")


def make_page(store: Store, *, title: str, command: str, notes: Sequence[str] = (), done_before: Container[str] = ()) -> Page:
    """Collect what `label` and `demo` show: predictions, stages, and accuracies where they were measured.

    Parameters
    ----------
    store : Store
        A store with predictions, and perhaps an evaluation.
    title : str
        Headline.
    command : str
        The command line that made it.
    notes : sequence of str
        Sentences for the reader.
    done_before : container of str
        Stages that an earlier run had done.

    Returns
    -------
    Page
    """
    diffused, classified = store.record("diffuse"), store.record("classify")
    images = Collection(store, diffused["rows"])
    unreadable, count = _unreadable(store)
    ranking = _Ranking(store, images, diffused)
    summary: list[tuple[str, Any]] = [
        ("Images", len(images)),
        ("Classes", len(diffused["class_names"])),
        ("Labelled images (seeds)", diffused["seeds"]),
        ("Iterations", f"{diffused['n_iter']} ({_chosen(diffused['n_iter_chosen_by'])})"),
        ("Method", _method(classified)),
        ("Unreached images", classified["unreached"]),
        ("Unreadable images", count),
        ("Memory budget", format_size(classified["memory_budget_bytes"])),
    ]
    return Page(
        title=title,
        summary=summary,
        stages=_stages(store, done_before),
        classes=ranking.panels(),
        unreached=ranking.unreached(),
        unreadable=unreadable,
        unreadable_count=count,
        evaluation=make_evaluation(store.record("evaluate")) if "evaluate" in store.manifest.stages else None,
        notes=list(notes),
        versions=library_versions(),
        command=command,
    )


def make_evaluation(record: dict[str, Any]) -> Evaluation:
    """Turn the record of `evaluate` into tables and curves."""
    summary = summarize_evaluation(record)
    sizes = record["n_per_class"]
    curves = [
        MethodCurve(name, [found[n]["top1"] for n in sizes], [found[n]["top5"] for n in sizes]) for name, found in summary.items()
    ]
    iterations = {
        n: [
            float(np.mean([draw[str(n)]["iterations"][t]["top1"] for draw in record["draws"]]))
            for t in range(len(record["draws"][0][str(n)]["iterations"]))
        ]
        for n in sizes
    }
    return Evaluation(sizes, curves, iterations)


def make_paper_evaluation(record: dict[str, Any], group: str, *, novel: bool) -> Evaluation:
    """Turn the record of `evaluate_paper` into the table of one group, of all its tests or of those of novel classes."""
    places = [record["measures"].index(f"novel {top}" if novel else top) for top in ("top1", "top5")]
    sizes = record["n_per_class"]
    curves = []
    for method, found in record["accuracy"][group].items():
        top1, top5 = ([mean_std([draw[place] for draw in found[str(n)]]) for n in sizes] for place in places)
        curves.append(MethodCurve(method, top1, top5))
    return Evaluation(sizes, curves)


def _chosen(how: str) -> str:
    return how if how == "given" else f"by {how}"


def _method(classified: dict[str, Any]) -> str:
    if classified["method"] != "fusion":
        return classified["method"]
    return f"fusion, weight of logistic regression {classified['coefficient']:g}"


def _stages(store: Store, done_before: Container[str]) -> list[StageLine]:
    lines = []
    for name, made in store.manifest.stages.items():
        record = made["record"]
        if "plan" not in record:
            continue
        plan = record["plan"]
        lines.append(
            StageLine(
                name,
                plan["work"],
                plan["memory_bytes"],
                record["peak_memory_bytes"],
                plan["disk_bytes"],
                disk_bytes(store, name),
                record["seconds"],
                record["resumed"],
                sum(record["planned_seconds"].values()) if "planned_seconds" in record else None,
                name in done_before,
            )
        )
    return lines


def _unreadable(store: Store) -> tuple[list[tuple[str, str]], int]:
    shown: list[tuple[str, str]] = []
    count = 0
    for role in ("background", "seeds", "tests"):
        if f"{role}/failed_rows" not in store:
            continue
        rows, reasons = store.array(f"{role}/failed_rows"), Strings.open(store, f"{role}/failed_reason")
        names = Strings.open(store, f"{role}/path")
        count += len(rows)
        shown += [(names[int(row)], reasons[i]) for i, row in enumerate(rows[: _UNREADABLE_SHOWN - len(shown)])]
    return shown, count


def library_versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of the libraries that compute."""
    versions = {"Python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


class _Ranking:
    """The most and least confident images of each class, found in one pass over the predictions."""

    def __init__(self, store: Store, images: Collection, diffused: dict[str, Any]) -> None:
        self.images = images
        self.names: list[str] = diffused["class_names"]
        self.labels, self.confidence = store.array("predictions/labels"), store.array("predictions/confidence")
        self.seed_nodes, self.seed_classes = store.array("diffusion/seed_nodes"), store.array("diffusion/seed_classes")
        self.nodes = Collection(store, "nodes")
        self.in_graph = diffused["rows"] == "nodes"
        self.truth = images.truth
        self.truth_names: list[str] = class_names(store, images.roles[0]) or []
        n = len(self.names)
        self.counts, self.sums = np.zeros(n, np.int64), np.zeros(n)
        self.most: list[list[tuple[float, int]]] = [[] for _ in range(n)]
        self.least: list[list[tuple[float, int]]] = [[] for _ in range(n)]
        self.first_unreached: list[int] = []
        self.n_unreached = 0
        self.unreadable = images.unreadable
        for first in range(0, len(self.labels), BLOCK_ROWS):
            self._add(first)

    def _add(self, first: int) -> None:
        labels = np.asarray(self.labels[first : first + BLOCK_ROWS])
        confidence = np.asarray(self.confidence[first : first + BLOCK_ROWS])
        reached = labels >= 0
        unreached = np.setdiff1d(first + np.flatnonzero(~reached), self.unreadable)
        self.n_unreached += len(unreached)
        self.first_unreached += unreached[: _UNREACHED_TILES - len(self.first_unreached)].tolist()
        if self.in_graph:
            reached[self.seed_nodes[(self.seed_nodes >= first) & (self.seed_nodes < first + len(labels))] - first] = False
        self.counts += np.bincount(labels[reached], minlength=len(self.names))
        self.sums += np.bincount(labels[reached], confidence[reached], minlength=len(self.names))
        rows = np.flatnonzero(reached)
        rows = rows[np.lexsort((confidence[rows], labels[rows]))]
        starts = np.searchsorted(labels[rows], np.arange(len(self.names) + 1))
        for c in np.flatnonzero(np.diff(starts)):
            members = rows[starts[c] : starts[c + 1]]
            low = [(float(confidence[i]), first + int(i)) for i in members[:_TILES]]
            high = [(-float(confidence[i]), first + int(i)) for i in members[-_TILES:]]
            self.least[c] = sorted(self.least[c] + low)[:_TILES]
            self.most[c] = sorted(self.most[c] + high)[:_TILES]

    def panels(self) -> list[ClassPanel]:
        return [self._panel(c) for c in range(len(self.names))]

    def _panel(self, c: int) -> ClassPanel:
        seeds = self.seed_nodes[self.seed_classes == c]
        tiles = [Tile(self.nodes.image(int(i)), self.nodes.name(int(i)), self.names[c]) for i in seeds[:_TILES]]
        count = int(self.counts[c])
        return ClassPanel(
            name=self.names[c],
            count=count,
            seed_count=len(seeds),
            mean_confidence=float(self.sums[c] / count) if count else None,
            seeds=Gallery(tiles, len(seeds)),
            most=Gallery([self._tile(i) for _, i in self.most[c]], count),
            least=Gallery([self._tile(i) for _, i in self.least[c]], count),
        )

    def unreached(self) -> Gallery:
        tiles = [Tile(self.images.image(i), self.images.name(i)) for i in self.first_unreached]
        return Gallery(tiles, self.n_unreached)

    def _tile(self, i: int) -> Tile:
        known = self.truth is not None and 0 <= self.truth[i] < len(self.truth_names)
        truth = self.truth_names[self.truth[i]] if known and self.truth is not None else None
        return Tile(self.images.image(i), self.images.name(i), self.names[self.labels[i]], float(self.confidence[i]), truth)
