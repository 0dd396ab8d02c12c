"""Descriptors in a column of a parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..store import what_it_is
from .class_texts import ClassTexts

# What pyarrow keeps of pages on their way.
_PAGES_BYTES = 64 * 2**20
# With what a parquet file begins and ends.
_MARK = b"PAR1"


class ParquetFile:
    """A column of lists of numbers, all of one length.

    Parameters
    ----------
    file : str or Path
        The file.
    field, truth_field, names_field : str, optional
        See `open_descriptors`.
    """

    def __init__(
        self, file: str | Path, *, field: str | None = None, truth_field: str | None = None, names_field: str | None = None
    ) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._path = file
        try:
            self._file = parquet.ParquetFile(file, memory_map=True, pre_buffer=False)
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = _no_parquet(file) or _first_line(error)
            raise BadInput(f"{file} cannot be read as parquet ({reason}); give a whole parquet file") from None
        schema = self._file.schema_arrow
        self._field = self._vector_field(schema, field)
        self._truth_field, self._names_field = truth_field, names_field
        for name, fits, what in (
            (truth_field, lambda kind: pa.types.is_integer(kind) or _is_text(kind), "integers or strings"),
            (names_field, _is_text, "strings"),
        ):
            if name is not None and (name not in schema.names or not fits(schema.field(name).type)):
                found = schema.field(name).type if name in schema.names else "no such column"
                raise BadInput(
                    f"{file}: {name} is to be a column of {what}, but there is {found}; it has {self._columns(schema)}"
                )
        named = truth_field is not None and _is_text(schema.field(truth_field).type)
        self._texts = ClassTexts(self._read_texts, f"{file}: {truth_field}") if named else None
        n = self._file.metadata.num_rows
        if n == 0:
            raise BadInput(f"{file} has no rows; give one with descriptors")
        kind = schema.field(self._field).type
        self._item = int(kind.value_type.bit_width) // 8
        fixed = pa.types.is_fixed_size_list(kind)
        d = int(kind.list_size) if fixed else len(next(self._batches(self._field, 0, 1, 1))[1][0] or ())
        if d == 0:
            raise BadInput(f"{file} row 0: {self._field} is empty; descriptors have one value at least")
        self.whole = n
        self.shape = (n, d)
        fields = {"field": self._field, "truth_field": truth_field, "names_field": names_field}
        self.parameters: dict[str, Any] = {"format": "parquet", **fields}

    def _vector_field(self, schema: Any, field: str | None) -> str:
        found = [each.name for each in schema if _is_vector(each.type)]
        if field is None and len(found) == 1:
            return str(found[0])
        if field is None or field not in found:
            said = "" if field is None else f"{field!r} is no column of lists of numbers; "
            raise BadInput(f"{self._path}: {said}say with `field` which column it is; it has {self._columns(schema)}")
        return field

    @staticmethod
    def _columns(schema: Any) -> str:
        return ", ".join(f"{each.name} ({each.type})" for each in schema)

    def held_bytes(self, rows: int) -> int:
        """Return the bytes of a batch with its levels, of the numbers taken from it, and of some pages."""
        return min(rows, self.shape[0]) * self.shape[1] * (2 * self._item + 8) + _PAGES_BYTES

    def blocks(self, start: int, rows: int) -> Iterator[np.ndarray]:
        """Yield the rows from ``start`` on; `BadInput` for one that is missing, has a gap, or is of another length."""
        from pyarrow import compute

        d = self.shape[1]
        for first, column in self._batches(self._field, start, self.shape[0], rows):
            there = column.is_valid().to_numpy(zero_copy_only=False)
            lengths = compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
            for wrong, what in ((~there, "is missing"), (lengths != d, "has {} values, the first has {}")):
                if wrong.any():
                    row = int(wrong.argmax())
                    raise BadInput(f"{self._path} row {first + row}: {self._field} {what.format(lengths[row], d)}; mend that row")
            values = column.flatten()
            if values.null_count:
                place = int(values.is_null().to_numpy(zero_copy_only=False).argmax())
                raise BadInput(
                    f"{self._path} row {first + place // d}: {self._field} has no number at {place % d}; mend that row"
                )
            yield values.to_numpy(zero_copy_only=False).reshape(-1, d)

    def classes(self, rows: int) -> Iterator[np.ndarray] | None:
        """Yield the class of each row, -1 where there is none; None where no column holds them."""
        if self._truth_field is None:
            return None
        if self._texts:
            return self._texts.numbers(rows)
        return (
            column.fill_null(-1).to_numpy(zero_copy_only=False) if column.null_count else column.to_numpy(zero_copy_only=False)
            for _, column in self._batches(self._truth_field, 0, self.shape[0], rows)
        )

    def class_names(self) -> list[str] | None:
        """Return the names of the classes, where they are texts."""
        return self._texts.names if self._texts else None

    def _read_texts(self, rows: int) -> Iterator[list[str | None]]:
        assert self._truth_field is not None
        return (column.to_pylist() for _, column in self._batches(self._truth_field, 0, self.shape[0], rows))

    def names(self, rows: int) -> Iterator[list[str]] | None:
        """Yield the name of each row; None where no column holds them."""
        return None if self._names_field is None else self._named(rows)

    def _named(self, rows: int) -> Iterator[list[str]]:
        assert self._names_field is not None
        for first, column in self._batches(self._names_field, 0, self.shape[0], rows):
            if column.null_count:
                row = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
                raise BadInput(f"{self._path} row {first + row}: {self._names_field} is missing; give each row a name")
            yield column.to_pylist()

    def _batches(self, field: str, start: int, end: int, rows: int) -> Iterator[tuple[int, Any]]:
        """Yield first row and values of batches of the rows from ``start`` to ``end``.

        The row group that holds the first is read from its beginning.
        """
        import pyarrow as pa

        metadata = self._file.metadata
        group, first = 0, 0
        while group < metadata.num_row_groups - 1 and first + metadata.row_group(group).num_rows <= start:
            first += metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, metadata.num_row_groups))
        try:
            for batch in self._file.iter_batches(rows, row_groups=groups, columns=[field], use_threads=False):
                column = batch.column(0)
                skipped = min(max(start - first, 0), len(column))
                if skipped < len(column):
                    yield first + skipped, column.slice(skipped, end - first - skipped)
                first += len(column)
                if first >= end:
                    return
        except (OSError, ValueError, pa.ArrowException) as error:
            raise BadInput(f"{self._path} cannot be read from row {max(first, start)} on ({_first_line(error)})") from None


def _no_parquet(file: str | Path) -> str | None:
    """Return why a file is no whole parquet file, as far as its first and last bytes tell."""
    with Path(file).open("rb") as stream:
        if stream.read(len(_MARK)) != _MARK:
            return what_it_is(file)
        stream.seek(-len(_MARK), os.SEEK_END)
        return None if stream.read() == _MARK else "it is cut off: a parquet file ends with PAR1"


def _is_vector(kind: Any) -> bool:
    import pyarrow as pa

    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return lists and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
