"""The ``.npy`` header: 128 bytes, version 1.0, so that ``numpy.load(path, mmap_mode="r")`` opens every array of a store."""

from __future__ import annotations

import errno
import math
import mmap
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptStore
from .files import os_errors

HEADER_BYTES = 128
_MAGIC = b"\x93NUMPY\x01\x00"


def header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return the 128 bytes that stand before a C-ordered array of ``dtype`` and ``shape``."""
    text = repr({"descr": dtype.str, "fortran_order": False, "shape": shape}).encode("latin1")
    room = HEADER_BYTES - len(_MAGIC) - 2
    if len(text) >= room:
        raise ValueError(f"shape {shape} is too long for the header")
    return _MAGIC + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n"


def open_array(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Map an array read-only after its size and header were found to be exactly those expected.

    Parameters
    ----------
    path : Path
        An ``.npy`` file.
    dtype : numpy.dtype
        What the manifest says.
    shape : tuple of int
        What the manifest says.

    Returns
    -------
    numpy.ndarray
        Read-only view of the mapped file.

    Raises
    ------
    CorruptStore
        If the file is missing, no regular file, of another size, or its header differs.
    """
    try:
        check_file(path, dtype, shape)
    except CorruptStore as error:
        raise CorruptStore(f"{error}; run `ooc-diffusion verify`, then the stage again with --overwrite") from None
    if 0 in shape:
        empty = np.empty(shape, dtype)
        empty.flags.writeable = False
        return empty
    return np.memmap(path, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=shape).view(np.ndarray)


def read_ahead(array: np.ndarray, begin: int, end: int) -> None:
    """Ask the system to read rows of an array, mapped as `open_array` does, while others are worked on.

    An array that is in memory is left alone.
    """
    mapped = _mapped(array)
    if mapped is not None:
        width = math.prod(array.shape[1:])
        _advise(mapped, mmap.MADV_WILLNEED, begin * width, end * width)


class DirectFile:
    """The file of an array (n,), mapped as `open_array` does, to be read past the system's cache.

    Parameters
    ----------
    array : numpy.ndarray of shape (n,)
        The array.

    Raises
    ------
    OSError
        If it is in memory, or its file system does not read past the cache.
    """

    # A multiple of the blocks of disks, in which reading past the cache counts.
    ALIGNMENT = 4096

    def __init__(self, array: np.ndarray) -> None:
        mapped = _mapped(array)
        if mapped is None or mapped.filename is None:
            raise OSError("the array is in memory")
        self._path, self._dtype, self._mapped = Path(mapped.filename), array.dtype, mapped
        self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC)

    def read(self, begin: int, end: int, memory: np.ndarray) -> np.ndarray:
        """Return entries from ``begin`` to ``end``, read into ``memory``.

        Parameters
        ----------
        begin, end : int
            Which entries.
        memory : numpy.ndarray, uint8
            From a multiple of `ALIGNMENT` on, and twice that larger than the entries.

        Returns
        -------
        numpy.ndarray of shape (end - begin,)
            A part of ``memory``.
        """
        first, last = (HEADER_BYTES + entry * self._dtype.itemsize for entry in (begin, end))
        start = first // self.ALIGNMENT * self.ALIGNMENT
        wanted = -(-(last - start) // self.ALIGNMENT) * self.ALIGNMENT
        done = 0
        with os_errors(self._path, "reading"):
            while start + done < last:
                got = os.preadv(self._fd, [memory[done:wanted].data], start + done)
                if got == 0:
                    raise OSError(errno.EIO, "the file has become shorter")
                done += got
        return memory[first - start : last - start].view(self._dtype)

    def forget(self, begin: int, end: int) -> None:
        """Have the system's cache give back what it holds of entries from ``begin`` to ``end``, which were read as mapped."""
        _advise(self._mapped, mmap.MADV_DONTNEED, begin, end)  # the cache keeps pages that are in use
        first, last = (HEADER_BYTES + entry * self._dtype.itemsize for entry in (begin, end))
        os.posix_fadvise(self._fd, first, last - first, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _advise(mapped: np.memmap, advice: int, begin: int, end: int) -> None:
    if isinstance(mapped.base, mmap.mmap) and begin < end:
        first = (HEADER_BYTES + begin * mapped.itemsize) // mmap.PAGESIZE * mmap.PAGESIZE
        mapped.base.madvise(advice, first, HEADER_BYTES + end * mapped.itemsize - first)


def _mapped(array: np.ndarray) -> np.memmap | None:
    owner: Any = array
    while isinstance(owner, np.ndarray) and not isinstance(owner, np.memmap):
        owner = owner.base
    return owner if isinstance(owner, np.memmap) else None


def check_file(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Raise `CorruptStore` unless ``path`` is a regular file of the right size with the right header."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise CorruptStore(f"{path} is missing") from None
    except OSError as error:
        raise CorruptStore(f"{path} cannot be opened: {error.strerror}") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise CorruptStore(f"{path} is not a regular file")
        expected = HEADER_BYTES + math.prod(shape) * dtype.itemsize
        if info.st_size != expected:
            raise CorruptStore(f"{path} has {info.st_size} bytes instead of {expected}")
        if os.pread(fd, HEADER_BYTES, 0) != header(dtype, shape):
            raise CorruptStore(f"{path} has a damaged header")
    finally:
        os.close(fd)
