"""Looking at a store and keeping it in order: status, verification, removal of what nobody needs."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StorageFailure, StoreLocked
from .check import compare
from .files import os_errors, read_regular
from .job import STATE_SUFFIX
from .journal import Journal
from .lock import WriterLock
from .manifest import Manifest
from .store import TEMPORARY, Store


@dataclass(frozen=True)
class Problem:
    """Something in a store that is not as it was written; ``array`` and ``stage`` are empty for a file that holds none."""

    array: str
    file: str
    what: str
    stage: str = ""


@dataclass(frozen=True)
class CleanReport:
    """What `clean` removed."""

    files: list[str]
    bytes: int


def status(store: Store) -> dict[str, Any]:
    """Return the stages, arrays and unfinished jobs of a store, from the manifest and journals alone.

    Parameters
    ----------
    store : Store
        The store.

    Returns
    -------
    dict
        ``generation``, ``stages`` (name, arrays, bytes, outdated inputs), ``unfinished`` (stage, rows per array), ``temporary``
        (folders of diffusions under way or killed, relative to the store).
    """
    manifest = store.manifest
    stages = [
        {
            "stage": name,
            "arrays": {array: list(manifest.arrays[array].shape) for array in made["arrays"] if array in manifest.arrays},
            "bytes": sum(manifest.arrays[array].bytes for array in made["arrays"] if array in manifest.arrays),
            "parameters": made["parameters"],
            "outdated": store.outdated(name),
        }
        for name, made in manifest.stages.items()
    ]
    unfinished = []
    for journal in _live_journals(store, manifest):
        rows: dict[str, int] = {}
        for line in journal.lines[1:]:
            rows |= {name: done[0] for name, done in line.get("arrays", {}).items()}
            rows = {name: n for name, n in rows.items() if name not in line.get("drop", [])}
        unfinished.append({"stage": journal.lines[0]["stage"], "rows": rows})
    return {
        "store": str(store.path),
        "generation": manifest.generation,
        "stages": stages,
        "unfinished": unfinished,
        "temporary": [str(folder.relative_to(store.path)) for folder in _temporary(store)],
    }


def verify(store: Store, *, data: bool = False, seconds: float | None = None) -> tuple[list[Problem], int]:
    """Compare the files of a store with its manifest.

    Parameters
    ----------
    store : Store
        The store.
    data : bool
        Also read all data and compare the checksum of each chunk. Default: existence, size and header only.
    seconds : float, optional
        Stop reading after this time. Default: read everything.

    Returns
    -------
    problems : list of Problem
        Empty where all is well.
    bytes_read : int
        Bytes of data that were compared.
    """
    bytes_read = 0
    deadline = None if seconds is None else time.monotonic() + seconds
    manifest = store.manifest
    problems = _other_problems(store, manifest)
    for name, entry in manifest.arrays.items():
        for compared, wrong in compare(store.path / entry.file, entry, data=data):
            bytes_read += compared
            if wrong:
                problems.append(Problem(name, entry.file, wrong, entry.stage))
            if deadline is not None and time.monotonic() > deadline:
                return problems, bytes_read
    if problems and store.manifest.generation != manifest.generation:
        return verify(store, data=data, seconds=seconds)  # another process published, and perhaps cleaned, meanwhile
    return problems, bytes_read


def clean(store: Store, *, unfinished: bool = False, dry_run: bool = False) -> CleanReport:
    """Remove earlier generations and files that nothing names.

    Parameters
    ----------
    store : Store
        The store; no other process may be writing to it.
    unfinished : bool
        Also remove the work of interrupted stages. Default: keep it, so that they can be resumed.
    dry_run : bool
        Only say what would be removed.

    Returns
    -------
    CleanReport
        Files removed, relative to the store, and their bytes.
    """
    with store.lock:
        manifest = store.manifest
        kept = {entry.file for entry in manifest.arrays.values()}
        kept |= {"manifest.json", "lock", f"generations/{manifest.generation:08d}.json"}
        if not unfinished:
            for journal in _live_journals(store, manifest):
                kept |= {str(path.relative_to(store.path)) for path in (journal.path, journal.path.with_suffix(STATE_SUFFIX))}
                kept |= {what["file"] for line in journal.lines for what in line.get("declare", {}).values()}
        removed, size = [], 0
        for path in _own_files(store.path):
            name = str(path.relative_to(store.path))
            if name not in kept:
                removed.append(name)
                size += path.lstat().st_blocks * 512
                if not dry_run:
                    with os_errors(path, "removing"):
                        path.unlink()
        for folder in _abandoned(store):
            removed.append(str(folder.relative_to(store.path)))
            size += sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
            if not dry_run:
                shutil.rmtree(folder)
        return CleanReport(removed, size)


def _abandoned(store: Store) -> list[Path]:
    """Temporary stores inside of a store that nobody writes to any more: their process was killed."""
    found = []
    for folder in _temporary(store):
        with contextlib.suppress(StoreLocked), WriterLock(folder / "lock"):
            found.append(folder)
    return found


def _temporary(store: Store) -> list[Path]:
    return sorted(store.path.glob(f"jobs/{TEMPORARY}*"))


def _own_files(root: Path) -> list[Path]:
    patterns = ("data/*.npy", "jobs/*.journal", f"jobs/*{STATE_SUFFIX}", "generations/*.json", ".*.tmp", "*/.*.tmp")
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def _other_problems(store: Store, manifest: Manifest) -> list[Problem]:
    """What is wrong with the copy of the manifest and with the journals."""
    problems = []
    copy = f"generations/{manifest.generation:08d}.json"
    try:
        if manifest.generation and read_regular(store.path / copy) != manifest.source:
            problems.append(Problem("", copy, "the copy of the manifest differs from it; copy manifest.json over it"))
    except OSError as error:
        problems.append(
            Problem("", copy, f"the copy of the manifest cannot be read ({error.strerror}); copy manifest.json there")
        )
    for path in sorted(store.path.glob("jobs/*.journal")):
        name = str(path.relative_to(store.path))
        try:
            journal = Journal.read(path)
        except StorageFailure as error:
            problems.append(Problem("", name, str(error)))
            continue
        if journal is None and not path.exists():
            continue  # its stage was published meanwhile
        if journal is None or journal.damaged:
            again = "some" if journal else "all"
            problems.append(Problem("", name, f"the journal is damaged; {again} of the work of that stage will be done again"))
    return problems


def _live_journals(store: Store, manifest: Manifest) -> list[Journal]:
    """Journals of stages that were interrupted (not those left behind by a stage that was published)."""
    journals = []
    for path in sorted(store.path.glob("jobs/*.journal")):
        journal = Journal.read(path)
        if journal is not None and manifest.stages.get(journal.lines[0]["stage"], {}).get("id") != journal.lines[0]["id"]:
            journals.append(journal)
    return journals
