"""Descriptors that people have already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..features import check_descriptors
from ..store import Store, append_strings, path_key
from .listing import refuse_names_twice, refuse_to_lose
from .plans import BLOCK_ROWS, plan_import
from .settings import Record, Settings, Worker, check_role, run_stage

# How to add the same descriptors again, should somebody mean it.
TWICE = "as it stands; import other images, or tell these apart by --names"


def import_descriptors(
    file: str | Path,
    *,
    store: str | Path,
    role: str = "background",
    names: str | Path | None = None,
    truth: str | Path | None = None,
    settings: Settings | None = None,
) -> Record:
    """Copy descriptors from an ``.npy`` file into a store, checked and as float32.

    Parameters
    ----------
    file : str or Path
        Array of shape (n, d), floats or integers; NaN and infinity are refused.
    store : str or Path
        The store; made where there is none.
    role : {"background", "seeds", "tests", "added"}
        What the descriptors are for. Default ``"background"``.
    names : str or Path, optional
        Text file with one name per row, sorted. Default: the row numbers are the names.
    truth : str or Path, optional
        ``.npy`` file of shape (n,) with the class of each row for `evaluate`; -1 = unknown.
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
    values = load_npy(file)
    if values.ndim != 2 or values.dtype.kind not in "fiu" or 0 in values.shape:
        raise BadInput(f"{file} holds {values.dtype} {values.shape}; descriptors are numbers of shape (images, dimensions)")
    files = {"file": file, "names": names, "truth": truth}
    parameters = {key: file_identity(path) for key, path in files.items() if path is not None}
    classes = None if truth is None else _load_truth(truth, len(values))

    def work(worker: Worker) -> dict[str, Any]:
        refuse_to_lose(worker, worker.job.store, role)
        if role == "added" and names is None:
            _refuse_file_twice(worker, parameters["file"])
        target = worker.job.array(f"{role}/descriptors", "<f4", values.shape)
        worker.advance(target.rows)
        for first in range(target.rows, len(values), BLOCK_ROWS):
            block = _as_float32(values[first : first + BLOCK_ROWS], first, str(file))
            target.append(block)
            worker.job.checkpoint()
            worker.advance(len(block))
        if classes is not None:
            worker.job.put(f"{role}/truth", classes)
        if names is not None:
            worker.job.drop(f"{role}/path_bytes")
            worker.job.drop(f"{role}/path_offsets")
            _copy_names(worker, role, Path(names), len(values))
            refuse_names_twice(worker, role)
        refuse_changed(worker, files, parameters)
        return {"images": len(values), "dim": values.shape[1]}

    plan = plan_import(*values.shape, budget=settings.budget)
    if settings.dry_run:
        return {"stage": f"import.{role}", "plan": vars(plan)}
    return run_stage(
        Store(store, create=True),
        f"import.{role}",
        settings,
        plan=plan,
        parameters=parameters,
        replaces=[f"extract.{role}", f"list.{role}"],
        total=len(values),
        work=work,
    )


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


def load_npy(file: str | Path) -> np.ndarray:
    """Map an ``.npy`` file read-only; `BadInput` where it is none, is truncated, or holds Python objects."""
    try:
        with np.errstate(over="raise"):  # a header may state more bytes than can be counted
            values = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist; check the path") from None
    except (OSError, ValueError, EOFError, ArithmeticError) as error:
        pickled = "allow_pickle" in str(error) or "Python objects" in str(error)
        reason = "it holds Python objects, which are never loaded" if pickled else str(error).splitlines()[0]
        raise BadInput(f"{file} cannot be read as an .npy array ({reason}); save plain numbers with numpy.save") from None
    if not isinstance(values, np.ndarray):
        raise BadInput(f"{file} is an archive of arrays; save the one that is meant with numpy.save")
    return values


def _as_float32(block: np.ndarray, first: int, what: str) -> np.ndarray:
    if block.dtype.kind == "f":
        check_descriptors(block, first, what)
    with np.errstate(over="ignore"):
        block = np.ascontiguousarray(block, np.float32)
    check_descriptors(block, first, f"{what}, as float32,")
    return block


def _load_truth(truth: str | Path, n: int) -> np.ndarray:
    classes = load_npy(truth)
    if classes.shape != (n,) or classes.dtype.kind not in "iu":
        raise BadInput(f"{truth} holds {classes.dtype} {classes.shape}; give the classes as integers of shape ({n},)")
    wrong = np.flatnonzero((classes < -1) | (classes > np.iinfo(np.int32).max))
    if len(wrong):
        raise BadInput(f"{truth} row {wrong[0]} is {classes[wrong[0]]}; classes are 0, 1, ..., and -1 for unknown")
    return classes.astype(np.int32)


def _copy_names(worker: Worker, role: str, file: Path, n: int) -> None:
    batch: list[str] = []
    rows, before = 0, b""
    with file.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            name = line.rstrip("\n")
            key = name.encode(errors="surrogateescape")
            if rows and path_key(key) <= path_key(before):
                raise BadInput(f"{file} line {rows + 1}: {name!r} is given twice or out of order; sort the rows by name")
            before, rows = key, rows + 1
            batch.append(name)
            if len(batch) == BLOCK_ROWS:
                append_strings(worker.job, f"{role}/path", batch)
                batch = []
    append_strings(worker.job, f"{role}/path", batch)
    if rows != n:
        raise BadInput(f"{file} has {rows} names for {n} descriptors; give one name per line and row")


def file_identity(path: str | Path) -> dict[str, Any]:
    """Return by what a file is known again: path, bytes, time of its last change."""
    try:
        info = Path(path).stat()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; check the path") from None
    return {"path": str(Path(path).resolve()), "bytes": info.st_size, "mtime_ns": info.st_mtime_ns}
