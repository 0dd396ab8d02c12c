"""Which classes a network may see: read from a list or from a split file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..evaluation import as_classes, shown_class
from ..images import printable
from .plans import BLOCK_ROWS

_GROUPS = ("base_classes_1", "base_classes_2")


@dataclass(frozen=True)
class Chosen:
    """The images to train on and those to test on.

    Parameters
    ----------
    rows, held_rows : numpy.ndarray of shape (n,), int64
        Rows of the collection, ascending.
    classes, held_classes : numpy.ndarray of shape (n,), int64
        Classes, from 0 on in the order of the base classes.
    """

    rows: np.ndarray
    classes: np.ndarray
    held_rows: np.ndarray
    held_classes: np.ndarray


def read_base_classes(file: str | Path, *, n_classes: int, class_names: list[str] | None) -> np.ndarray:
    """Read the base classes.

    Parameters
    ----------
    file : str or Path
        Text with one class per line, a name or else a number from 0 on; or a split: JSON with the list ``base_classes``, or with
        ``base_classes_1`` and ``base_classes_2``, whose union is meant. What else the split holds is passed over, but a class
        may not be in one of its lists ``novel_classes...`` as well. Beside ``label_names`` numbers are places in these, see
        `as_classes`.
    n_classes : int
        Number of classes that there are.
    class_names : list of str, optional
        Their names, where known.

    Returns
    -------
    numpy.ndarray of shape (b,), int64
        At least two classes, ascending.

    Raises
    ------
    BadInput
        Where the file cannot be read, a class is unknown, is given twice, or is novel as well.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadInput(f"{file} cannot be read: {reason}; give a text file with one class per line, or a split") from None
    number = {name: c for c, name in enumerate(class_names or [])}
    if text.lstrip().startswith("{"):
        return _from_split(file, text, n_classes, class_names)
    lines = [(where, line.strip()) for where, line in enumerate(text.split("\n"), 1) if line.strip()]
    classes = [_class(line, n_classes, number, f"{file} line {where}") for where, line in lines]
    for i, c in enumerate(classes):
        if c in classes[:i]:
            raise BadInput(f"{file} line {lines[i][0]}: class {printable(lines[i][1])!r} is given twice; give each class once")
    return _enough(file, classes)


def _from_split(file: str | Path, text: str, n_classes: int, class_names: list[str] | None) -> np.ndarray:
    number = {name: c for c, name in enumerate(class_names or [])}
    try:
        split = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{file} is no JSON ({error}); give a split, or a text file with one class per line") from None
    split = as_classes(file, split, class_names)
    keys = ("base_classes",) if "base_classes" in split else _GROUPS
    found = {key: _listed(file, split, key, n_classes, number) for key in keys}
    base = {c for classes in found.values() for c in classes}
    for key in split:
        if key.startswith("novel_classes"):
            both = base & set(_listed(file, split, key, n_classes, number))
            if both:
                shown = shown_class(min(both), class_names)
                raise BadInput(f"{file}: class {shown} is a base class and in {key}; give each class once")
    return _enough(file, sorted(base))


def _listed(file: str | Path, split: dict[str, Any], key: str, n_classes: int, number: dict[str, int]) -> list[int]:
    listed = split.get(key)
    if not isinstance(listed, list):
        raise BadInput(f"{file} has no list base_classes, nor base_classes_1 and base_classes_2; give the base classes there")
    for c in listed:
        if isinstance(c, bool) or not isinstance(c, int | str):
            raise BadInput(f"{file}: {c!r} in {key} is no class; give numbers from 0 on, or names")
    # a number is no name, be there a folder that is called so
    return [_class(str(c), n_classes, number if isinstance(c, str) else {}, f"{file}, {key}") for c in listed]


def _class(given: str, n_classes: int, number: dict[str, int], where: str) -> int:
    if given in number:
        return number[given]
    if given.isascii() and given.isdigit() and int(given) < n_classes:
        return int(given)
    known = f", such as {next(iter(number))!r}" if number else ""
    raise BadInput(f"{where}: {printable(given)!r} is none of the {n_classes} classes; give names{known}, or numbers from 0 on")


def _enough(file: str | Path, classes: list[int]) -> np.ndarray:
    if len(classes) < 2:
        raise BadInput(f"{file} gives {len(classes)} base classes; a network needs two at least to tell apart")
    return np.array(sorted(classes), np.int64)


def choose_images(truth: np.ndarray, base: np.ndarray, held_out: float, seed: int, file: str, names: list[str] | None) -> Chosen:
    """Choose the images of the base classes, and hold out a share of each class.

    Parameters
    ----------
    truth : numpy.ndarray of shape (N,), int32
        Class of each image; read by blocks.
    base : numpy.ndarray of shape (b,), int64
        The base classes.
    held_out : float
        Share to hold out.
    seed : int
        Of the choice.
    file : str
        Where the classes are from, for messages.
    names : list of str or None
        Names of the classes.

    Raises
    ------
    BadInput
        Where a class has too few images.
    """
    place = np.full(int(max(truth.max(initial=0), base.max())) + 2, -1, np.int64)
    place[base] = np.arange(len(base))  # -1, an unknown class, takes the last, which is -1
    blocks = (truth[first : first + BLOCK_ROWS] for first in range(0, len(truth), BLOCK_ROWS))
    rows = np.concatenate([np.flatnonzero(place[block] >= 0) + i * BLOCK_ROWS for i, block in enumerate(blocks)])
    classes = place[truth[rows]]
    held = held_out_counts(np.bincount(classes, minlength=len(base)), held_out, file, base, names)
    random = np.random.default_rng(seed)
    # Images in random order within their class: the first of each are held out.
    order = np.lexsort((random.random(len(rows)), classes))
    turn = np.arange(len(rows)) - np.concatenate([[0], np.cumsum(np.bincount(classes, minlength=len(base)))])[classes[order]]
    out = np.zeros(len(rows), bool)
    out[order] = turn < held[classes[order]]
    return Chosen(rows[~out], classes[~out], rows[out], classes[out])


def held_out_counts(counts: np.ndarray, share: float, file: str, base: np.ndarray, names: list[str] | None) -> np.ndarray:
    """Return how many images of each class are held out: one at least, unless the share is 0."""
    least = 2 if share else 1
    few = np.flatnonzero(counts < least)
    if len(few):
        c = base[few[0]]
        name, images = shown_class(c, names), "1 image" if counts[few[0]] == 1 else f"{counts[few[0]]} images"
        held = " and one to hold out (or give --held-out 0)" if share else ""
        raise BadInput(f"{file}: class {name} has {images}; a base class needs one to train on{held}")
    return np.minimum(np.maximum(np.rint(share * counts), 1 if share else 0), counts - 1).astype(np.int64)
