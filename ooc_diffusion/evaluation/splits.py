"""Which classes are base and which novel, in two groups: the split of section 4.1, as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ooc_diffusion.errors import BadInput

__all__ = ["Group", "Split", "as_classes", "random_split", "read_split", "shown_class", "write_split"]

_KEYS = ("base_classes_1", "novel_classes_1", "base_classes_2", "novel_classes_2")
# Unions over the groups, which the public file has as well.
_UNIONS = ("base_classes", "novel_classes")
# Of the 1000 classes of the paper: 193 base and 300 novel ones in the first group, 196 and 311 in the second.
_PAPER = (193, 300, 196, 311)


@dataclass(frozen=True)
class Group:
    """The classes of one group.

    Parameters
    ----------
    base : numpy.ndarray of shape (b,), int64
        Classes of which all training images are labelled.
    novel : numpy.ndarray of shape (c,), int64
        Classes of which a few are.
    """

    base: np.ndarray
    novel: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """All classes, base ones first; their places are the columns of scores."""
        return np.concatenate([self.base, self.novel])

    def columns(self, truth: np.ndarray) -> np.ndarray:
        """Return the column of each image, int64, from its true class; -1 for those of other groups, and unknown ones."""
        column = np.full(int(max(truth.max(initial=0), self.classes.max())) + 2, -1, np.int64)
        column[self.classes] = np.arange(len(self.classes))
        return column[truth]  # -1 takes the last, which is -1


@dataclass(frozen=True)
class Split:
    """The groups: the first chooses hyper-parameters, the second is the test."""

    groups: tuple[Group, Group]

    def as_json(self, class_names: Sequence[str] | None = None) -> dict[str, list[Any]]:
        """Return what `write_split` writes, with names in place of numbers where they are given."""
        parts = [part for group in self.groups for part in (group.base, group.novel)]
        return {key: [class_names[c] if class_names else int(c) for c in part] for key, part in zip(_KEYS, parts, strict=True)}


def read_split(file: str | Path, *, n_classes: int, class_names: Sequence[str] | None = None) -> Split:
    """Read a split of classes.

    Parameters
    ----------
    file : str or Path
        JSON: an object with the lists ``base_classes_1``, ``novel_classes_1``, ``base_classes_2``, ``novel_classes_2`` of class
        numbers from 0 on, or of class names. ``base_classes`` and ``novel_classes``, where given, must be the unions over both
        groups. Numbers beside a list ``label_names`` are places in it, as in the public ``label_idx.json`` of the paper's 1000
        classes; see `as_classes`. Other keys are passed over.
    n_classes : int
        Number of classes that there are.
    class_names : sequence of str, optional
        Their names, where known.

    Returns
    -------
    Split
        Classes in the order of the file.

    Raises
    ------
    BadInput
        If the file cannot be read, a list is missing or empty, a class is unknown, or is given twice.
    """
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}; check the path") from None
    except ValueError as error:  # not UTF-8, or no JSON
        raise BadInput(f"{file} is no JSON ({error}); write it with `ooc-diffusion split`") from None
    if not isinstance(found, dict):
        raise BadInput(f"{file} holds no object; give one with the lists {', '.join(_KEYS)}")
    found = as_classes(file, found, class_names)
    numbers = {name: c for c, name in enumerate(class_names or [])}
    parts = {key: _classes(file, found, key, n_classes, numbers) for key in (*_KEYS, *_UNIONS) if key in found or key in _KEYS}
    owner: dict[int, str] = {}
    for key in _KEYS:
        for c in parts[key].tolist():
            if c in owner:
                raise BadInput(f"{file}: class {shown_class(c, class_names)} is in {owner[c]} and in {key}; give each class once")
            owner[c] = key
    for union in _UNIONS:
        both = np.concatenate([parts[f"{union}_{number}"] for number in (1, 2)])
        if union in parts and set(parts[union].tolist()) != set(both.tolist()):
            raise BadInput(f"{file}: {union} is not the union of {union}_1 and {union}_2; mend it or leave it out")
    return Split(tuple(Group(parts[f"base_classes_{i}"], parts[f"novel_classes_{i}"]) for i in (1, 2)))  # type: ignore[arg-type]


def as_classes(file: str | Path, found: dict[str, Any], class_names: Sequence[str] | None) -> dict[str, Any]:
    """Return what a split file holds, with classes in place of its numbers where these are places in a list ``label_names``.

    Parameters
    ----------
    file : str or Path
        Where it is from, for messages.
    found : dict
        What it holds. Lists are those whose keys begin with ``base_classes`` or ``novel_classes``.
    class_names : sequence of str, optional
        Names of the classes, where known: a place is then the class of that name, since the list has an order of its own.

    Returns
    -------
    dict
        Numbers from 0 on, or names.

    Raises
    ------
    BadInput
        If the numbers may count from 0 as well as from 1.

    Notes
    -----
    The public file counts from 1, while the labels of its descriptors count from 0: its code subtracts 1. Others of this layout
    count from 0. Which of the two is meant shows by the ends, since only the one has 0 and only the other the number of names.
    """
    names = found.get("label_names")
    lists = {key for key, part in found.items() if key.startswith(("base_classes", "novel_classes")) and isinstance(part, list)}
    numbers = {c for key in lists for c in found[key] if isinstance(c, int) and not isinstance(c, bool)}
    if not isinstance(names, list) or not numbers:
        return found
    if (0 in numbers) == (len(names) in numbers):
        raise BadInput(
            f"{file}: its numbers may be places in label_names from 0 or from 1 on; give these names themselves in the lists"
        )
    start = 0 if 0 in numbers else 1

    def meant(c: Any) -> Any:
        if not isinstance(c, int) or isinstance(c, bool) or not 0 <= c - start < len(names):
            return c  # the reader of the list says what is wrong with it
        return c - start if class_names is None else names[c - start]

    return {key: [meant(c) for c in part] if key in lists else part for key, part in found.items()}


def shown_class(c: int, class_names: Sequence[str] | None) -> str:
    """Return a class as messages say it: its name in quotes, its number where classes have no names."""
    return repr(class_names[c]) if class_names else str(c)


def _classes(file: str | Path, found: dict[str, Any], key: str, n_classes: int, numbers: dict[str, int]) -> np.ndarray:
    listed = found.get(key)
    if not isinstance(listed, list) or not listed:
        raise BadInput(f"{file} has no list {key}; give the classes of {', '.join(_KEYS)}")
    classes = [numbers.get(c, -1) if isinstance(c, str) else c for c in listed]
    for given, c in zip(listed, classes, strict=True):
        if not isinstance(c, int) or isinstance(c, bool) or not 0 <= c < n_classes:
            raise BadInput(f"{file}: {given!r} in {key} is none of the {n_classes} classes; give numbers from 0 on, or names")
    return np.array(classes, np.int64)


def write_split(file: str | Path, split: Split, *, class_names: Sequence[str] | None = None) -> None:
    """Write a split as JSON that `read_split` reads, with names where they are known."""
    lines = (f' "{key}": {json.dumps(part)}' for key, part in split.as_json(class_names).items())
    Path(file).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def random_split(n_classes: int, *, seed: int) -> Split:
    """Split classes at random into groups whose parts have the proportions of the paper.

    Parameters
    ----------
    n_classes : int
        Number of classes, at least 4.
    seed : int
        Seed of the split.

    Returns
    -------
    Split
        Each class in one part, ascending in it; no part is empty.

    Raises
    ------
    BadInput
        There are fewer than 4 classes.
    """
    if n_classes < 4:
        raise BadInput(f"{n_classes} classes cannot be split into four parts; take a data set of more classes")
    ends = np.rint(np.cumsum(_PAPER) / sum(_PAPER) * n_classes).astype(np.int64)[:-1]
    ends = np.clip(ends, [1, 2, 3], [n_classes - 3, n_classes - 2, n_classes - 1])
    parts = [np.sort(part) for part in np.split(np.random.default_rng(seed).permutation(n_classes), ends)]
    return Split((Group(parts[0], parts[1]), Group(parts[2], parts[3])))
