"""The idx format of the MNIST family: a header of big-endian integers, then the bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ..errors import BadInput

_UNSIGNED_BYTES = 0x08


def idx_shape(path: Path, *, ndim: int) -> tuple[int, ...]:
    """Return the shape that the header of an idx file promises.

    Parameters
    ----------
    path : Path
        A file of unsigned bytes, compressed where its name ends in ``.gz``.
    ndim : int
        Number of axes that the file must have: 1 for labels, 3 for images.

    Raises
    ------
    BadInput
        Where the file is not such an idx file.
    """
    try:
        with _open(path) as file:
            return _read_header(file, path, ndim)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def read_idx(path: Path, out: np.ndarray) -> None:
    """Fill an array with the contents of an idx file.

    Parameters
    ----------
    path : Path
        A file of unsigned bytes, compressed where its name ends in ``.gz``.
    out : uint8 array, C-contiguous
        Of the shape that `idx_shape` gives.

    Raises
    ------
    BadInput
        Where the file is corrupt, or longer or shorter than its header says.
    """
    try:
        with _open(path) as file:
            shape = _read_header(file, path, out.ndim)
            if shape != out.shape:
                raise BadInput(f"{path} holds {shape} values where {out.shape} are expected; fetch the file again")
            data, done = out.data.cast("B"), 0
            while count := file.readinto(data[done:]):  # type: ignore[attr-defined]
                done += count
            if done != math.prod(shape) or file.read(1):
                raise BadInput(f"{path} has not the {math.prod(shape)} values of its header; fetch the file again")
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))


def _read_header(file: BinaryIO, path: Path, ndim: int) -> tuple[int, ...]:
    header = file.read(4 + 4 * ndim)
    if len(header) != 4 + 4 * ndim or header[:4] != bytes([0, 0, _UNSIGNED_BYTES, ndim]):
        raise BadInput(f"{path} is not an idx file of unsigned bytes with {ndim} axes; fetch the file again")
    return tuple(int(extent) for extent in np.frombuffer(header, ">u4", offset=4))


def _unreadable(path: Path, error: Exception) -> BadInput:
    return BadInput(f"{path} cannot be read: {error}; fetch the file again")
