"""The images of a study: a store that is there, or one made from a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from ...evaluation import Split, random_split, write_split
from ...images import has_tests, is_folder, refuse_missing
from ...store import Store
from ..class_names import class_names
from ..extract import extract
from ..low_shot import check_counts, check_store, count_classes, make_protocol
from ..plans import BLOCK_ROWS, plan_import
from ..reduce import reduce
from ..seen_classes import trained_classes
from ..settings import Settings, Worker, run_stage, store_at

SPLITS = {"background": "train", "tests": "test"}
COPIED = ("descriptors", "truth")
# The store of all images of a data set without tests, beside that of their halves.
_WHOLE = "whole.store"


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
        A data set, or a part of one such as ``omniglot:evaluation``, described by its pixels; or the folder of a store. Where
        there are no tests, they are the later half of the images of each class.
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
    elif splits_of(data):
        made = Store(folder / "images.store", create=True)
        for role, part in SPLITS.items():
            where = {**data_set(data, root), "split": part}
            extract(**where, store=made.path, role=role, model="pixels", settings=settings)
    else:
        extract(**data_set(data, root), store=folder / _WHOLE, model="pixels", settings=settings)
        made = _halve(Store(folder / _WHOLE), folder / "images.store", settings)
    reduce(made, dim=dim, settings=settings)
    check_store(made)
    return made


def data_set(name: str, root: str | None) -> dict[str, Any]:
    """Return what `extract` is given for a data set, or a part of it, such as ``omniglot:evaluation``, or a folder."""
    if is_folder(name):
        return {"images": name, "root": None, "split": None}
    name, _, part = name.partition(":")
    return {"images": name, "root": None if name == "digits" else root, "split": part or None}


def splits_of(data: str) -> bool:
    """Return whether a data set is taken as its training images and tests: it has both, and no part of it is asked for."""
    return ":" not in data and has_tests(data)


def halves(source: Store) -> dict[str, np.ndarray]:
    """Return which rows of the background of a store become training images and tests: the halves of each class."""
    for name in COPIED:
        if f"background/{name}" not in source:
            raise BadInput(f"{source.path} has no background/{name}; extract images with classes, or import them with --truth")
    truth = np.asarray(source.array("background/truth"))
    order = np.argsort(truth, kind="stable")
    place = np.empty(len(truth), np.int64)
    firsts = np.searchsorted(truth[order], truth[order])
    place[order] = np.arange(len(truth)) - firsts
    later = place >= np.bincount(truth[truth >= 0], minlength=1)[truth] // 2
    return {"background": np.flatnonzero((truth >= 0) & ~later), "tests": np.flatnonzero((truth >= 0) & later)}


def known_of(source: Store) -> dict[str, Any]:
    """Return what is known of the images of a store, for the records of a copy."""
    known: dict[str, Any] = {"class_names": class_names(source), "described": description(source)}
    if trained := trained_classes(source):
        known["trained_on"] = trained
    return known


def _halve(source: Store, path: Path, settings: Settings) -> Store:
    """Copy the background of a store in two halves of each class: training images and tests."""
    known, parts = known_of(source), halves(source)
    target = Store(path, create=True)
    for role, rows in parts.items():
        plan = plan_import(len(rows), source.entry("background/descriptors").shape[1], budget=settings.budget)
        run_stage(
            target,
            f"list.{role}",
            settings,
            plan=plan,
            parameters={name: source.entry(f"background/{name}").identity for name in COPIED},
            total=len(rows),
            work=lambda worker, role=role, rows=rows: _copy(worker, source, role, rows, known),  # type: ignore[misc]
        )
    return target


def _copy(worker: Worker, source: Store, role: str, rows: np.ndarray, known: dict[str, Any]) -> dict[str, Any]:
    for name in COPIED:
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
    made = folder / "background.store"
    extract(**data_set(background, root), **alike(images, background), store=made, settings=settings)
    return Store(made)


def alike(images: Store, background: str) -> dict[str, Any]:
    """Return how the images of a data set are described as others were; `BadInput` where these are not their pixels."""
    described = description(images)
    if described.get("model") != "pixels":
        raise BadInput(
            f"`background` {background} is a data set, but the images are not described by pixels; extract it alike into a store"
        )
    return {"model": "pixels", "image_size": described["image_size"], "color": described["color"]}


def possible_sizes(images: Store, split: Path | Split, n_per_class: Sequence[int], seed: int) -> tuple[int, ...]:
    """Return the numbers of labelled images that each novel class has."""
    check_counts(n_per_class, draws=1)
    one = make_protocol(images, split, seed=seed, n_per_class=(1,), draws=1)
    most, scarcest = min(problem.scarcest for problem in one.problems(images))
    sizes = tuple(sorted({n for n in n_per_class if n <= most}))
    if not sizes:
        raise BadInput(
            f"a novel class has {most} training images, less than each of {', '.join(map(str, n_per_class))}; lower "
            f"`n_per_class`, or leave class {scarcest} out of the split"
        )
    return sizes


def split_file(split: str | None, images: Store, folder: Path, *, seed: int) -> Path:
    """Return the file with the split of the classes; where none is given, one at random is written."""
    if split is not None:
        return Path(split)
    path = folder / f"split-{seed}.json"
    write_split(path, random_split(count_classes(images), seed=seed), class_names=class_names(images))
    return path
