"""Writing one array from its first row to its last."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from ..errors import CorruptStore
from .checksums import CHUNK_BYTES, ChunkHasher, file_digests
from .files import os_errors, sync_folder, write_all
from .npy import HEADER_BYTES, header


class ArrayWriter:
    """An array that grows row by row in its own new file, made by `Job.array`.

    Parameters
    ----------
    path : Path
        The file, under the name that it will keep.
    dtype : numpy.dtype
        Type of the entries, little-endian.
    shape : tuple
        Shape; the first entry is None where the number of rows is not known before.
    durable : bool
        Whether it must outlive a crash. If not, only arrays of 16 MiB and more are synced, which the system writes to disk before
        they are read again: an error of the disk is told by syncing alone. Default True.

    Attributes
    ----------
    rows : int
        Rows written so far; more than 0 at the start of a resumed stage.
    written_bytes : int
        Bytes of rows written by this run.
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int | None, ...], *, durable: bool = True) -> None:
        self.path = path
        self.durable = durable
        self.dtype = dtype
        self.row_shape: tuple[int, ...] = tuple(int(n) for n in shape[1:] if n is not None)
        self.expected_rows = shape[0]
        self.rows = self.written_bytes = 0
        self.journaled_digests = 0
        self.dirty = True
        self._hasher = ChunkHasher()
        self._fd = -1

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.row_shape) * self.dtype.itemsize

    def create(self) -> None:
        """Make the file and reserve its space where the size is known."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with os_errors(self.path, "reserving space for"):
            self._fd = os.open(self.path, flags, 0o666)
            try:
                if self.expected_rows:
                    os.posix_fallocate(self._fd, 0, HEADER_BYTES + self.expected_rows * self.row_bytes)
                if self.durable:
                    sync_folder(self.path.parent)
            except OSError:
                self.close()
                self.path.unlink()
                raise

    def resume(self, rows: int, digests: list[str], open_digest: str | None = None) -> None:
        """Go on behind ``rows`` rows whose full chunks had these checksums.

        The last full chunk and the open one are read again and compared (the latter where the journal has its checksum).
        """
        remedy = "start the stage anew with --overwrite"
        data_bytes = rows * self.row_bytes
        if len(digests) != data_bytes // CHUNK_BYTES:
            raise CorruptStore(f"the journal of {self.path} does not match its rows; {remedy}")
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            raise CorruptStore(f"{self.path}, which an interrupted stage had begun, is missing; {remedy}") from None
        if size < (HEADER_BYTES + data_bytes if rows else 0):
            raise CorruptStore(f"{self.path}, which an interrupted stage had begun, was truncated; {remedy}")
        if digests:
            last = next(file_digests(self.path, first_chunk=len(digests) - 1))
            if last != digests[-1]:
                raise CorruptStore(f"{self.path}, which an interrupted stage had begun, has changed in its last chunk; {remedy}")
        with os_errors(self.path, "opening"):
            self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            tail = data_bytes % CHUNK_BYTES
            piece = os.pread(self._fd, tail, HEADER_BYTES + data_bytes - tail)
        if len(piece) != tail:
            raise CorruptStore(f"{self.path} could not be read to its {rows} rows; {remedy}")
        self._hasher.digests = list(digests)
        self._hasher.update(memoryview(piece))
        if rows and open_digest is not None and self._hasher.open_digest() != open_digest:
            raise CorruptStore(f"{self.path}, which an interrupted stage had begun, has changed in its last rows; {remedy}")
        self.rows, self.journaled_digests, self.dirty = rows, len(digests), False

    def append(self, block: np.ndarray) -> None:
        """Write the next rows.

        Parameters
        ----------
        block : numpy.ndarray of shape (rows, ...)
            Of exactly the type and row shape of the array.
        """
        if block.dtype != self.dtype or block.shape[1:] != self.row_shape:
            raise TypeError(f"{self.path.name} takes {self.dtype} {self.row_shape}, not {block.dtype} {block.shape[1:]}")
        if self.expected_rows is not None and self.rows + len(block) > self.expected_rows:
            raise ValueError(f"{self.path.name} would get more than its {self.expected_rows} rows")
        if block.size:
            data = np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
            with os_errors(self.path, "writing"):
                write_all(self._fd, data, HEADER_BYTES + self.rows * self.row_bytes)
            self._hasher.update(data)
            self.written_bytes += len(data)
            self.dirty = True
        self.rows += len(block)

    def new_digests(self) -> list[str]:
        """Return the checksums of the chunks completed since the last call."""
        fresh = self._hasher.digests[self.journaled_digests :]
        self.journaled_digests = len(self._hasher.digests)
        return fresh

    def open_digest(self) -> str:
        """Return the checksum of what stands behind the last full chunk."""
        return self._hasher.open_digest()

    def sync(self) -> None:
        """Make the rows written so far durable."""
        if self.dirty:
            with os_errors(self.path, "syncing"):
                self._sync()
            self.dirty = False

    def view(self) -> np.ndarray:
        """Return the rows written so far, mapped read-only."""
        shape = (self.rows, *self.row_shape)
        if 0 in shape:
            return np.empty(shape, self.dtype)
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=HEADER_BYTES, shape=shape).view(np.ndarray)

    def finish(self) -> tuple[tuple[int, ...], list[str]]:
        """Write the header, make everything durable, and return the shape and the checksums of all chunks."""
        if self.expected_rows is not None and self.rows != self.expected_rows:
            raise ValueError(f"{self.path.name} has {self.rows} of its {self.expected_rows} rows")
        shape = (self.rows, *self.row_shape)
        with os_errors(self.path, "finishing"):
            write_all(self._fd, memoryview(header(self.dtype, shape)), 0)
            os.ftruncate(self._fd, HEADER_BYTES + self.rows * self.row_bytes)
            self._sync()
        return shape, self._hasher.finish()

    def _sync(self) -> None:
        if self.durable or self.rows * self.row_bytes >= CHUNK_BYTES:
            os.fsync(self._fd)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
