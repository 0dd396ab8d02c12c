"""Files of descriptors that people have, read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import BadInput
from ..store import file_bytes, load_npy, load_raw

_FORMATS = {
    "npy": (".npy",),
    "hdf5": (".hdf5", ".h5"),
    "raw": (".raw", ".bin"),
    "fvecs": (".fvecs",),
    "bvecs": (".bvecs",),
    "parquet": (".parquet", ".pq"),
}
# Longer vectors in a file of unknown origin are no descriptors.
_MOST_VALUES = 2**24


class DescriptorFile(Protocol):
    """Rows of numbers in a file.

    Attributes
    ----------
    shape : (int, int)
        Rows that are read, the first ones, and values in each.
    whole : int
        Rows that the file has.
    parameters : dict
        What is read of the file besides the file itself, JSON-able; empty for all of an ``.npy``.
    """

    shape: tuple[int, int]
    whole: int
    parameters: dict[str, Any]

    def held_bytes(self, rows: int) -> int:
        """Return the bytes that reading takes besides what it yields, with blocks of so many rows."""

    def blocks(self, start: int, rows: int) -> Iterator[np.ndarray]:
        """Yield the descriptors from row ``start`` on, (b, d) of at most so many ``rows``, floats or integers."""

    def classes(self, rows: int) -> Iterator[np.ndarray] | None:
        """Yield the class of each row, (b,) integers; None where the file knows none."""

    def class_names(self) -> list[str] | None:
        """Return the names that classes have in the file, sorted: class c is the c-th; None where they are numbers."""

    def names(self, rows: int) -> Iterator[list[str]] | None:
        """Yield the name of each row; None where the file knows none."""


def open_descriptors(
    file: str | Path,
    *,
    format: str | None = None,
    dim: int | None = None,
    field: str | None = None,
    truth_field: str | None = None,
    names_field: str | None = None,
    size: int | None = None,
) -> DescriptorFile:
    """Open a file of descriptors.

    Parameters
    ----------
    file : str or Path
        The file.
    format : {"npy", "hdf5", "raw", "fvecs", "bvecs", "parquet"}, optional
        Default: as its ending says, ``npy`` where that says nothing.
    dim : int, optional
        Values per row of a ``raw`` file (float32 without a header), which must be given.
    field : str, optional
        Data set of an HDF5 file, default ``all_feats``, or column of a parquet file, default the only one of lists of numbers.
    truth_field, names_field : str, optional
        Where their classes (numbers or texts) and names are. An HDF5 file has no names; its classes are in ``all_labels`` by
        default, where it has both that and ``all_feats``.
    size : int, optional
        Read so many rows, the first ones, as though the file had no more: nothing behind them is looked at, and classes are
        those of these rows. Default: all.

    Returns
    -------
    DescriptorFile
        What is read of it; nothing but its head has been read.

    Raises
    ------
    BadInput
        Where it is no such file, holds no descriptors or fewer than ``size``, or an option does not belong to its format.
    """
    source = _open(file, format, dim, {"field": field, "truth_field": truth_field, "names_field": names_field})
    if size is not None:
        if not 1 <= size <= source.whole:
            raise BadInput(f"`size` is {size}, but {file} has {source.whole} rows; give from 1 to {source.whole}")
        source.shape = (size, source.shape[1])
        source.parameters = {**source.parameters, "size": size}
    return source


def _open(file: str | Path, format: str | None, dim: int | None, fields: dict[str, str | None]) -> DescriptorFile:
    """Open all of a file."""
    if format is None:
        ending = Path(file).suffix.lower()
        format = next((name for name, endings in _FORMATS.items() if ending in endings), "npy")
    if format not in _FORMATS:
        raise BadInput(f"format {format!r} is not one of {', '.join(_FORMATS)}")
    if dim is not None and format != "raw":
        raise BadInput(f"`dim` is for raw files, whose width nothing else says; leave it out with {format}")
    given = [name for name, value in fields.items() if value is not None]
    wanted = {"hdf5": ("field", "truth_field"), "parquet": tuple(fields)}.get(format, ())
    for name in given:
        if name not in wanted:
            raise BadInput(f"`{name}` {fields[name]!r}: a file of format {format} has none; leave it out")
    file_bytes(file)
    if format == "hdf5":
        from .hdf5_file import Hdf5File

        return Hdf5File(file, field=fields["field"], truth_field=fields["truth_field"])
    if format == "parquet":
        from .parquet_file import ParquetFile

        return ParquetFile(file, **fields)
    if format == "raw":
        if dim is None:
            raise BadInput(f"{file} is a raw file of float32, which does not say how many belong to a row; give `dim`")
        return MappedFile(load_raw(file, "<f4", dim, option="`dim`"), {"format": "raw", "dim": dim})
    if format == "npy":
        values = load_npy(file)
        if values.ndim != 2 or values.dtype.kind not in "fiu" or 0 in values.shape:
            raise BadInput(
                f"{file} holds {values.dtype} {values.shape}; descriptors are numbers of shape (images, "
                f"dimensions){_mending(values)}"
            )
        return MappedFile(values, {})
    return VectorsFile(file, format)


def _mending(values: np.ndarray) -> str:
    """Say what is to be done about an array that holds no descriptors."""
    if values.dtype.kind not in "fiu":
        return ": save them as floats or integers"
    if values.ndim == 1 and len(values):
        return f": save values[None] where this is one image, values[:, None] where these are {len(values)}"
    return "" if values.size else ", at least one each"


class MappedFile:
    """Descriptors that are an array on disk as they are."""

    def __init__(self, values: np.ndarray, parameters: dict[str, Any]) -> None:
        self.shape: tuple[int, int] = values.shape  # type: ignore[assignment]
        self.whole = len(values)
        self.parameters = parameters
        self._values = values

    def held_bytes(self, rows: int) -> int:
        """Return 0: pages of a mapped file are the system's."""
        return 0

    def blocks(self, start: int, rows: int) -> Iterator[np.ndarray]:
        """Yield the rows from ``start`` on, mapped."""
        for first in range(start, self.shape[0], rows):
            yield self._values[first : min(first + rows, self.shape[0])]

    def classes(self, rows: int) -> None:
        """Return None."""

    def class_names(self) -> None:
        """Return None."""

    def names(self, rows: int) -> None:
        """Return None."""


class VectorsFile(MappedFile):
    """The formats ``fvecs`` and ``bvecs``: before each vector stands its length, int32; values are float32 or uint8."""

    def __init__(self, file: str | Path, format: str) -> None:
        self._file = file
        if file_bytes(file) < 4:
            raise BadInput(f"{file} has {file_bytes(file)} bytes, not even the length of a vector; give a whole {format} file")
        with Path(file).open("rb") as stream:
            d = int(np.frombuffer(stream.read(4), "<i4")[0])
        if not 1 <= d <= _MOST_VALUES:
            raise BadInput(f"{file} does not begin with the length of a vector but with {d}; give a {format} file")
        values = np.dtype([("d", "<i4"), ("values", "<f4" if format == "fvecs" else "u1", (d,))])
        size = file_bytes(file)
        if size % values.itemsize:
            whole, more = divmod(size, values.itemsize)
            raise BadInput(
                f"{file} has {size} bytes, which are {whole} vectors of {d} values ({values.itemsize} bytes each) and {more} "
                f"bytes more; give a whole {format} file"
            )
        self._rows = np.memmap(file, values, "r")
        super().__init__(self._rows["values"], {"format": format})

    def blocks(self, start: int, rows: int) -> Iterator[np.ndarray]:
        """Yield the rows from ``start`` on, mapped; `BadInput` where a vector is of another length than the first."""
        for first in range(start, self.shape[0], rows):
            block = self._rows[first : min(first + rows, self.shape[0])]
            wrong = np.flatnonzero(block["d"] != self.shape[1])
            if len(wrong):
                raise BadInput(
                    f"{self._file} row {first + wrong[0]} says that it has {block['d'][wrong[0]]} values, the first has "
                    f"{self.shape[1]}; give vectors of one length"
                )
            yield block["values"]
