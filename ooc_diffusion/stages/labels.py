"""The few labels that people give: reading them, and knowing which node of the graph they belong to."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..images import printable
from ..store import Store, Strings

UNLABELLED = ("", "-1")
# Images that a message names.
_SHOWN = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """Labelled images.

    Parameters
    ----------
    rows : numpy.ndarray of shape (m,), int64
        Rows of the labelled images in their role, ascending.
    classes : numpy.ndarray of shape (m,), int64
        Their classes.
    class_names : list of str
        Name of each class.
    left_out : int
        Lines without a label.
    """

    rows: np.ndarray
    classes: np.ndarray
    class_names: list[str]
    left_out: int = 0


def read_labels(file: str | Path, store: Store, *, classes: str | Path | None = None) -> Labels:
    """Read a CSV of labels, ``path,label`` or ``row,label``.

    Parameters
    ----------
    file : str or Path
        CSV with a header. ``path`` is the name of an image relative to its folder, ``row`` its number from 0; labels are any
        strings. An empty label, or -1, is no label.
    store : Store
        The store that lists the images: the role ``seeds`` where there is one, else ``background``.
    classes : str or Path, optional
        Text file with all classes, one per line, in their order. Default: those in the CSV, sorted.

    Returns
    -------
    Labels
        At least one.

    Raises
    ------
    BadInput
        With the line of the file: unknown paths, rows out of range, two labels for one image, labels that are not in
        ``classes``, a class without a label, no label at all.
    """
    key, lines = _read_csv(file)
    role = seed_role(store)
    names = Strings.open(store, f"{role}/path") if f"{role}/path_offsets" in store else None
    n = store.entry(f"{role}/descriptors").shape[0] if names is None else len(names)
    given: dict[int, tuple[str, int]] = {}
    left_out = 0
    for line, value, label in lines:
        if label.strip() in UNLABELLED:
            left_out += 1
            continue
        row = _row(value, key, names, n, f"{file} line {line}")
        before = given.setdefault(row, (label, line))
        if before[0] != label:
            raise BadInput(
                f"{file} line {line}: {printable(value)!r} is labelled {label!r}, but {before[0]!r} in line {before[1]}"
            )
    if not given:
        raise BadInput(f"{file} labels no image; label at least one")
    class_names = _class_names(file, dict(reversed(list(given.values()))), classes)
    number = {name: i for i, name in enumerate(class_names)}
    rows = np.array(sorted(given), np.int64)
    return Labels(rows, np.array([number[given[int(row)][0]] for row in rows], np.int64), class_names, left_out)


def readable_labels(given: Labels, store: Store, file: str | Path) -> Labels:
    """Leave out labels of images that could not be read, and warn of what is left out and of labels of one class only."""
    role = seed_role(store)
    failed = store.array(f"{role}/failed_rows") if f"{role}/failed_rows" in store else np.empty(0, np.int64)
    kept = ~np.isin(given.rows, failed)
    if given.left_out:
        logger.warning("%s: %d lines without a label (empty or -1) are left out", file, given.left_out)
    if not kept.all():
        logger.warning("%s: %d labelled images could not be read and are left out", file, (~kept).sum())
    lost = np.setdiff1d(given.classes, given.classes[kept])
    if len(lost):
        name, rows = given.class_names[lost[0]], given.rows[given.classes == lost[0]]
        raise BadInput(
            f"{file}: no labelled image of class {name!r} could be read ({_names(store, role, rows)}); label another one, or "
            "leave the class out"
        )
    if len(given.class_names) == 1:
        logger.warning(
            "%s names one class only, %r: every image that labels reach is given it; label images of another class, too",
            file,
            given.class_names[0],
        )
    return Labels(given.rows[kept], given.classes[kept], given.class_names, given.left_out)


def _names(store: Store, role: str, rows: np.ndarray) -> str:
    names = Strings.open(store, f"{role}/path") if f"{role}/path_offsets" in store else None
    first = [f"row {row}" if names is None else printable(names[int(row)]) for row in rows[:_SHOWN]]
    more = [f"{len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else []
    return ", ".join(first + more)


def count_classes(file: str | Path) -> int:
    """Return how many classes a CSV of labels names, for a plan before any image is listed."""
    return len({label for _, _, label in _read_csv(file)[1] if label.strip() not in UNLABELLED})


def seed_role(store: Store) -> str:
    """Return the role whose images are labelled: seeds where they stand apart, else the background."""
    manifest = store.manifest
    return "seeds" if any(name.startswith("seeds/") for name in manifest.arrays) else "background"


def _read_csv(file: str | Path) -> tuple[str, list[tuple[int, str, str]]]:
    """Return which column names the images, and line, name and label of every row."""
    try:
        with Path(file).open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
            lines = csv.reader(text, strict=True)
            header = [name.strip().lower() for name in next(lines, [])]
            found = [name for name in ("path", "row") if name in header]
            if header and header[0].startswith(("\udcff\udcfe", "\udcfe\udcff")):
                raise BadInput(f"{file} is UTF-16; save it as UTF-8")
            if header.count("label") > 1 or (found and header.count(found[0]) > 1):
                raise BadInput(f"{file} has a column twice: {', '.join(map(printable, header))}; keep one path and one label")
            if not found or "label" not in header:
                columns = ", ".join(map(printable, header)) or "none"
                raise BadInput(f"{file} has the columns {columns}; give path,label (or row,label) in its first line")
            return found[0], list(_rows(file, lines, header, found[0]))
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist; give a CSV with the columns path,label") from None
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}; give a CSV with the columns path,label") from None
    except csv.Error as error:
        raise BadInput(f"{file} line {lines.line_num} is no CSV: {error}; mend that line") from None


def _rows(file: str | Path, lines: Any, header: list[str], key: str) -> Iterator[tuple[int, str, str]]:
    path, label = header.index(key), header.index("label")
    first = lines.line_num + 1
    for row in lines:
        if row and len(row) != len(header):
            raise BadInput(f"{file} line {first} has {len(row)} fields, the header {len(header)}; quote fields that hold commas")
        if row and any("\udc80" <= character <= "\udcff" for character in row[label]):
            raise BadInput(f"{file} line {first}: label {printable(row[label])!r} is not UTF-8; save the file as UTF-8")
        if row:
            yield first, row[path], row[label]
        first = lines.line_num + 1


def _row(value: str, key: str, names: Strings | None, n: int, where: str) -> int:
    if key == "row" or names is None:
        if not value.isascii() or not value.isdigit() or int(value) >= n:
            raise BadInput(f"{where}: {printable(value)!r} is not a row of the {n} images; rows go from 0 to {n - 1}")
        return int(value)
    row = names.find(value.removeprefix("./"))
    if row < 0:
        raise BadInput(f"{where}: no image has the path {printable(value)!r}; paths are relative to the folder, as {names[0]!r}")
    return row


def _class_names(file: str | Path, first_lines: dict[str, int], classes: str | Path | None) -> list[str]:
    if classes is None:
        return sorted(first_lines)
    try:
        names = [line for line in Path(classes).read_text(encoding="utf-8-sig").split("\n") if line]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{classes} cannot be read: {error}") from None
    if len(set(names)) < len(names) or not names:
        raise BadInput(f"{classes} names no class, or one twice; give one class per line")
    for label, line in first_lines.items():
        if label not in names:
            raise BadInput(f"{file} line {line}: {label!r} is not among the classes of {classes}")
    missing = [name for name in names if name not in first_lines]
    if missing:
        raise BadInput(f"{file} labels no image of class {missing[0]!r}; label one, or take it out of {classes}")
    return names
