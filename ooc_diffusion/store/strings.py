"""Many strings as two arrays: their bytes one after the other, and where each begins."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from .job import Job
from .store import Store

_ROWS = 2**16


class Strings:
    """A sequence of names at rest; no Python object exists before it is asked for.

    Parameters
    ----------
    characters : numpy.ndarray of shape (total,), uint8
        All names, one after the other, as the file system encodes them.
    offsets : numpy.ndarray of shape (n + 1,), int64
        Where each begins, and the end of the last.
    parts : numpy.ndarray of shape (p + 1,), int64, optional
        Where each of the parts begins that are sorted by themselves, and the end of the last. Default: there is one.
    """

    def __init__(self, characters: np.ndarray, offsets: np.ndarray, parts: np.ndarray | None = None) -> None:
        self.characters = characters
        self.offsets = offsets
        self.parts: list[int] = [0, len(self)] if parts is None else parts.tolist()

    @classmethod
    def open(cls, store: Store, name: str) -> Strings:
        """Open the names that `append_strings` wrote under ``name``."""
        parts = [f"{name}_parts"] if f"{name}_parts" in store else []
        return cls(*store.arrays(f"{name}_bytes", f"{name}_offsets", *parts))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        return os.fsdecode(self._raw(i))

    def _raw(self, i: int) -> bytes:
        return self.characters[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def find(self, name: str) -> int:
        """Return the row of a name, or -1: by bisection where the names are sorted by `path_key`, else one by one."""
        row = self.bisect(name)
        return self._look_through(os.fsencode(name)) if row < 0 else row

    def bisect(self, name: str) -> int:
        """Return the row of a name, or -1 where it does not stand where it would if the names are sorted by `path_key`."""
        wanted = os.fsencode(name)
        key = path_key(wanted)
        for low, end in pairwise(self.parts):
            high = end
            while low < high:
                middle = (low + high) // 2
                if path_key(self._raw(middle)) < key:
                    low = middle + 1
                else:
                    high = middle
            if low < end and self._raw(low) == wanted:
                return low
        return -1

    def _look_through(self, wanted: bytes) -> int:
        for first in range(0, len(self), _ROWS):
            lengths = np.diff(self.offsets[first : first + _ROWS + 1])
            for row in np.flatnonzero(lengths == len(wanted)):
                if self._raw(first + int(row)) == wanted:
                    return first + int(row)
        return -1


def path_key(path: bytes) -> tuple[tuple[bool, bytes], ...]:
    """Return what paths are sorted by: the files of a folder before its subfolders, each by their bytes."""
    *folders, file = path.split(b"/")
    return (*((True, folder) for folder in folders), (False, file))


def append_strings(job: Job, name: str, values: Iterable[str] | tuple[np.ndarray, np.ndarray]) -> None:
    """Append names to the arrays ``name_bytes`` and ``name_offsets`` of a job.

    Parameters
    ----------
    job : Job
        The stage that publishes them.
    name : str
        Name of the pair.
    values : iterable of str, or pair of arrays
        The names; or their bytes, uint8 (total,), and lengths, int64 (n,).
    """
    characters = job.array(f"{name}_bytes", "|u1", (None,))
    offsets = job.array(f"{name}_offsets", "<i8", (None,))
    if offsets.rows == 0:
        offsets.append(np.zeros(1, np.int64))
    if not isinstance(values, tuple):
        encoded = [os.fsencode(value) for value in values]
        values = np.frombuffer(b"".join(encoded), np.uint8), np.array([len(value) for value in encoded], np.int64)
    offsets.append(characters.rows + np.cumsum(values[1], dtype=np.int64))
    characters.append(values[0])
