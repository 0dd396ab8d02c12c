"""The journal of a stage: lines that each carry their checksum; what stands behind the first bad line never happened."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import xxhash

from .files import os_errors, read_regular, replace_file, write_all


class Journal:
    """An append-only file of JSON lines.

    Parameters
    ----------
    path : Path
        The file; its first line says what the job is.
    durable : bool
        Whether lines are synced. Default True.

    Attributes
    ----------
    lines : list of dict
        What is known to have happened.
    damaged : bool
        A whole line is not as it was written (a torn one at the end is what a crash leaves, and no damage).
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self._durable = durable
        self.lines: list[dict[str, Any]] = []
        self.damaged = False
        self._fd = -1
        self._end = 0

    @classmethod
    def create(cls, path: Path, first: dict[str, Any], *, durable: bool = True) -> Journal:
        """Start a journal; the file appears with its first line or not at all."""
        replace_file(path, _encode(first), durable=durable)
        journal = cls.read(path)
        assert journal is not None
        journal._durable = durable
        return journal

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """Open a journal for more lines, or return None where there is none that begins with a good line."""
        with os_errors(path, "reading"):
            try:
                data = read_regular(path)
            except FileNotFoundError:
                return None
        journal = cls(path)
        for line in data.splitlines(keepends=True):
            value = _decode(line)
            if value is None:
                journal.damaged = b"\n" in data[journal._end :]
                break
            journal.lines.append(value)
            journal._end += len(line)
        return journal if journal.lines else None

    def append(self, line: dict[str, Any]) -> None:
        """Add a line, and make it durable where that is wanted."""
        data = _encode(line)
        with os_errors(self.path, "writing"):
            if self._fd < 0:
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                os.ftruncate(self._fd, self._end)
            write_all(self._fd, memoryview(data), self._end)
            if self._durable:
                os.fsync(self._fd)
        self._end += len(data)
        self.lines.append(line)

    def close(self) -> None:
        """Close the file; the journal stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _encode(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    return xxhash.xxh3_64_hexdigest(text).encode() + b" " + text + b"\n"


def _decode(line: bytes) -> dict[str, Any] | None:
    stated, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or stated != xxhash.xxh3_64_hexdigest(text).encode():
        return None
    return json.loads(text)
