"""Arrays in files that somebody else wrote, mapped read-only."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import BadInput

# With what numpy.save, zip archives and pickles begin.
_NUMPY, _ZIP, _PICKLE = b"\x93NUMPY", (b"PK\x03\x04", b"PK\x05\x06"), b"\x80"
# Bytes that tell whether a file is text.
_HEAD = 256


def load_npy(file: str | Path) -> np.ndarray:
    """Map an ``.npy`` file read-only; `BadInput`, saying why, where it is none, is cut off, or holds Python objects."""
    if (reason := _no_npy(file)) is None:
        try:
            with np.errstate(over="raise"):  # a header may state more bytes than can be counted
                return np.lib.format.open_memmap(file, mode="r")
        except (OSError, ValueError, EOFError, ArithmeticError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise BadInput(f"{file} cannot be read as an .npy array ({reason}); save plain numbers with numpy.save")


def _no_npy(file: str | Path) -> str | None:
    """Return why a file cannot be mapped as an ``.npy`` array; None where nothing speaks against it."""
    size = file_bytes(file)
    with _opened(file) as stream:
        if stream.read(len(_NUMPY)) != _NUMPY:
            return what_it_is(file)
        stream.seek(0)
        try:
            old = np.lib.format.read_magic(stream) == (1, 0)
            read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
        except (ValueError, TypeError, SyntaxError):
            return "its header is cut off or damaged"
        if dtype.hasobject:
            return "it holds Python objects, which are never loaded"
        whole = stream.tell() + math.prod(shape) * dtype.itemsize
    if size < whole:
        return f"it is cut off: it has {size:,} bytes of the {whole:,} that its header tells of"
    return None


def what_it_is(file: str | Path) -> str:
    """Say what a file is that is not what it should be, as far as its first bytes tell."""
    with _opened(file) as stream:
        head = stream.read(_HEAD)
    if not head:
        return "it is empty"
    if head.startswith(_NUMPY):
        return "it is an .npy array"
    if head.startswith(_ZIP):
        return "it is a zip archive of arrays or files"
    if head.startswith(_PICKLE):
        return "it holds Python objects, which are never loaded"
    text = head.decode("utf-8", errors="ignore")  # the last character may be cut
    if len(text.encode()) > len(head) - 4 and all(character.isprintable() or character.isspace() for character in text):
        return "it is text"
    return "it begins as no such file does"


def _opened(file: str | Path) -> BinaryIO:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}; check the path") from None


def load_raw(file: str | Path, dtype: str, width: int, *, option: str) -> np.ndarray:
    """Map a file of rows without a header read-only.

    Parameters
    ----------
    file : str or Path
        The file.
    dtype : str
        Type of the numbers, such as ``"<f4"``.
    width : int
        Numbers in a row.
    option : str
        With which option a person says the width.

    Returns
    -------
    numpy.ndarray of shape (n, width)
        The rows, mapped.

    Raises
    ------
    BadInput
        Where the file cannot be read, is empty, or is no whole number of rows.
    """
    kind = np.dtype(dtype)
    row = kind.itemsize * width
    size = file_bytes(file)
    if size == 0:
        raise BadInput(f"{file} is empty; give a file of rows of {width} {kind.name}")
    if size % row:
        whole, more = divmod(size, row)
        raise BadInput(
            f"{file} has {size} bytes, which are {whole} rows of {width} {kind.name} ({width} x {kind.itemsize} = {row} bytes) "
            f"and {more} more; give a whole file, or another {option}"
        )
    return np.memmap(file, kind, "r", shape=(size // row, width))


def file_bytes(file: str | Path) -> int:
    """Return the size of a regular file, or raise `BadInput`."""
    try:
        size = Path(file).stat().st_size
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist; check the path") from None
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}; check the path") from None
    if not Path(file).is_file():
        raise BadInput(f"{file} is no file; check the path")
    return size
