"""The whole way: from images and a few labels to a label for every image."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..diffusion import check_precision, resolve_device
from ..errors import BadInput, DoesNotFit
from ..features import Extractor, choose_model, make_extractor, measure_describing
from ..images import ImageSource, held_bytes
from ..memory import StagePlan
from ..report import write_page
from ..store import Store
from ..store.files import os_errors
from .classify import classify
from .diffuse import diffuse
from .extract import describe, plan_description
from .forecast import plan_seconds
from .graph import graph
from .labels import Labels, count_classes, read_labels, readable_labels
from .listing import list_images, preview
from .neighbors import DEFAULT_K, neighbors
from .output import check_folder, check_output, write_output
from .page import make_page
from .plans import plan_classify, plan_diffuse, plan_graph, plan_list, plan_neighbors, plan_reduce
from .reduce import DEFAULT_DIM, reduce, resolve_dim
from .search_options import where_searched
from .seconds import Seconds
from .selection import MAX_ITER, held_out_bytes
from .settings import Record, Settings, done_before, stage_ids
from .whole_plan import check_all

ENTRIES_PER_NEIGHBOR = 1.8


def label(
    images: str,
    *,
    labels: str | Path,
    output: str | Path,
    store: str | Path | None = None,
    report: str | Path | None = None,
    model: str | None = None,
    weights: str = "DEFAULT",
    image_size: int | None = None,
    color: str = "auto",
    max_failures: float = 0.01,
    classes: str | Path | None = None,
    dim: int = DEFAULT_DIM,
    k: int = DEFAULT_K,
    index: str = "auto",
    n_iter: int | None = None,
    method: str = "fusion",
    precision: str = "float32",
    command: str = "",
    settings: Settings | None = None,
) -> Record:
    """Label every image of a folder from the labels of a few.

    Parameters
    ----------
    images : str
        A folder of images (or the name of a data set).
    labels : str or Path
        CSV with ``path,label``: the few labelled images, paths relative to the folder.
    output : str or Path
        CSV to write: ``path,label,confidence,origin``.
    store : str or Path, optional
        Folder for the arrays. Default: ``<output>.store``. A run that was stopped goes on from there.
    report : str or Path, optional
        HTML page to write. Default: ``<output>`` with the ending ``.html``.
    model, weights, image_size, color, max_failures
        See `extract`.
    classes : str or Path, optional
        See `diffuse`.
    dim, k, index, n_iter, method, precision
        See `reduce`, `neighbors`, `diffuse` and `classify`; the precision is that of the diffusion.
    command : str
        The command line, for the page.
    settings : Settings, optional
        Options of the run. ``overwrite`` does again only what differs from an earlier run, and replaces the output.

    Returns
    -------
    dict
        Records of the stages, numbers of labelled and unreached images, and the paths written. ``done_before``: the stages whose
        records are those of an earlier run. Of a dry run the plans, and ``seconds_by_stage``.

    Raises
    ------
    BadInput
        Before any long work, where labels, options or output are wrong.
    DoesNotFit
        Before any long work, where the budget is too small for one of the stages.
    """
    settings = settings or Settings()
    model = choose_model(model, weights)
    check_precision(precision, unskipped=False)
    if precision != "float32":
        resolve_device(settings.device, precision=precision)  # refuses a GPU before any work
    options: dict[str, Any] = {"weights": weights, "image_size": image_size, "color": color, "seed": settings.seed}
    options |= {"device": settings.device, "threads": settings.threads}
    page = Path(output).with_suffix(".html") if report is None else Path(report)
    sizes: dict[str, Any] = {"dim": dim, "k": k, "index": index, "n_iter": n_iter, "precision": precision}
    sizes["n_classes"] = count_classes(labels)
    folder = f"{output}.store" if store is None else store
    _check_outputs([Path(output), page], inputs=[Path(file) for file in (labels, classes) if file is not None])
    if settings.dry_run:
        check_output(Store.peek(folder), output, settings, report=page)
        source, n = preview(images, root=None, split=None, settings=settings)
        extractor = make_extractor(model, source, **options)
        plans = _plans(n, source, extractor, model, settings, **sizes)
        about = {"images": n, "memory_budget_bytes": settings.budget.total}
        seconds = _seconds(plans, n, extractor, model, settings, dim=dim, k=k, index=index)
        return {"stage": "label", **about, "seconds_by_stage": seconds, "plans": [asdict(plan) for plan in plans]}
    with Store.writing(folder) as target:
        ids = stage_ids(target)
        check_output(target, output, settings, report=page)
        source, extractor = _open_images(images, target, model, options, sizes, settings)
        given = read_labels(labels, target, classes=classes)
        check_all(_plans(len(source), source, extractor, model, settings, **sizes), settings.budget)
        describe(target, source, extractor, model, "background", max_failures, settings)
        del source, extractor  # the memory is for others now
        given = readable_labels(given, target, labels)
        reduce(target, dim=dim, settings=settings)
        neighbors(target, k=k, index=index, settings=settings)
        graph(target, settings=settings)
        diffuse(target, labels=given, rows="nodes", n_iter=n_iter, precision=precision, settings=settings)
        classify(target, method=method, settings=settings)
        write_output(target, output, report=page)
        n = target.record("neighbors.background")["images"]  # with those that were added
        before = done_before(target, ids)
        with os_errors(page, "writing"):
            write_page(make_page(target, title=f"Labels for {n:,} images", command=command, done_before=before), page)
        return {
            **_summary(target, given),
            "done_before": before,
            "output": str(output),
            "report": str(page),
            "store": str(target.path),
        }


def _summary(store: Store, given: Labels) -> Record:
    """Return what the stages say of the images, and their records."""
    stages = {name: made["record"] for name, made in store.manifest.stages.items()}
    return {
        "images": stages["neighbors.background"]["images"],  # with those that were added
        "classes": given.class_names,
        "seeds": stages["diffuse"]["seeds"],
        "unreached": stages["classify"]["unreached"],
        "unreadable": stages["extract.background"]["unreadable"],
        "peak_memory_bytes": max(stage.get("peak_memory_bytes", 0) for stage in stages.values()),
        "stages": stages,
    }


def _check_outputs(outputs: list[Path], *, inputs: list[Path]) -> None:
    if outputs[0].absolute() == outputs[1].absolute():
        raise BadInput(f"the report and the output would both be {outputs[0]}; give the output the ending .csv, or --report")
    for file in outputs:
        check_folder(file)
        for given in inputs:
            if file.exists() and given.exists() and file.samefile(given):
                raise BadInput(f"{file} is read by this run and would be replaced; give another file to write")


def _open_images(
    images: str, store: Store, model: str, options: dict[str, Any], sizes: dict[str, Any], settings: Settings
) -> tuple[ImageSource, Extractor]:
    try:
        source = list_images(images, store=store, role="background", root=None, split=None, settings=settings)
        return source, make_extractor(model, source, **options)
    except DoesNotFit:
        source, n = preview(images, root=None, split=None, settings=settings)
        # name the budget that does for all stages, not only for the first
        check_all(_plans(n, source, make_extractor(model, source, **options), model, settings, **sizes), settings.budget)
        raise


def _plans(
    n: int,
    source: ImageSource,
    extractor: Extractor,
    model: str,
    settings: Settings,
    *,
    dim: int,
    k: int,
    index: str,
    n_classes: int,
    n_iter: int | None,
    precision: str,
) -> list[StagePlan]:
    budget, d = settings.budget, extractor.dim
    if n < 2:
        raise BadInput("there is one image only; a graph needs at least two")
    if k > n:
        raise BadInput(f"`k` is {k}, but there are only {n} images; give a `k` of at most {n}")
    kept, most_iter = resolve_dim(dim, n, d), MAX_ITER if n_iter is None else n_iter
    chosen, device = where_searched(n, kept, index, settings)
    entries = int(ENTRIES_PER_NEIGHBOR * n * k)
    return [
        plan_list(n, budget=budget, held_bytes=held_bytes(source)),
        plan_description(n, extractor, model, settings, held=held_bytes(source)),
        plan_reduce(n, d, kept, train=dim > 0, budget=budget),
        plan_neighbors(n, n, kept, k=k, index=chosen, device=device, train=True, budget=budget),
        plan_graph(n, k, budget=budget),
        plan_diffuse(
            n,
            entries,
            n_classes,
            most_iter,
            rows=n,
            budget=budget,
            folds=5,
            held_out=held_out_bytes(n, n_classes, most_iter),
            precision=precision,
        ),
        plan_classify(n, d, n_classes, network=True, budget=budget),
    ]


def _seconds(
    plans: list[StagePlan], n: int, extractor: Extractor, model: str, settings: Settings, *, dim: int, k: int, index: str
) -> dict[str, Seconds]:
    """Return the seconds that are foretold, by stage and step: none where the budget is too small, none of decoding."""
    budget = settings.budget
    if budget.total < max(plan.least_bytes for plan in plans):
        return {}
    # pixels are nothing but decoded
    described = {} if model == "pixels" else {"extract": {"describing what is decoded": n * measure_describing(extractor)}}
    kept = resolve_dim(dim, n, extractor.dim)
    chosen, device = where_searched(n, kept, index, settings)
    sizes: dict[str, Any] = {"dim": kept, "k": k, "index": chosen, "on_gpu": device != "cpu"}
    return described | plan_seconds(plans, n, **sizes, budget=budget, threads=settings.threads)
