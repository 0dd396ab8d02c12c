"""From images to descriptors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..features import Extractor, choose_model, describe_images, make_extractor, preparation_bytes, read_training
from ..images import MISSING, ImageSource, held_bytes, printable
from ..memory import StagePlan
from ..store import Store, append_strings
from .listing import list_images, preview
from .plans import plan_extract, plan_list
from .settings import Record, Settings, Worker, check_role, run_stage

_REASONS_SHOWN = 20


def extract(
    images: str,
    *,
    store: str | Path,
    role: str = "background",
    root: str | None = None,
    split: str | None = None,
    layout: str | None = None,
    number: int | None = None,
    class_folders: bool = False,
    model: str | None = None,
    weights: str = "DEFAULT",
    image_size: int | None = None,
    color: str = "auto",
    max_failures: float = 0.01,
    settings: Settings | None = None,
) -> Record:
    """Describe every image of a collection.

    Parameters
    ----------
    images : str
        A folder, a zip or tar archive, ``digits``, or the name of a torchvision data set.
    store : str or Path
        The store; made where there is none.
    role : {"background", "seeds", "tests", "added"}
        What the images are for. Default ``"background"``.
    root, split : str, optional
        Where the files of a data set are, and which part of it is meant.
    layout, number : str and int, optional
        ``"yfcc"`` for a folder of zip archives of numbered images, and how many there are (default: up to the last).
    class_folders : bool
        Of a folder or archive: an image is of the class of the folder that it lies in. Default False.
    model : str, optional
        A classification network of torchvision or a small one, cut before its last layer, or ``"pixels"``. Default: that of the
        weights where `train` wrote them, else ``"resnet50"``.
    weights : str
        ``"DEFAULT"`` (the published weights), a file, or ``"none"`` (random). Default ``"DEFAULT"``.
    image_size, color : int and str
        For ``"pixels"`` and for small networks without weights: side in pixels (default: that of the images, at most 32) and
        ``"auto"``, ``"gray"`` or ``"rgb"``.
    max_failures : float
        Share of unreadable images above which the stage fails, default 0.01.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The record of the stage. Arrays: ``<role>/descriptors`` (n, d) float32, ``<role>/failed_rows`` (f,) int64 and
        ``<role>/failed_reason_*``.
    """
    settings = settings or Settings()
    check_role(role)
    model = choose_model(model, weights)
    options: dict[str, Any] = {"weights": weights, "image_size": image_size, "color": color, "seed": settings.seed}
    options |= {"device": settings.device, "threads": settings.threads}
    if settings.dry_run:
        source, n = preview(images, root=root, split=split, layout=layout, number=number, settings=settings)
        held = held_bytes(source)
        plans = [
            plan_list(n, budget=settings.budget, held_bytes=held),
            plan_description(n, make_extractor(model, source, **options), model, settings, held=held),
        ]
        return {"stage": f"extract.{role}", "images": n, "plans": [asdict(plan) for plan in plans]}
    with Store.writing(store) as target:
        where: dict[str, Any] = {"root": root, "split": split, "layout": layout, "number": number}
        source = list_images(images, store=target, role=role, **where, class_folders=class_folders, settings=settings)
        extractor = make_extractor(model, source, **options)
        trained = None if model == "pixels" else read_training(weights)
        seen = () if trained is None else trained["classes"]
        return describe(target, source, extractor, model, role, max_failures, settings, seen=seen)


def describe(
    store: Store,
    source: ImageSource,
    extractor: Extractor,
    model: str,
    role: str,
    max_failures: float,
    settings: Settings,
    *,
    seen: Sequence[str] = (),
) -> Record:
    """Describe listed images as stage ``extract.<role>``; see `extract`. The record keeps the classes ``seen`` in training."""
    return run_stage(
        store,
        f"extract.{role}",
        settings,
        plan=plan_description(len(source), extractor, model, settings, held=held_bytes(source)),
        parameters={**extractor.identity, "fingerprint": source.fingerprint},
        inputs=[f"{role}/path_bytes", f"{role}/path_offsets"],
        total=len(source),
        unit="images",
        work=lambda worker: {
            **_describe(worker, source, extractor, role, max_failures),
            **({"trained_on": list(seen)} if seen else {}),
        },
    )


def plan_description(n: int, extractor: Extractor, model: str, settings: Settings, *, held: int = 0) -> StagePlan:
    """Plan the description of n images by an extractor, the index of whose archive takes ``held`` bytes."""
    buffer = preparation_bytes(extractor) + held
    return plan_extract(n, extractor.dim, buffer_bytes=buffer, network=model != "pixels", budget=settings.budget)


def _describe(worker: Worker, source: ImageSource, extractor: Extractor, role: str, max_failures: float) -> dict[str, Any]:
    n = len(source)
    descriptors = worker.job.array(f"{role}/descriptors", "<f4", (n, extractor.dim))
    rows = worker.job.array(f"{role}/failed_rows", "<i8", (None,))
    append_strings(worker.job, f"{role}/failed_reason", [])
    first_failures = list(worker.job.state.get("failures", []))
    missing = worker.job.state.get("missing", 0)
    _refuse_failures(rows.rows, missing, descriptors.rows, n, max_failures, first_failures)
    worker.advance(descriptors.rows)
    # a run that was stopped between its last batch and publishing left nothing to describe
    blocks = describe_images(source, extractor, start=descriptors.rows, threads=worker.threads) if descriptors.rows < n else ()
    for block in blocks:
        rows.append(np.array([row for row, _ in block.failures], np.int64))
        append_strings(worker.job, f"{role}/failed_reason", [reason for _, reason in block.failures])
        missing += sum(reason in MISSING for _, reason in block.failures)
        room = _REASONS_SHOWN - len(first_failures)
        first_failures += [[row, source.name(row), reason] for row, reason in block.failures[:room]]
        descriptors.append(block.descriptors)
        worker.job.checkpoint(failures=first_failures, missing=missing)
        worker.advance(len(block.descriptors))
        _refuse_failures(rows.rows, missing, descriptors.rows, n, max_failures, first_failures)
    found = {"unreadable": rows.rows, **({"missing": missing} if missing else {}), "first_unreadable": first_failures}
    return {"images": n, "dim": extractor.dim, **found}


def _refuse_failures(failed: int, missing: int, done: int, n: int, max_failures: float, first: list[list[Any]]) -> None:
    if failed > math.floor(max_failures * n):
        names = "; ".join(f"{printable(name)}: {reason}" for _, name, reason in first[:3])
        what, remedy = "unreadable", "mend them, or raise --max-failures to go on"
        if missing:
            what = f"missing ({missing}) or unreadable"
            remedy = "fetch the missing ones, or raise --max-failures to go on with white images in their place"
        raise BadInput(
            f"{failed} of the first {done} images are {what}, more than --max-failures {max_failures:g} of {n} allows "
            f"({names}); {remedy}"
        )
