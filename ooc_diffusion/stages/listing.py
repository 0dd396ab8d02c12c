"""Listing the images of a role: their names, in an order that never changes, and their classes where the source knows them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..images import (
    ClassFolders,
    FolderSource,
    ImageSource,
    JoinedSource,
    ScanFingerprint,
    held_bytes,
    is_archive,
    is_folder,
    open_source,
    printable,
    refuse_missing,
    scan_folder,
)
from ..store import Store, Strings, append_strings
from .class_names import warn_of_other_classes
from .plans import BLOCK_ROWS, plan_list
from .settings import Settings, Worker, run_stage


def list_images(
    images: str,
    *,
    store: Store,
    role: str,
    root: str | None,
    split: str | None,
    layout: str | None = None,
    number: int | None = None,
    settings: Settings,
    class_folders: bool = False,
) -> ImageSource:
    """List the images of a role as stage ``list.<role>`` and open them.

    Parameters
    ----------
    images : str
        A folder, an archive, ``digits``, or the name of a torchvision data set.
    store : Store
        Where the names go.
    role : str
        ``background``, ``seeds`` or ``tests``.
    root, split, layout, number : optional
        See `open_source`.
    settings : Settings
        Options of the run.
    class_folders : bool
        Of a folder or archive: an image is of the class of the folder that it lies in. Default False.

    Returns
    -------
    ImageSource
        The images; the names of a folder stay on disk.

    Notes
    -----
    A folder is walked once for its fingerprint, which tells whether it is still the one that an earlier run saw, and a second
    time only where its names are to be written.
    """
    refuse_missing(images)
    if _is_plain_folder(images, layout, number):
        if root is not None or split is not None:
            raise BadInput(f"--root and --split are for data sets; leave them out with the folder {images}")
        return _list_folder(images, store, role, class_folders, settings)
    if class_folders and (not is_folder(images) or layout is not None):
        raise BadInput(f"--class-folders is for folders and archives of images; leave it out with {images}")
    source = _open(images, root, split, layout, number, settings)
    parameters: dict[str, Any] = {"images": dict(source.description), "fingerprint": source.fingerprint}
    parameters |= {"class_folders": True} if class_folders else {}

    def work(worker: Worker) -> dict[str, Any]:
        refuse_to_lose(worker, store, role)
        classes = ClassFolders()
        for first in range(0, len(source), BLOCK_ROWS):
            rows = range(first, min(first + BLOCK_ROWS, len(source)))
            names = [source.name(i) for i in rows]
            append_strings(worker.job, f"{role}/path", names)
            if class_folders:
                numbers = np.array([classes.add(os.fsencode(name)) for name in names], np.int32)
                worker.job.array(f"{role}/truth", "<i4", (len(source),)).append(numbers)
            worker.advance(len(rows))
        refuse_names_twice(worker, role)
        if class_folders:
            return {"images": len(source), "class_names": classes.names}
        if source.truth is not None:
            worker.job.put(f"{role}/truth", source.truth.astype(np.int32))
        return {"images": len(source), "class_names": source.class_names}

    plan = plan_list(len(source), budget=settings.budget, held_bytes=held_bytes(source))
    run_stage(
        store,
        f"list.{role}",
        settings,
        plan=plan,
        parameters=parameters,
        replaces=[f"import.{role}"],
        total=len(source),
        unit="images",
        work=work,
    )
    warn_of_other_classes(store, role)
    return _with_added(store, role, source)


def _is_plain_folder(images: str, layout: str | None, number: int | None) -> bool:
    return is_folder(images) and not is_archive(images) and layout is None and number is None


def _open(
    images: str, root: str | None, split: str | None, layout: str | None, number: int | None, settings: Settings
) -> ImageSource:
    most_bytes = max(0, settings.budget.total - settings.budget.overhead())
    return open_source(images, root=root, split=split, layout=layout, number=number, most_bytes=most_bytes)


def reopen(store: Store, role: str) -> ImageSource | None:
    """Open the images of a role again; None where its descriptors came without images."""
    stage = f"list.{role}"
    if stage not in store.manifest.stages:
        return None
    parameters = store.parameters(stage)
    return _with_added(store, role, _reopen(store, role, parameters["images"], parameters["fingerprint"]))


def _reopen(
    store: Store, role: str, images: dict[str, Any], fingerprint: str, *, first: int = 0, end: int | None = None
) -> ImageSource:
    if _is_plain_folder(images["spec"], images.get("layout"), None):
        return _open_folder(store, role, images["spec"], fingerprint, first=first, end=end)
    return open_source(**images)


def _open_folder(
    store: Store, role: str, folder: str, fingerprint: str, *, first: int = 0, end: int | None = None
) -> FolderSource:
    names = Strings.open(store, f"{role}/path")
    return FolderSource(folder, names.characters, names.offsets[first : None if end is None else end + 1], fingerprint)


def _with_added(store: Store, role: str, source: ImageSource) -> ImageSource:
    """Return a source, and behind it those of the images that `neighbors --add` took in since."""
    added = store.record(f"list.{role}").get("added", [])
    if not added:
        return source
    ends = [*(part["first"] for part in added), store.entry(f"{role}/path_offsets").shape[0] - 1]
    if isinstance(source, FolderSource):
        source = _open_folder(store, role, str(source.root), source.fingerprint, end=ends[0])
    parts: list[ImageSource | int] = [source]
    for part, end in zip(added, ends[1:], strict=True):
        images, first = part["images"], part["first"]
        parts.append(end - first if images is None else _reopen(store, role, images, part["fingerprint"], first=first, end=end))
    return JoinedSource(parts)


def refuse_to_lose(worker: Worker, store: Store, role: str) -> None:
    """Refuse to replace images that others were added to: these would be gone."""
    stages = store.manifest.stages
    for stage in (f"list.{role}", f"import.{role}"):
        if "added" in stages.get(stage, {"record": {}})["record"]:
            worker.job.discard()
            raise BadInput(
                f"{store.path} holds images that `neighbors --add` took into the {role}, which would be lost; "
                "give another --store"
            )


def refuse_names_twice(worker: Worker, role: str) -> None:
    """Compare the names that a job has just written for images to add with those of the background, which it throws away then."""
    store = worker.job.store
    if role != "added" or "background/path_offsets" not in store:
        return
    written = (worker.job.array(f"added/path_{part}", dtype, (None,)) for part, dtype in (("bytes", "|u1"), ("offsets", "<i8")))
    try:
        compare_names(Strings.open(store, "background/path"), Strings(*(array.view() for array in written)))
    except BadInput:
        worker.job.discard()
        raise


def compare_names(known: Strings, added: Strings) -> None:
    """Raise `BadInput` where an image to add has the name of one of the background."""
    for row in range(len(added)):
        if known.bisect(added[row]) >= 0:
            raise BadInput(
                f"{printable(added[row])!r} is the name of an image of the background and of an added one; "
                "leave out what is there already, and give new images new paths or names"
            )


def preview(
    images: str,
    *,
    root: str | None,
    split: str | None,
    layout: str | None = None,
    number: int | None = None,
    settings: Settings,
) -> tuple[ImageSource, int]:
    """Open images without writing anything, for a plan: the source (the first rows of a folder) and the number of images."""
    if not _is_plain_folder(images, layout, number):
        source = _open(images, root, split, layout, number, settings)
        return source, len(source)
    first = None
    n = 0
    for batch in scan_folder(images):
        n += len(batch.lengths)
        if first is None:
            offsets = np.concatenate([[0], np.cumsum(batch.lengths)])
            first = FolderSource(images, batch.paths, offsets, "")
    assert first is not None  # scan_folder refuses a folder without images
    return first, n


def class_counts(images: str, *, root: str | None, split: str | None, settings: Settings) -> tuple[np.ndarray, list[str] | None]:
    """Return how many images each class has, int64, and the names of the classes; nothing is written and no image opened."""
    classes = ClassFolders()
    if not _is_plain_folder(images, None, None):
        source = _open(images, root, split, None, None, settings)
        if not is_folder(images):
            return np.bincount(known_classes(images, source.truth), minlength=len(source.class_names or [])), source.class_names
        truth = np.array([classes.add(os.fsencode(source.name(i))) for i in range(len(source))], np.int32)
        return np.bincount(truth[truth >= 0], minlength=len(classes.names)), classes.names
    counts = np.zeros(0, np.int64)
    for batch in scan_folder(images):
        numbers = classes.number(batch)
        counts = np.pad(counts, (0, len(classes.names) - len(counts)))
        counts += np.bincount(numbers[numbers >= 0], minlength=len(counts))
    return counts, classes.names


def known_classes(images: str, truth: np.ndarray | None) -> np.ndarray:
    """Return the classes that are known of a collection; `BadInput` where there is none."""
    if truth is None:
        raise BadInput(f"{images} does not know the classes of its images; give a folder with a folder for each class")
    return truth[truth >= 0]


def _list_folder(folder: str, store: Store, role: str, class_folders: bool, settings: Settings) -> ImageSource:
    n, name_bytes, skipped, fingerprint = _fingerprint(folder)
    root = str(Path(folder).resolve())

    def work(worker: Worker) -> dict[str, Any]:
        refuse_to_lose(worker, store, role)
        seen, classes = ScanFingerprint(), ClassFolders()
        for batch in _unwritten(folder, seen):
            append_strings(worker.job, f"{role}/path", (batch.paths, batch.lengths))
            if class_folders:
                worker.job.array(f"{role}/truth", "<i4", (n,)).append(classes.number(batch))
            worker.advance(len(batch.lengths))
        if seen.hexdigest() != fingerprint:
            worker.job.discard()
            raise BadInput(f"{folder} changes while it is being listed; wait until nothing writes there and run again")
        refuse_names_twice(worker, role)
        return {"images": n, "skipped": skipped} | ({"class_names": classes.names} if class_folders else {})

    run_stage(
        store,
        f"list.{role}",
        settings,
        plan=plan_list(n, budget=settings.budget, name_bytes=name_bytes),
        parameters={"images": {"spec": root}, "fingerprint": fingerprint} | ({"class_folders": True} if class_folders else {}),
        replaces=[f"import.{role}"],
        total=n,
        unit="images",
        work=work,
    )
    warn_of_other_classes(store, role)
    return _with_added(store, role, _open_folder(store, role, folder, fingerprint))


def _unwritten(folder: str, seen: ScanFingerprint) -> Iterator[Any]:
    for batch in scan_folder(folder):
        seen.update(batch)
        yield batch


def _fingerprint(folder: str) -> tuple[int, int, dict[str, int], str]:
    seen, n, name_bytes, skipped = ScanFingerprint(), 0, 0, {}
    for batch in _unwritten(folder, seen):
        n += len(batch.lengths)
        name_bytes += len(batch.paths)
        skipped = vars(batch.skipped)
    return n, name_bytes, dict(skipped), seen.hexdigest()
