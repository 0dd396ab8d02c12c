"""Descriptors in an HDF5 file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..store import what_it_is
from .class_texts import ClassTexts

_FEATURES, _LABELS, _COUNT = "all_feats", "all_labels", "count"


class Hdf5File:
    """A data set of shape (capacity, d), or (capacity, d, 1, 1), whose first ``count`` rows are valid and count as the whole.

    Parameters
    ----------
    file : str or Path
        The file. ``count`` is a data set with one number; all rows are valid where there is none.
    field, truth_field : str, optional
        See `open_descriptors`.
    """

    def __init__(self, file: str | Path, *, field: str | None = None, truth_field: str | None = None) -> None:
        import h5py

        self._path = file
        try:
            # Not locked: nothing is written, and some file systems have no locks.
            self._file = h5py.File(file, "r", locking=False)
        except OSError as error:
            reason = _line(error) if h5py.is_hdf5(file) else what_it_is(file)
            reason = "it is cut off" if "truncated file" in reason else reason
            raise BadInput(f"{file} cannot be read as an HDF5 file ({reason}); give a whole one") from None
        try:
            self._look(field, truth_field)
        except (OSError, RuntimeError, KeyError) as error:  # what h5py raises where the structure of a file is broken
            raise BadInput(f"{file} cannot be read as an HDF5 file ({_line(error)}); give a whole one") from None

    def _look(self, field: str | None, truth_field: str | None) -> None:
        self._values = self._open(field or _FEATURES, "field")
        shape = self._values.shape
        if len(shape) < 2 or set(shape[2:]) - {1} or self._values.dtype.kind not in "fiu" or shape[1] == 0:
            raise BadInput(
                f"{self._path}: {self._values.name} holds {self._values.dtype} {shape}; descriptors are numbers of shape "
                "(images, dimensions), further dimensions being 1"
            )
        self.whole = self._count(shape[0])
        self.shape: tuple[int, int] = (self.whole, shape[1])
        if truth_field is None and field in (None, _FEATURES) and _LABELS in self._file:
            truth_field = _LABELS
        self._classes = None if truth_field is None else self._open_classes(truth_field)
        self._texts = None if self._classes is None else self._named_classes(self._classes)
        self.parameters: dict[str, Any] = {"format": "hdf5", "field": field or _FEATURES, "truth_field": truth_field}

    def _open(self, name: str, parameter: str) -> Any:
        import h5py

        found = self._file.get(name)
        if not isinstance(found, h5py.Dataset):
            names = sorted(key for key in self._file if isinstance(self._file.get(key), h5py.Dataset))
            raise BadInput(
                f"{self._path} has no data set {name!r}; it has {', '.join(names) or 'none'}: name one with `{parameter}`"
            )
        if found.file.filename != self._file.filename or found.external or found.is_virtual:
            raise BadInput(f"{self._path}: {name} is kept in another file; give one that holds it itself")
        return found

    def _count(self, capacity: int) -> int:
        if _COUNT not in self._file:
            count = capacity
        else:
            stored = self._open(_COUNT, "field")
            if stored.size != 1 or stored.dtype.kind not in "iu":
                raise BadInput(
                    f"{self._path}: {_COUNT} holds {stored.dtype} {stored.shape}; it is the number of rows, one integer"
                )
            count = int(np.asarray(stored).item())
        if not 1 <= count <= capacity:
            raise BadInput(f"{self._path} has room for {capacity} rows, of which {_COUNT} says that {count} are valid; mend it")
        return count

    def _open_classes(self, name: str) -> Any:
        import h5py

        classes = self._open(name, "truth_field")
        known = classes.dtype.kind in "iu" or h5py.check_string_dtype(classes.dtype) is not None
        if classes.ndim != 1 or not known or len(classes) < self.shape[0]:
            raise BadInput(
                f"{self._path}: {name} holds {classes.dtype} {classes.shape}; classes are integers or texts, one for each of "
                f"{self.shape[0]} rows"
            )
        return classes

    def _named_classes(self, classes: Any) -> ClassTexts | None:
        if classes.dtype.kind in "iu":
            return None
        texts, name = classes.asstr("utf-8"), classes.name
        return ClassTexts(lambda rows: (block.tolist() for block in self._read(texts, 0, rows, name)), f"{self._path}: {name}")

    def held_bytes(self, rows: int) -> int:
        """Return the bytes of a block and of a chunk of the file, packed and unpacked."""
        item = self._values.dtype.itemsize
        chunk = math.prod(self._values.chunks) * item if self._values.chunks else 0
        return item * min(rows, self.shape[0]) * self.shape[1] + 2 * chunk

    def blocks(self, start: int, rows: int) -> Iterator[np.ndarray]:
        """Yield the valid rows from ``start`` on."""
        for block in self._read(self._values, start, rows, self._values.name):
            yield block.reshape(len(block), self.shape[1])

    def classes(self, rows: int) -> Iterator[np.ndarray] | None:
        """Yield the class of each valid row; None where there are none."""
        if self._classes is None:
            return None
        return self._texts.numbers(rows) if self._texts else self._read(self._classes, 0, rows, self._classes.name)

    def class_names(self) -> list[str] | None:
        """Return the names of the classes, where they are texts."""
        return self._texts.names if self._texts else None

    def names(self, rows: int) -> None:
        """Return None."""

    def _read(self, values: Any, start: int, rows: int, name: str) -> Iterator[np.ndarray]:
        for first in range(start, self.shape[0], rows):
            end = min(first + rows, self.shape[0])
            try:
                yield values[first:end]
            except (OSError, RuntimeError, UnicodeDecodeError) as error:
                raise BadInput(f"{self._path}: {name} cannot be read from row {first} on ({_line(error)})") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
