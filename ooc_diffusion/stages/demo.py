"""The whole way on images with known classes, and how right it is."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

from ..errors import BadInput
from ..evaluation import draw_seeds, seed_of_draw
from ..features import make_extractor
from ..images import open_source
from ..report import accuracy_table_text, write_page
from ..store import Store, Strings
from .classify import classify
from .diffuse import diffuse
from .evaluate import evaluate, summarize_evaluation
from .extract import extract
from .graph import graph
from .neighbors import neighbors
from .page import make_evaluation, make_page
from .reduce import reduce
from .search_options import where_searched
from .settings import Record, Settings, done_before, stage_ids
from .whole_plan import check_all, plan_all

_SHOWN_PER_CLASS = 5
# neighbors: fewer for the small set, whose classes have some 130 images each in the background
_K = {"digits": 10}
_SPLITS = {"background": "train", "tests": "test"}


def demo(
    *,
    dataset: str = "digits",
    root: str | None = None,
    store: str | Path | None = None,
    report: str | Path | None = None,
    draws: int = 5,
    command: str = "",
    settings: Settings | None = None,
) -> Record:
    """Measure all methods on a data set, the training images as background, the test images outside the graph.

    Parameters
    ----------
    dataset : str
        ``"digits"``, ``"fashion-mnist"``, or another torchvision data set. Default ``"digits"``.
    root : str, optional
        Where its files are.
    store, report : str or Path, optional
        Where arrays and page go. Default: in the folder ``ooc-diffusion-demo``.
    draws : int
        Draws of the labelled images, default 5.
    command : str
        The command line, for the page.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        Accuracies (mean and standard deviation over the draws), the table as text, paths written. ``done_before``: the stages
        whose records are those of an earlier run.
    """
    settings = settings or Settings()
    folder = Path("ooc-diffusion-demo")
    sources = [open_source(dataset, root=root, split=split) for split in _SPLITS.values()]
    n, d = sum(len(source) for source in sources), make_extractor("pixels", sources[0]).dim
    index, device = where_searched(n, 64, "auto", settings)
    plans = plan_all(
        n,
        d=d,
        dim=64,
        k=_K.get(dataset, 30),
        n_classes=50,
        n_iter=30,
        budget=settings.budget,
        index=index,
        device=device,
        network=False,
    )
    if settings.dry_run:
        return {"stage": "demo", "images": n, "plans": [asdict(plan) for plan in plans]}
    check_all(plans, settings.budget)
    target = Path(store) if store else folder / f"{dataset}.store"
    page = Path(report) if report else folder / f"{dataset}.html"
    if page.exists() and not settings.overwrite and not (target / "manifest.json").exists():
        raise BadInput(f"{page} exists; give another --report, or --overwrite to replace it")
    for path in (target, page):
        path.parent.mkdir(parents=True, exist_ok=True)
    ids = stage_ids(Store(target)) if (target / "manifest.json").exists() else {}
    for role, split in _SPLITS.items():
        extract(dataset, store=target, role=role, root=root, split=split, model="pixels", settings=settings)
    reduce(target, dim=64, settings=settings)
    neighbors(target, k=_K.get(dataset, 30), settings=settings)
    graph(target, settings=settings)
    record = evaluate(target, draws=draws, settings=settings)
    _predict_once(target, settings)
    note = (
        f"Predictions and pictures: {_SHOWN_PER_CLASS} labelled images per class, the first draw. "
        "“diffusion, best iteration” is chosen on the test images, as an upper bound."
    )
    opened = Store(target)
    before = done_before(opened, ids)
    write_page(make_page(opened, title=f"Demo: {dataset}", command=command, notes=[note], done_before=before), page)
    return {
        "stage": "demo",
        "dataset": dataset,
        "accuracy": summarize_evaluation(record),
        "table": accuracy_table_text(make_evaluation(record)),
        "evaluation": record,
        "done_before": before,
        "peak_memory_bytes": max(made["record"].get("peak_memory_bytes", 0) for made in opened.manifest.stages.values()),
        "report": str(page),
        "store": str(target),
    }


def _predict_once(target: Path, settings: Settings) -> None:
    """Label the tests from the first draw, for the pictures of the page."""
    store = Store(target)
    names = store.record("list.background")["class_names"]
    seed = seed_of_draw(settings.seed, 0)
    rows, classes = draw_seeds(store.array("background/truth"), n_per_class=_SHOWN_PER_CLASS, seed=seed)
    paths = Strings.open(store, "background/path")
    file = target / "demo-labels.csv"
    with file.open("w", newline="") as out:
        lines = csv.writer(out)
        lines.writerow(["path", "label"])
        lines.writerows((paths[int(row)], names[int(c)]) for row, c in zip(rows, classes, strict=True))
    classes_file = target / "demo-classes.txt"
    classes_file.write_text("".join(f"{name}\n" for name in names))
    diffuse(target, labels=file, classes=classes_file, rows="tests", settings=settings)
    classify(target, settings=settings)
