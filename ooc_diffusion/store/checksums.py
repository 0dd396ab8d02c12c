"""Checksums of arrays: xxh3 (64 bits) per chunk of 16 MiB of the data, whatever the blocks in which it was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import xxhash

from .npy import HEADER_BYTES

CHUNK_BYTES = 16 * 2**20


class ChunkHasher:
    """Hash a stream of bytes chunk by chunk.

    Attributes
    ----------
    digests : list of str
        Checksums of the chunks that are complete.
    filled : int
        Bytes in the chunk that is not.
    """

    def __init__(self) -> None:
        self.digests: list[str] = []
        self.filled = 0
        self._hasher = xxhash.xxh3_64()

    def update(self, data: memoryview) -> None:
        """Take in the next bytes."""
        while data:
            piece = data[: CHUNK_BYTES - self.filled]
            self._hasher.update(piece)
            self.filled += len(piece)
            data = data[len(piece) :]
            if self.filled == CHUNK_BYTES:
                self.digests.append(self._hasher.hexdigest())
                self._hasher.reset()
                self.filled = 0

    def open_digest(self) -> str:
        """Return the checksum of the chunk that is not complete, as far as it goes."""
        return self._hasher.hexdigest()

    def finish(self) -> list[str]:
        """Return the checksums of all chunks, the last one possibly short."""
        return [*self.digests, self._hasher.hexdigest()] if self.filled else list(self.digests)


def file_digests(path: Path, *, first_chunk: int = 0, data_bytes: int | None = None) -> Iterator[str]:
    """Yield the checksum of each chunk of the data of an ``.npy`` file, from ``first_chunk`` on.

    Read with ``read``, not through a map: a bad sector is then an error and not a signal.
    """
    position = first_chunk * CHUNK_BYTES
    with path.open("rb", buffering=0) as file:
        file.seek(HEADER_BYTES + position)
        while data_bytes is None or position < data_bytes:
            wanted = CHUNK_BYTES if data_bytes is None else min(CHUNK_BYTES, data_bytes - position)
            piece = file.read(wanted)
            if not piece:
                return
            position += len(piece)
            hasher = xxhash.xxh3_64(piece)
            while len(piece) and len(piece) < wanted:
                wanted -= len(piece)
                piece = file.read(wanted)
                position += len(piece)
                hasher.update(piece)
            yield hasher.hexdigest()
