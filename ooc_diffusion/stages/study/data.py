"""The images of a study: a store that is there, or one made from a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from ...evaluation import random_split, write_split
from ...images import is_folder, refuse_missing
from ...store import Store
from ..class_names import class_names
from ..extract import extract
from ..low_shot import check_store
from ..plans import BLOCK_ROWS, plan_import
from ..reduce import reduce
from ..seen_classes import trained_classes
from ..settings import Settings, Worker, run_stage
from .runs import store_at

SPLITS = {"background": "train", "tests": "test"}
_COPIED = ("descriptors", "truth")


def refuse_no_data(data: str, background: str | None) -> None:
    """Raise `BadInput` where what is given is a path without a store; a background may be a folder of images."""
    for path in filter(None, (data, background)):
        refuse_missing(path)
    if is_folder(data) and not store_at(data):
        raise BadInput(f"{data} holds no store; extract its images into one, and give that as `data`")


def open_images(data: str, folder: Path, *, root: str | None, dim: int, settings: Settings) -> Store:
    """Return the store of training images and tests, made in a folder of the study where it is not there.

    Parameters
    ----------
    data : str
        A data set with training images and tests, described by its pixels; or the folder of a store. Where that has no tests,
        they are the later half of the images of each class.
    folder : Path
        Of the study.
    root : str, optional
        Where the files of the data set are.
    dim : int
        Dimensions that are kept where vectors are made here.
    settings : Settings
        Options of the run.

    Returns
    -------
    Store
    """
    if store_at(data):
        source = Store(data)
        if "tests/descriptors" in source:
            check_store(source)
            return source
        made = _halve(source, folder / "images.store", settings)
    else:
        made = Store(folder / "images.store", create=True)
        for role, part in SPLITS.items():
            extract(data, store=made.path, role=role, root=root, split=part, model="pixels", settings=settings)
    reduce(made, dim=dim, settings=settings)
    check_store(made)
    return made


def _halve(source: Store, path: Path, settings: Settings) -> Store:
    """Copy the background of a store in two halves of each class: training images and tests."""
    for name in _COPIED:
        if f"background/{name}" not in source:
            raise BadInput(f"{source.path} has no background/{name}; extract images with classes, or import them with --truth")
    truth = np.asarray(source.array("background/truth"))
    order = np.argsort(truth, kind="stable")
    place = np.empty(len(truth), np.int64)
    firsts = np.searchsorted(truth[order], truth[order])
    place[order] = np.arange(len(truth)) - firsts
    later = place >= np.bincount(truth[truth >= 0], minlength=1)[truth] // 2
    known: dict[str, Any] = {"class_names": class_names(source), "described": description(source)}
    if trained := trained_classes(source):
        known["trained_on"] = trained
    target = Store(path, create=True)
    for role, rows in (("background", np.flatnonzero((truth >= 0) & ~later)), ("tests", np.flatnonzero((truth >= 0) & later))):
        plan = plan_import(len(rows), source.entry("background/descriptors").shape[1], budget=settings.budget)
        run_stage(
            target,
            f"list.{role}",
            settings,
            plan=plan,
            parameters={name: source.entry(f"background/{name}").identity for name in _COPIED},
            total=len(rows),
            work=lambda worker, role=role, rows=rows: _copy(worker, source, role, rows, known),  # type: ignore[misc]
        )
    return target


def _copy(worker: Worker, source: Store, role: str, rows: np.ndarray, known: dict[str, Any]) -> dict[str, Any]:
    for name in _COPIED:
        values = source.array(f"background/{name}")
        copied = worker.job.array(f"{role}/{name}", values.dtype.str, (len(rows), *values.shape[1:]))
        for first in range(copied.rows, len(rows), BLOCK_ROWS):
            copied.append(np.ascontiguousarray(values[rows[first : first + BLOCK_ROWS]]))
            worker.job.checkpoint()
    worker.advance(len(rows))
    return {"images": len(rows), **known}


def description(images: Store) -> dict[str, Any]:
    """Return how images were described, also where they are a copy of others; empty where that is not known."""
    stages = images.manifest.stages
    if "extract.background" in stages:
        return dict(stages["extract.background"]["parameters"])
    return dict(stages.get("list.background", {"record": {}})["record"].get("described", {}))


def open_other(background: str | None, images: Store, folder: Path, *, root: str | None, settings: Settings) -> Store | None:
    """Return the store of another collection, made from a data set by the pixels that the images have where it is not there."""
    if background is None:
        return None
    if store_at(background):
        return Store(background)
    described = description(images)
    if described.get("model") != "pixels":
        raise BadInput(
            f"`background` {background} is a data set, but the images are not described by pixels; extract it alike into a store"
        )
    made = folder / "background.store"
    color = {"image_size": described["image_size"], "color": described["color"]}
    extract(background, store=made, root=root, model="pixels", settings=settings, **color)
    return Store(made)


def split_file(split: str | None, images: Store, folder: Path, *, seed: int) -> Path:
    """Return the file with the split of the classes; where none is given, one at random is written."""
    if split is not None:
        return Path(split)
    names = class_names(images)
    truth, test_truth = images.arrays("background/truth", "tests/truth")
    known = max(int(max(truth.max(), test_truth.max())) + 1, len(names or []))
    path = folder / f"split-{seed}.json"
    write_split(path, random_split(known, seed=seed), class_names=names)
    return path
