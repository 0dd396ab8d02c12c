"""Comparing the file of an array with what the manifest says of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from ..errors import CorruptStore
from .checksums import CHUNK_BYTES, ChunkHasher, file_digests
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


def checked_blocks(path: Path, entry: ArrayEntry, array: np.ndarray, *, rows: int, start: int = 0) -> Iterator[np.ndarray]:
    """Yield an array block by block from its first row to its last, comparing what is read with the manifest.

    Parameters
    ----------
    path : Path
        The file.
    entry : ArrayEntry
        What the manifest says of it.
    array : numpy.ndarray of shape (n, ...)
        The array, mapped.
    rows : int
        Rows of a block.
    start : int
        First row that is wanted; those before are read and compared all the same. Default 0.

    Yields
    ------
    numpy.ndarray of shape (b, ...)
        The next rows, mapped.

    Raises
    ------
    CorruptStore
        At the first chunk with another checksum, when it has been read; some of its rows may have been yielded by then.
    """
    hasher, compared = ChunkHasher(), 0
    for first in range(0, len(array), rows):
        block = array[first : first + rows]
        if block.size:
            hasher.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        last = first + len(block) == len(array)
        found = hasher.finish() if last else hasher.digests
        for chunk in range(compared, len(found)):
            if found[chunk] != entry.checksums[chunk]:
                raise CorruptStore(
                    f"{path}: {_where(chunk)} has changed; run `ooc-diffusion verify --data`, "
                    f"then stage {entry.stage} again with --overwrite"
                )
        compared = len(found)
        if first + len(block) > start:
            yield block[max(0, start - first) :]


def _where(chunk: int) -> str:
    return f"chunk {chunk} (from byte {HEADER_BYTES + chunk * CHUNK_BYTES})"
