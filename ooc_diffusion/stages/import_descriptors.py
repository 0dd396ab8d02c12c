"""Descriptors that people have already."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..features import DescriptorFile, check_descriptors, open_descriptors
from ..images import printable
from ..store import Store, append_strings, load_npy, path_key
from .class_names import warn_of_other_classes
from .listing import refuse_names_twice, refuse_to_lose
from .plans import BLOCK_ROWS, plan_import
from .settings import Record, Settings, Worker, check_role, run_stage

# Names that are looked at together.
_NAMES = 8192

# How to add the same descriptors again, should somebody mean it.
TWICE = "as it stands; import other images, or tell these apart by --names"


def import_descriptors(
    file: str | Path,
    *,
    store: str | Path,
    role: str = "background",
    format: str | None = None,
    dim: int | None = None,
    field: str | None = None,
    names: str | Path | None = None,
    names_field: str | None = None,
    truth: str | Path | None = None,
    truth_field: str | None = None,
    size: int | None = None,
    settings: Settings | None = None,
) -> Record:
    """Copy descriptors from a file into a store, checked and as float32.

    Parameters
    ----------
    file : str or Path
        Descriptors of n images, floats or integers; NaN and infinity are refused.
    store : str or Path
        The store; made where there is none.
    role : {"background", "seeds", "tests", "added"}
        What the descriptors are for. Default ``"background"``.
    format, dim, field : optional
        What kind of file it is, and what to read of it; see `open_descriptors`.
    names : str or Path, optional
        Text file with one name per row, sorted. Default: the row numbers are the names.
    names_field : str, optional
        The column of a parquet file with the names, instead.
    truth : str or Path, optional
        ``.npy`` file of shape (n,) with the class of each row for `evaluate`; -1 = unknown.
    truth_field : str, optional
        Where these are in an HDF5 or parquet file, instead: numbers, or names, which are numbered in their order; a name that
        is missing or empty is no class. ``all_labels`` of an HDF5 file with ``all_feats`` are read anyhow.
    size : int, optional
        Take so many rows, the first ones, as though the file had no more. ``names`` and ``truth`` may be those of these rows, or
        of all that the file has, of which the first are taken. Default: all.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The record of the stage. Arrays: ``<role>/descriptors`` (n, d) float32, and ``<role>/truth`` (n,) int32 and
        ``<role>/path_*`` where given.
    """
    settings = settings or Settings()
    check_role(role)
    for given, in_file, what in ((names, names_field, "names"), (truth, truth_field, "truth")):
        if given is not None and in_file is not None:
            raise BadInput(f"give either `{what}` or `{what}_field`, not both: {given} and {in_file!r}")
    files = {"file": file, "names": names, "truth": truth}
    fields = {"field": field, "truth_field": truth_field, "names_field": names_field}
    source = open_descriptors(file, format=format, dim=dim, **fields, size=size)
    parameters = {key: file_identity(path) for key, path in files.items() if path is not None}
    parameters |= source.parameters
    n, d = source.shape
    has_names = names is not None or names_field is not None
    given_classes = None if truth is None else _open_truth(truth, n, source.whole)

    def work(worker: Worker) -> dict[str, Any]:
        refuse_to_lose(worker, worker.job.store, role)
        if role == "added" and not has_names:
            _refuse_file_twice(worker, parameters["file"])
        _copy_classes(worker, role, given_classes, source, str(truth or file))
        _copy_names(worker, role, source, names, str(names or file))
        if has_names:
            refuse_names_twice(worker, role)
        target = worker.job.array(f"{role}/descriptors", "<f4", (n, d))
        worker.advance(target.rows)
        for values in source.blocks(target.rows, BLOCK_ROWS):
            block = _as_float32(values, target.rows, str(file))
            target.append(block)
            worker.job.checkpoint()
            worker.advance(len(block))
        refuse_changed(worker, files, parameters)
        names_of_classes = source.class_names() if truth is None else None
        return {"images": n, "dim": d} | ({"class_names": names_of_classes} if names_of_classes else {})

    plan = plan_import(n, d, budget=settings.budget, held_bytes=source.held_bytes(BLOCK_ROWS))
    if settings.dry_run:
        return {"stage": f"import.{role}", "plan": vars(plan)}
    target = Store(store, create=True)
    record = run_stage(
        target,
        f"import.{role}",
        settings,
        plan=plan,
        parameters=parameters,
        replaces=[f"extract.{role}", f"list.{role}"],
        total=n,
        work=work,
    )
    warn_of_other_classes(target, role)
    return record


def _refuse_file_twice(worker: Worker, file: dict[str, Any]) -> None:
    """Refuse to add a file that the background came from, or that was added before: without names nothing else tells."""
    stages = worker.job.store.manifest.stages
    imported = stages.get("import.background", {"parameters": {}})["parameters"]
    listed = [stages[stage]["record"] for stage in ("import.background", "list.background") if stage in stages]
    files = [imported.get("file"), *(part.get("file") for record in listed for part in record.get("added", []))]
    if file in files:
        worker.job.discard()
        raise BadInput(f"{file['path']} is part of the background already, {TWICE}")


def refuse_changed(worker: Worker, files: Mapping[str, str | Path | None], identities: Mapping[str, Any]) -> None:
    """Raise `BadInput` where a file is not the one that it was; the work is thrown away, since it may come from either."""
    changed = [path for key, path in files.items() if path is not None and file_identity(path) != identities[key]]
    if changed:
        worker.job.discard()
        raise BadInput(f"{changed[0]} has changed while it was copied; run the command again")


def _as_float32(block: np.ndarray, first: int, what: str) -> np.ndarray:
    if block.dtype.kind == "f":
        check_descriptors(block, first, what)
    with np.errstate(over="ignore"):
        block = np.ascontiguousarray(block, np.float32)
    check_descriptors(block, first, f"{what}, as float32,")
    return block


def _open_truth(truth: str | Path, n: int, whole: int) -> np.ndarray:
    """Return the classes of the first n rows, from a file with these or with those of the whole."""
    classes = load_npy(truth)
    if classes.shape not in ((n,), (whole,)) or classes.dtype.kind not in "iu":
        shapes = f"({n},)" if n == whole else f"({n},), or ({whole},) for all rows of the file"
        raise BadInput(f"{truth} holds {classes.dtype} {classes.shape}; give the classes as integers of shape {shapes}")
    return classes[:n]


def _copy_classes(worker: Worker, role: str, given: np.ndarray | None, source: DescriptorFile, what: str) -> None:
    """Write the classes, those of a file of their own where that is given; the work is thrown away where one is none."""
    blocks = source.classes(BLOCK_ROWS)
    if given is not None:
        blocks = (given[first : first + BLOCK_ROWS] for first in range(0, len(given), BLOCK_ROWS))
    if blocks is None:
        return
    worker.job.drop(f"{role}/truth")
    target = worker.job.array(f"{role}/truth", "<i4", (source.shape[0],))
    for classes in blocks:
        wrong = np.flatnonzero((classes < -1) | (classes > np.iinfo(np.int32).max))
        if len(wrong):
            row = target.rows + wrong[0]
            worker.job.discard()
            raise BadInput(f"{what} row {row} is {classes[wrong[0]]}; classes are 0, 1, ..., and -1 for unknown")
        target.append(np.ascontiguousarray(classes, np.int32))


def _copy_names(worker: Worker, role: str, source: DescriptorFile, file: str | Path | None, what: str) -> None:
    """Write the names, those of a text file where that is given; the work is thrown away where they are not as they must be.

    A text file may have those of the whole, of which the first are taken and the others counted.
    """
    found: Iterable[list[str]] | None = source.names(_NAMES) if file is None else _lines(Path(file))
    if found is None:
        return
    worker.job.drop(f"{role}/path_bytes")
    worker.job.drop(f"{role}/path_offsets")
    rows, before, n = 0, "", source.shape[0]
    try:
        for batch in found:
            taken = batch[: max(n - rows, 0)]
            for row, name in enumerate(taken, start=rows):
                if row:
                    _refuse_disorder(before, name, f"{what} row {row}" if file is None else f"{what} line {row + 1}")
                before = name
            append_strings(worker.job, f"{role}/path", taken)
            rows += len(batch)
        if rows not in (n, source.whole):
            of = "" if n == source.whole else f", of {source.whole} in the file"
            raise BadInput(f"{what} has {rows} names for {n} descriptors{of}; give one name per line and row")
    except BadInput:
        worker.job.discard()
        raise


def _refuse_disorder(before: str, name: str, where: str) -> None:
    """Refuse a name that is that of the row before, or that would stand before it: names are found by bisection."""
    if name == before:
        raise BadInput(f"{where}: {printable(name)!r} is the name of the row before, too; give each row a name of its own")
    if path_key(os.fsencode(name)) < path_key(os.fsencode(before)):
        raise BadInput(
            f"{where}: {printable(name)!r} stands behind {printable(before)!r}, but sorts before it; sort names and descriptors "
            "together, by the bytes of the names, the files of a folder before its subfolders"
        )


def _lines(file: Path) -> Iterator[list[str]]:
    batch: list[str] = []
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for line in lines:
                if "\0" in line:
                    raise BadInput(f"{file} is no text in UTF-8; give one name per line, saved as UTF-8")
                batch.append(line.rstrip("\n"))
                if len(batch) == _NAMES:
                    yield batch
                    batch = []
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}; give a text file with one name per line") from None
    yield batch


def file_identity(path: str | Path) -> dict[str, Any]:
    """Return by what a file is known again: path, bytes, time of its last change."""
    try:
        info = Path(path).stat()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; check the path") from None
    return {"path": str(Path(path).resolve()), "bytes": info.st_size, "mtime_ns": info.st_mtime_ns}
