"""A stage at work: arrays that grow, a journal of what is done, and the moment when all of it becomes visible."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import StorageFailure
from .files import require_space
from .journal import Journal
from .manifest import ArrayEntry, Manifest, check_names
from .writer import ArrayWriter

if TYPE_CHECKING:
    from .store import Store

STATE_SUFFIX = ".state"
_SECONDS_BETWEEN_CHECKPOINTS = 2.0


class Job:
    """The work of one stage on a store, begun by `Store.job` and ended by `publish`.

    Attributes
    ----------
    stage : str
        Name of the stage.
    published : bool
        The stage had been done before with the same parameters and inputs: nothing is left to do.
    resumed : bool
        The work of an interrupted run goes on.
    record : dict
        What the stage said of itself when it was published.
    state : dict
        What the last checkpoint was given.
    """

    def __init__(self, store: Store, stage: str, identity: dict[str, Any], replaces: Sequence[str] = ()) -> None:
        self.store = store
        self.stage = stage
        self.identity = identity
        self.replaces = replaces
        self.published = False
        self.resumed = False
        self.record: dict[str, Any] = {}
        self.state: dict[str, Any] = {}
        self._arrays: dict[str, ArrayWriter] = {}
        self._declared: dict[str, dict[str, Any]] = {}
        self._journal: Journal | None = None
        self._last_checkpoint = time.monotonic()
        self._dropped_bytes = 0

    @property
    def written_bytes(self) -> int:
        """Bytes of rows that this run wrote, those that were dropped included."""
        return self._dropped_bytes + sum(writer.written_bytes for writer in self._arrays.values())

    @property
    def id(self) -> str:
        """Name of this job, the same when it goes on, and never given again."""
        assert self._journal is not None
        return self._journal.lines[0]["id"]

    @property
    def state_path(self) -> Path:
        """A file beside the journal that the stage may keep for itself, and replace; it goes when the journal goes."""
        assert self._journal is not None
        return self._journal.path.with_suffix(STATE_SUFFIX)

    def begin(self, journal_path: Path) -> None:
        """Start anew with an empty journal."""
        first = {"id": uuid.uuid4().hex, "stage": self.stage, **self.identity}
        self._journal = Journal.create(journal_path, first, durable=self.store.durable)

    def resume(self, journal: Journal) -> None:
        """Go on where a journal ends."""
        self._journal = journal
        self.resumed = len(journal.lines) > 1
        done: dict[str, tuple[int, list[str], str | None]] = {}
        for line in journal.lines[1:]:
            self._declared.update(line.get("declare", {}))
            for name in line.get("drop", []):
                del self._declared[name]
                done.pop(name, None)
            for name, (rows, digests, *rest) in line.get("arrays", {}).items():
                done[name] = (rows, done.get(name, (0, [], None))[1] + digests, rest[0] if rest else None)
            self.state = line.get("state", self.state)
        for name, what in self._declared.items():
            writer = self._writer(what)
            writer.resume(*done.get(name, (0, [], None)))
            self._arrays[name] = writer

    def reserve(self, needed_bytes: int) -> None:
        """Raise `NoSpace` unless the disk has room for what is still to be written of ``needed_bytes``."""
        written = sum((writer.expected_rows or writer.rows) * writer.row_bytes for writer in self._arrays.values())
        require_space(self.store.path, max(0, needed_bytes - written))

    def array(self, name: str, dtype: str, shape: tuple[int | None, ...], *, scratch: bool = False) -> ArrayWriter:
        """Begin an array, or go on with it.

        Parameters
        ----------
        name : str
            Name in the store, such as ``background/vectors``.
        dtype : str
            Little-endian type, such as ``<f4``.
        shape : tuple
            Shape; a first entry of None stands for a number of rows that only the end will tell.
        scratch : bool
            Whether the array is only for this stage: it is journaled, but given back when the stage is published.

        Returns
        -------
        ArrayWriter
            Its ``rows`` say how much is there already.
        """
        if name not in self._arrays:
            stem = name.replace("/", ".")
            what: dict[str, Any] = {
                "file": f"data/{stem}.{uuid.uuid4().hex[:12]}.npy",
                "dtype": np.dtype(dtype).str,
                "shape": [None if n is None else int(n) for n in shape],
                "scratch": scratch,
            }
            check_names(name, what["file"], what["dtype"])
            writer = self._writer(what)
            writer.create()
            try:
                self._line({"declare": {name: what}})
            except BaseException:
                writer.close()
                writer.path.unlink()
                raise
            self._declared[name] = what
            self._arrays[name] = writer
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        """Return whether an array has been begun."""
        return name in self._arrays

    def put(self, name: str, values: np.ndarray, *, scratch: bool = False) -> np.ndarray:
        """Write a small array at once and return it as it stands on disk; a resumed stage gets what it had written before."""
        writer = self.array(name, values.dtype.newbyteorder("<").str, values.shape, scratch=scratch)
        if writer.rows == 0:
            writer.append(np.ascontiguousarray(values, dtype=writer.dtype))
        return writer.view()

    def checkpoint(self, *, now: bool = False, **state: Any) -> None:
        """Note what is done, so that an interrupted run goes on from here.

        Data is synced before the journal names it. Calls within two seconds of the last one are passed over.

        Parameters
        ----------
        now : bool
            Do it however short ago the last one was.
        **state
            Small JSON values that the resumed stage finds in `state`.
        """
        self.state = state or self.state
        if not now and time.monotonic() - self._last_checkpoint < _SECONDS_BETWEEN_CHECKPOINTS:
            return
        try:
            done = {}
            for name, writer in self._arrays.items():
                if writer.dirty:
                    writer.sync()
                    done[name] = (writer.rows, writer.new_digests(), writer.open_digest())
        except StorageFailure:
            # After a failed sync the kernel may call the lost pages clean: nothing of these files can be trusted again.
            self.discard()
            raise
        self._line({"arrays": done, "state": self.state})
        self._last_checkpoint = time.monotonic()

    def drop(self, name: str) -> None:
        """Give an array back to the disk before the stage ends (nothing happens where there is none of that name)."""
        if name not in self._arrays:
            return
        writer = self._arrays.pop(name)
        self._dropped_bytes += writer.written_bytes
        del self._declared[name]
        self._line({"drop": [name]})
        writer.close()
        writer.path.unlink(missing_ok=True)

    def publish(self, record: dict[str, Any]) -> None:
        """Make the arrays of this stage visible, all of them in one step, in place of those it had made before."""
        manifest = self.store.manifest.edited()
        entries = self._finished()
        before = list(manifest.stages.get(self.stage, {}).get("arrays", []))
        for stage in self.replaces:
            before += manifest.stages.pop(stage)["arrays"]
        manifest.arrays = {name: entry for name, entry in manifest.arrays.items() if name not in before} | entries
        manifest.stages[self.stage] = {**self.identity, "id": self.id, "arrays": list(entries), "record": record}
        self._commit(manifest, record, keep=set(entries))

    def extend(
        self,
        record: dict[str, Any],
        *,
        owners: Mapping[str, str],
        records: Mapping[str, dict[str, Any]],
        retired: Sequence[str],
    ) -> None:
        """Make longer arrays visible in place of those of the same names, all of them in one step.

        They stay what the stages made that had made the shorter ones, and these stages count as made from the arrays that there
        are now: only what else reads them is outdated. This stage keeps the parameters that it was published with.

        Parameters
        ----------
        record : dict
            What this stage says of itself.
        owners : mapping
            The stage of each array that is not of this one.
        records : mapping
            What these stages say of themselves now.
        retired : sequence of str
            Stages that go with all their arrays: what they made is part of the longer ones.
        """
        manifest = self.store.manifest.edited()
        entries = self._finished()
        for stage in retired:
            manifest.stages.pop(stage)
        manifest.arrays = {name: entry for name, entry in manifest.arrays.items() if entry.stage in manifest.stages}
        for name, entry in entries.items():
            owner = owners.get(name, self.stage)
            manifest.arrays[name] = replace(entry, stage=owner)
            made = manifest.stages[owner]
            made["arrays"] = list(dict.fromkeys([*made["arrays"], name]))
        for stage, said in {**records, self.stage: record}.items():
            changed = manifest.stages[stage]
            changed["record"] = said
            changed["inputs"] = {name: manifest.arrays[name].identity for name in changed["inputs"]}
        manifest.stages[self.stage]["id"] = self.id
        self._commit(manifest, record, keep=set(entries))

    def _finished(self) -> dict[str, ArrayEntry]:
        """Finish the arrays that are not scratch."""
        entries = {}
        for name, what in self._declared.items():
            if not what["scratch"]:
                shape, checksums = self._arrays[name].finish()
                entries[name] = ArrayEntry(what["file"], what["dtype"], shape, checksums, self.stage)
        return entries

    def _commit(self, manifest: Manifest, record: dict[str, Any], *, keep: set[str]) -> None:
        self.store.commit(manifest)
        self.record = record
        self.published = True
        self._remove_leftovers(keep=keep)

    def discard(self) -> None:
        """Give up: remove the journal and every file of this job."""
        self._remove_leftovers(keep=set())

    def close(self) -> None:
        """Close all files; what the journal says can be gone on with."""
        for writer in self._arrays.values():
            writer.close()
        if self._journal is not None:
            self._journal.close()

    def _remove_leftovers(self, *, keep: set[str]) -> None:
        assert self._journal is not None
        self.close()
        self._journal.path.unlink(missing_ok=True)
        self.state_path.unlink(missing_ok=True)
        for name, writer in self._arrays.items():
            if name not in keep:
                writer.path.unlink(missing_ok=True)

    def _line(self, line: dict[str, Any]) -> None:
        assert self._journal is not None
        self._journal.append(line)

    def _writer(self, what: dict[str, Any]) -> ArrayWriter:
        file, shape = self.store.path / what["file"], tuple(what["shape"])
        return ArrayWriter(file, np.dtype(what["dtype"]), shape, durable=self.store.durable)
