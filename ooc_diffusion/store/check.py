"""Comparing the file of an array with what the manifest says of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from ..errors import CorruptStore
from .checksums import CHUNK_BYTES, file_digests
from .manifest import ArrayEntry
from .npy import HEADER_BYTES, check_file


def compare(path: Path, entry: ArrayEntry, *, data: bool) -> Iterator[tuple[int, str]]:
    """Yield, step by step, how many bytes of data were compared and what is wrong with them (an empty text where nothing is).

    Parameters
    ----------
    path : Path
        The file.
    entry : ArrayEntry
        What the manifest says of it.
    data : bool
        Also compare the checksum of each chunk, not only existence, size and header.
    """
    try:
        check_file(path, np.dtype(entry.dtype), entry.shape)
    except CorruptStore as error:
        yield 0, str(error)
        return
    if not data:
        return
    chunk, left = 0, entry.bytes - HEADER_BYTES
    try:
        for chunk, (stated, found) in enumerate(zip_longest(entry.checksums, file_digests(path))):
            yield min(CHUNK_BYTES, left), "" if stated == found else f"{_where(chunk)} has changed"
            left -= CHUNK_BYTES
    except OSError as error:
        yield 0, f"{_where(chunk)} or the next cannot be read: {error.strerror}"


def _where(chunk: int) -> str:
    return f"chunk {chunk} (from byte {HEADER_BYTES + chunk * CHUNK_BYTES})"
