"""A store: a folder of immutable arrays and the manifest that makes them visible."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, CorruptStore
from .check import checked_blocks, compare
from .files import os_errors, replace_file, require_writable, sync_folder
from .job import STATE_SUFFIX, Job
from .journal import Journal
from .lock import WriterLock
from .manifest import ArrayEntry, Manifest
from .npy import open_array

TEMPORARY = "ooc_diffusion-"
_FOLDERS = ("data", "jobs", "generations")
# Differences that a message names.
_SHOWN = 4
# Entries of a list that is shown as it is.
_WHOLE = 10
# What lies in a folder that is being made a store, by this process or another.
_BEGUN = re.compile(r"data|jobs|generations|lock|manifest\.json|\.manifest\.json\..*\.tmp")
# What stands for something larger tells nobody anything.
_DIGEST = re.compile("[0-9a-f]{32}")


class Store:
    """Arrays of one collection of images, on disk.

    Parameters
    ----------
    path : str or Path
        The folder.
    create : bool
        Make the folder where there is none. Default False.

    Raises
    ------
    BadInput
        If the folder is missing (and not to be created), is a file, or holds something else.
    CorruptStore
        If the manifest is damaged.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> store = Store(folder, create=True)
    >>> with store.job("squares", parameters={"n": 3}) as job:
    ...     squares = job.put("squares", np.arange(3) ** 2)
    ...     job.publish({})
    >>> store.array("squares")
    array([0, 1, 4])
    """

    def __init__(self, path: str | Path, *, create: bool = False, durable: bool = True) -> None:
        self.path = Path(path)
        self.lock = WriterLock(self.path / "lock")
        self.durable = durable
        self._known: Manifest | None = None
        if not (self.path / "manifest.json").exists():
            _refuse_place(self.path, create)
            self._make()

    @classmethod
    def peek(cls, path: str | Path) -> Store | None:
        """Open a store that `writing` would open, and write nothing: None where that would make one.

        What `writing` refuses about the place is refused. Locks do not count: others may write while one looks.
        """
        if (Path(path) / "manifest.json").exists():
            return cls(path)
        _refuse_place(Path(path), create=True)
        return None

    @classmethod
    def temporary(cls, *, inside: Path | None = None) -> Store:
        """Make a store in a temporary folder that is removed with the object (arrays already mapped stay readable).

        Nobody reads it after a crash, so little of it is synced.
        """
        folder = tempfile.mkdtemp(prefix=TEMPORARY, dir=inside)
        store = cls(folder, create=True, durable=False)
        weakref.finalize(store, shutil.rmtree, folder, ignore_errors=True)
        return store

    @classmethod
    @contextlib.contextmanager
    def writing(cls, path: str | Path) -> Iterator[Store]:
        """Open a store for several stages, made where there is none, and hold its lock.

        Where the first stage refuses its input nothing is left of a store that was made for it.
        """
        there = Path(path).exists()
        store = cls(path, create=True)
        with store.lock:
            try:
                yield store
            finally:
                if not there and store.manifest.generation == 0 and not any(store.path.glob("jobs/*")):
                    shutil.rmtree(store.path)

    def _make(self) -> None:
        with os_errors(self.path, "creating"):
            for folder in _FOLDERS:
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            if self.durable:
                sync_folder(self.path.absolute().parent)
        with self.lock.waiting():
            if not (self.path / "manifest.json").exists():
                replace_file(self.path / "manifest.json", Manifest().encode(), durable=self.durable)

    @property
    def manifest(self) -> Manifest:
        """The current generation, read anew each time; `Manifest.edited` is the one to change."""
        self._known = Manifest.load(self.path / "manifest.json", known=self._known)
        return self._known

    def __contains__(self, name: str) -> bool:
        return name in self.manifest.arrays

    def entry(self, name: str) -> ArrayEntry:
        """Return what the manifest says of an array; `BadInput` where there is none of that name."""
        return self._entry(self.manifest, name)

    def _entry(self, manifest: Manifest, name: str) -> ArrayEntry:
        entry = manifest.arrays.get(name)
        if entry is None:
            raise BadInput(f"{self.path} has no array {name!r}; run the stage that makes it (see `ooc-diffusion status`)")
        return entry

    def array(self, name: str) -> np.ndarray:
        """Map an array read-only, after its size and header were compared with the manifest."""
        return self.arrays(name)[0]

    def arrays(self, *names: str) -> list[np.ndarray]:
        """Map several arrays of one and the same generation, as `array` does one, whatever is published meanwhile."""
        manifest = self.manifest
        entries = [self._entry(manifest, name) for name in names]
        try:
            return [open_array(self.path / entry.file, np.dtype(entry.dtype), entry.shape) for entry in entries]
        except (CorruptStore, FileNotFoundError):
            if self.manifest.generation == manifest.generation:
                raise
        return self.arrays(*names)  # another process published and cleaned in between

    def checked_blocks(self, name: str, *, rows: int, start: int = 0) -> Iterator[np.ndarray]:
        """Yield an array block by block and compare what is read with its checksums; see `check.checked_blocks`."""
        entry = self.entry(name)
        return checked_blocks(self.path / entry.file, entry, self.array(name), rows=rows, start=start)

    def record(self, stage: str) -> dict[str, Any]:
        """Return what a published stage said of itself."""
        found = self.manifest.stages.get(stage)
        if found is None:
            raise BadInput(f"{self.path} has no stage {stage!r}; run it first (see `ooc-diffusion status`)")
        return copy.deepcopy(found["record"])

    def parameters(self, stage: str) -> dict[str, Any]:
        """Return the parameters of a published stage."""
        self.record(stage)
        return copy.deepcopy(self.manifest.stages[stage]["parameters"])

    def outdated(self, stage: str) -> list[str]:
        """Return the input arrays of a stage that are no longer those it was made from, or themselves outdated."""
        return _outdated(self.manifest, stage, {})

    @contextlib.contextmanager
    def job(
        self,
        stage: str,
        *,
        parameters: dict[str, Any],
        inputs: Sequence[str] = (),
        replaces: Sequence[str] = (),
        overwrite: bool = False,
        extends: bool = False,
    ) -> Iterator[Job]:
        """Begin a stage, go on with it, or find it done.

        Parameters
        ----------
        stage : str
            Name of the stage; one journal and one set of published arrays each.
        parameters : dict
            JSON values that determine the result.
        inputs : sequence of str
            Arrays of this store that the stage reads.
        replaces : sequence of str
            Other stages that make the same arrays in another way: refused where one is published, removed with ``overwrite``.
        overwrite : bool
            Throw away what differs or is damaged (the published result stays until the new one is published). Default False.
        extends : bool
            Make longer what the stage has published, see `Job.extend`: how that was made does not matter. Default False.

        Yields
        ------
        Job
            With ``published`` set where nothing is left to do.

        Raises
        ------
        BadInput
            If the stage, done or interrupted, had other parameters, inputs or code; the message shows the difference.
        StoreLocked
            If another process writes to the store.
        """
        from .. import __version__

        with self.lock:
            for name in inputs:
                self._require_current(name)
            identity = {
                "parameters": json.loads(json.dumps(parameters)),
                "inputs": {name: self.entry(name).identity for name in inputs},
                "code": ".".join(__version__.split(".")[:2]),
            }
            others = [name for name in replaces if name in self.manifest.stages]
            if others and not overwrite:
                raise BadInput(
                    f"{self.path} has these arrays from stage {others[0]}; give another --store, or --overwrite to replace them"
                )
            job = self._start(Job(self, stage, identity, others), overwrite, extends)
            try:
                yield job
            finally:
                job.close()

    def _start(self, job: Job, overwrite: bool, extends: bool) -> Job:
        path = self.path / "jobs" / f"{job.stage}.journal"
        done = self.manifest.stages.get(job.stage)
        journal = Journal.read(path)
        if journal is not None and done is not None and journal.lines[0]["id"] == done["id"]:
            self._forget(journal)  # the process ended between publishing and removing its journal
            journal = None
        if extends:
            done = None
        if journal is not None and overwrite and _difference(journal.lines[0], job.identity):
            self._forget(journal)
            journal = None
        if (
            journal is None
            and done is not None
            and not job.replaces
            and not _difference(done, job.identity)
            and not (overwrite and self._damaged(done, data=True))
        ):
            if damaged := self._damaged(done, data=False):
                raise CorruptStore(f"{damaged}; run stage {job.stage} again with --overwrite")
            job.published, job.record = True, copy.deepcopy(done["record"])
            return job
        for before, state in ((journal.lines[0] if journal else None, "interrupted"), (done, "finished")):
            difference = _difference(before, job.identity) if before else ""
            if difference and not overwrite:
                raise BadInput(
                    f"stage {job.stage} in {self.path} was {state} with {difference}; "
                    "give the same again, or --overwrite to start it anew"
                )
        if journal is not None:
            try:
                job.resume(journal)
                return job
            except CorruptStore:
                job.close()
                if not overwrite:
                    raise
                self._forget(journal)
                job = Job(self, job.stage, job.identity, job.replaces)
        job.begin(path)
        return job

    def _damaged(self, done: dict[str, Any], *, data: bool) -> str:
        """Return what is not as it was written in the arrays of a published stage (``data``: read in whole), empty if nothing."""
        arrays = self.manifest.arrays
        entries = [arrays[name] for name in done["arrays"] if name in arrays]
        wrongs = (wrong for entry in entries for _, wrong in compare(self.path / entry.file, entry, data=data))
        return next(filter(None, wrongs), "")

    def _forget(self, journal: Journal) -> None:
        """Remove a journal and the files that only it names."""
        journal.path.unlink()
        journal.path.with_suffix(STATE_SUFFIX).unlink(missing_ok=True)
        published = {entry.file for entry in self.manifest.arrays.values()}
        for line in journal.lines:
            for what in line.get("declare", {}).values():
                if what["file"] not in published:
                    (self.path / what["file"]).unlink(missing_ok=True)

    def _require_current(self, name: str) -> None:
        stage = self.entry(name).stage
        outdated = self.outdated(stage)
        if outdated:
            raise BadInput(
                f"{name} in {self.path} was made from an earlier {outdated[0]}; run stage {stage} again with --overwrite"
            )

    def commit(self, manifest: Manifest) -> None:
        """Make a manifest the current one, atomically, and keep a copy under its generation."""
        manifest.generation += 1
        data = manifest.encode()
        replace_file(self.path / "generations" / f"{manifest.generation:08d}.json", data, durable=self.durable)
        replace_file(self.path / "manifest.json", data, durable=self.durable)


def _outdated(manifest: Manifest, stage: str, known: dict[str, list[str]]) -> list[str]:
    """Do what `Store.outdated` says, looking at each stage once."""
    if stage not in known:
        known[stage] = []  # of a stage that reads its own arrays
        known[stage] = [
            name
            for name, made_from in manifest.stages[stage]["inputs"].items()
            if name not in manifest.arrays
            or manifest.arrays[name].identity != made_from
            or _outdated(manifest, manifest.arrays[name].stage, known)
        ]
    return known[stage]


def _changed(key: str, old: Any, new: Any) -> str:
    """Say how a parameter has changed: of a long list what is in one alone, of a digest only that it has."""
    if all(isinstance(value, str) and _DIGEST.fullmatch(value) for value in (old, new)):
        return f"other {key}"
    if isinstance(old, list) and isinstance(new, list) and max(len(old), len(new)) > _WHOLE:
        gone, come = ([value for value in a if value not in b] for a, b in ((old, new), (new, old)))
        if gone or come:
            return f"{key} with {_listed(gone)} (now with {_listed(come)})"
    return f"{key} = {old} (now {new})"


def _listed(values: list[Any]) -> str:
    more = [f"{len(values) - _SHOWN} more"] if len(values) > _SHOWN else []
    return ", ".join([*map(str, values[:_SHOWN]), *more]) or "none of these"


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say in one line how an earlier run of a stage differs from the one asked for; empty where it does not."""
    parts = []
    if before["code"] != now["code"]:
        parts.append(f"version {before['code']} (now {now['code']})")
    old, new = before["parameters"], now["parameters"]
    parts += [_changed(key, old.get(key), new.get(key)) for key in sorted(old | new) if old.get(key) != new.get(key)]
    old, new = before["inputs"], now["inputs"]
    parts += [f"another {key}" for key in sorted(old | new) if old.get(key) != new.get(key)]
    more = [f"{len(parts) - _SHOWN} more"] if len(parts) > _SHOWN else []
    return ", ".join([*parts[:_SHOWN], *more])


def _refuse_place(path: Path, create: bool) -> None:
    """Refuse a place where there is no store, unless one may be made there."""
    if path.exists() and not path.is_dir():
        raise BadInput(f"{path} is a file, but a store is a folder; give another --store")
    if any(path.glob("generations/*.json")):
        Manifest.load(path / "manifest.json")  # which raises: it is missing from a store that had one
    if not create:
        raise BadInput(f"{path} holds no store; run `ooc-diffusion extract` or `import` first, or check --store")
    if path.is_dir() and any(_BEGUN.fullmatch(entry.name) is None for entry in path.iterdir()):
        raise BadInput(f"{path} is a folder with other files in it; give an empty or new folder as --store")
    require_writable(path)
