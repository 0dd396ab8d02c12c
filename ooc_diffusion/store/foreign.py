"""Arrays in files that somebody else wrote, mapped read-only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import BadInput


def load_npy(file: str | Path) -> np.ndarray:
    """Map an ``.npy`` file read-only; `BadInput` where it is none, is truncated, or holds Python objects."""
    try:
        with np.errstate(over="raise"):  # a header may state more bytes than can be counted
            values = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist; check the path") from None
    except (OSError, ValueError, EOFError, ArithmeticError) as error:
        pickled = "allow_pickle" in str(error) or "Python objects" in str(error)
        reason = "it holds Python objects, which are never loaded" if pickled else str(error).splitlines()[0]
        raise BadInput(f"{file} cannot be read as an .npy array ({reason}); save plain numbers with numpy.save") from None
    if not isinstance(values, np.ndarray):
        raise BadInput(f"{file} is an archive of arrays; save the one that is meant with numpy.save")
    return values


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
    if size == 0 or size % row:
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
