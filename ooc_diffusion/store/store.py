"""A store: a folder of immutable arrays and the manifest that makes them visible."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, StorageFailure
from .files import os_errors, replace_file
from .job import Job
from .journal import Journal
from .lock import WriterLock
from .manifest import ArrayEntry, Manifest
from .npy import open_array

_FOLDERS = ("data", "jobs", "generations")


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
    ...     job.put("squares", np.arange(3) ** 2)
    ...     job.publish({})
    >>> store.array("squares")
    array([0, 1, 4])
    """

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = Path(path)
        self.lock = WriterLock(self.path / "lock")
        if self.path.exists() and not self.path.is_dir():
            raise BadInput(f"{self.path} is a file, but a store is a folder; give another --store")
        if not (self.path / "manifest.json").exists():
            self._make(create)

    @classmethod
    def temporary(cls, *, inside: Path | None = None) -> Store:
        """Make a store in a temporary folder that is removed with the object (arrays already mapped stay readable)."""
        folder = tempfile.mkdtemp(prefix="ooc_diffusion-", dir=inside)
        store = cls(folder, create=True)
        weakref.finalize(store, shutil.rmtree, folder, ignore_errors=True)
        return store

    def _make(self, create: bool) -> None:
        if not create:
            raise BadInput(f"{self.path} holds no store; run `ooc-diffusion extract` or `import` first, or check --store")
        if self.path.is_dir() and any(entry.name not in (*_FOLDERS, "lock") for entry in self.path.iterdir()):
            if any(self.path.glob("generations/*.json")):
                raise StorageFailure(f"{self.path}/manifest.json is missing; copy the latest of {self.path}/generations there")
            raise BadInput(f"{self.path} is a folder with other files in it; give an empty or new folder as --store")
        with os_errors(self.path, "creating"):
            for folder in _FOLDERS:
                (self.path / folder).mkdir(parents=True, exist_ok=True)
        with self.lock:
            if not (self.path / "manifest.json").exists():
                self.commit(Manifest())

    @property
    def manifest(self) -> Manifest:
        """The current generation, read anew each time."""
        return Manifest.load(self.path / "manifest.json")

    def __contains__(self, name: str) -> bool:
        return name in self.manifest.arrays

    def entry(self, name: str) -> ArrayEntry:
        """Return what the manifest says of an array; `BadInput` where there is none of that name."""
        entry = self.manifest.arrays.get(name)
        if entry is None:
            raise BadInput(f"{self.path} has no array {name!r}; run the stage that makes it (see `ooc-diffusion status`)")
        return entry

    def array(self, name: str) -> np.ndarray:
        """Map an array read-only, after its size and header were compared with the manifest."""
        entry = self.entry(name)
        return open_array(self.path / entry.file, np.dtype(entry.dtype), entry.shape)

    def record(self, stage: str) -> dict[str, Any]:
        """Return what a published stage said of itself."""
        found = self.manifest.stages.get(stage)
        if found is None:
            raise BadInput(f"{self.path} has no stage {stage!r}; run it first (see `ooc-diffusion status`)")
        return found["record"]

    def parameters(self, stage: str) -> dict[str, Any]:
        """Return the parameters of a published stage."""
        self.record(stage)
        return self.manifest.stages[stage]["parameters"]

    def outdated(self, stage: str) -> list[str]:
        """Return the input arrays of a stage that are no longer those it was made from."""
        manifest = self.manifest
        inputs = manifest.stages[stage]["inputs"]
        return [
            name
            for name, made_from in inputs.items()
            if name not in manifest.arrays or manifest.arrays[name].identity != made_from
        ]

    @contextlib.contextmanager
    def job(
        self,
        stage: str,
        *,
        parameters: dict[str, Any],
        inputs: Sequence[str] = (),
        overwrite: bool = False,
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
        overwrite : bool
            Throw away what differs (the published result stays until the new one is published). Default False.

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

        for name in inputs:
            self._require_current(name)
        identity = {
            "parameters": parameters,
            "inputs": {name: self.entry(name).identity for name in inputs},
            "code": ".".join(__version__.split(".")[:2]),
        }
        with self.lock:
            job = self._start(Job(self, stage, identity), overwrite)
            try:
                yield job
            finally:
                job.close()

    def _start(self, job: Job, overwrite: bool) -> Job:
        path = self.path / "jobs" / f"{job.stage}.journal"
        done = self.manifest.stages.get(job.stage)
        journal = Journal.read(path)
        if journal is not None and done is not None and journal.lines[0]["id"] == done["id"]:
            self._forget(journal)  # the process ended between publishing and removing its journal
            journal = None
        if journal is None and done is not None and not _difference(done, job.identity):
            job.published, job.record = True, done["record"]
            return job
        for before, state in ((journal.lines[0] if journal else None, "interrupted"), (done, "finished")):
            difference = _difference(before, job.identity) if before else ""
            if not difference:
                continue
            if not overwrite:
                raise BadInput(
                    f"stage {job.stage} in {self.path} was {state} with {difference}; "
                    "give the same again, or --overwrite to start it anew"
                )
            if state == "interrupted" and journal is not None:
                self._forget(journal)
                journal = None
        if journal is None:
            job.begin(path)
        else:
            job.resume(journal)
        return job

    def _forget(self, journal: Journal) -> None:
        """Remove a journal and the files that only it names."""
        journal.path.unlink()
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
        replace_file(self.path / "generations" / f"{manifest.generation:08d}.json", data)
        replace_file(self.path / "manifest.json", data)


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say in one line how an earlier run of a stage differs from the one asked for; empty where it does not."""
    parts = []
    if before["code"] != now["code"]:
        parts.append(f"version {before['code']} (now {now['code']})")
    old, new = before["parameters"], now["parameters"]
    parts += [f"{key} = {old.get(key)} (now {new.get(key)})" for key in sorted(old | new) if old.get(key) != new.get(key)]
    old, new = before["inputs"], now["inputs"]
    parts += [f"another {key}" for key in sorted(old | new) if old.get(key) != new.get(key)]
    return ", ".join(parts)
