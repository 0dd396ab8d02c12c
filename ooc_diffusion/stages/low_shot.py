"""What all runs of the protocol share: the classes of the groups, the draws, and where images lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..evaluation import Group, Split, choosing_measure, draw_novel, read_split, seed_of_draw, shown_class
from ..store import Store
from .class_names import class_names, refuse_other_classes
from .stage_names import digest

N_PER_CLASS = (1, 2, 5, 10, 20)
# Arrays of the store that each run reads.
INPUTS = [f"{role}/{name}" for role in ("background", "tests") for name in ("vectors", "descriptors", "truth")]

# Classes that a message names.
_SHOWN = 3


@dataclass(frozen=True)
class Labelled:
    """Training images that are labelled in one draw.

    Parameters
    ----------
    rows : numpy.ndarray of shape (m,), int64
        Rows of the training images, ascending.
    columns : numpy.ndarray of shape (m,), int64
        Columns of their classes.
    """

    rows: np.ndarray
    columns: np.ndarray


class LowShot:
    """The low-shot problem of a group of classes.

    Parameters
    ----------
    group : Group
        Its classes.
    truth, test_truth : numpy.ndarray of int
        True classes of all training images and of all tests.
    sizes : sequence of int
        Labelled images per novel class.
    seed : int
        Seed of all draws.
    names : sequence of str, optional
        Names of all classes, for messages.
    """

    def __init__(
        self,
        group: Group,
        truth: np.ndarray,
        test_truth: np.ndarray,
        sizes: Sequence[int],
        seed: int,
        names: Sequence[str] | None = None,
    ) -> None:
        self.n_base, self.n_classes = len(group.base), len(group.classes)
        self.by = choosing_measure(self.n_classes)
        self.sizes, self._seed = sizes, seed
        self._columns, self._shown = group.columns(truth), [shown_class(c, names) for c in group.classes]
        test_columns = group.columns(test_truth)
        self._check(sizes)
        self.train_rows = np.flatnonzero(self._columns >= 0)
        self.test_rows = np.flatnonzero(test_columns >= 0)
        self.test_columns = test_columns[self.test_rows]
        if len(self.test_rows) == 0:
            few = ", ".join([*self._shown[:_SHOWN], *["..."] * (self.n_classes > _SHOWN)])
            raise BadInput(f"no test is of a class of the split ({few}); give tests of these classes, or split others")

    def _check(self, sizes: Sequence[int]) -> None:
        counts = np.bincount(self._columns[self._columns >= 0], minlength=self.n_classes)
        least = np.where(np.arange(self.n_classes) < self.n_base, 1, max(sizes))
        short = np.flatnonzero(counts < least)
        if len(short):
            c = short[0]
            if counts[c] == 0:
                raise BadInput(f"class {self._shown[c]} has no training images; leave it out of the split")
            raise BadInput(
                f"class {self._shown[c]} has {counts[c]} training images, {least[c]} are to be labelled; lower `n_per_class`, "
                "or leave the class out of the split"
            )

    def n_labelled(self, n: int) -> int:
        """Return how many training images are labelled in a draw of n per novel class."""
        base = np.count_nonzero((self._columns >= 0) & (self._columns < self.n_base))
        return int(base) + n * (self.n_classes - self.n_base)

    @property
    def scarcest(self) -> tuple[int, str]:
        """Training images of the novel class that has fewest, and which it is, in words."""
        counts = np.bincount(self._columns[self._columns >= self.n_base], minlength=self.n_classes)[self.n_base :]
        return int(counts.min()), self._shown[self.n_base + int(counts.argmin())]

    def labelled(self, draw: int) -> list[Labelled]:
        """Return what is labelled in a draw, for each number of images per novel class; nested, the same for all methods."""
        seed = seed_of_draw(self._seed, draw)
        drawn = draw_novel(self._columns, self.n_base, n_per_class=max(self.sizes), seed=seed)
        base = np.flatnonzero((self._columns >= 0) & (self._columns < self.n_base))
        result = []
        for n in self.sizes:
            rows = np.sort(np.concatenate([base, drawn[:, :n].ravel()]))
            result.append(Labelled(rows, self._columns[rows]))
        return result


@dataclass(frozen=True)
class Protocol:
    """How often, on what, and how much is drawn: the same for all methods that are compared.

    Parameters
    ----------
    split : Split
        The classes of both groups.
    n_per_class : tuple of int
        Labelled images per novel class, ascending.
    draws : int
        Draws of the labelled images.
    groups : tuple of int
        Groups that are run, from 1 on. Hyper-parameters are chosen on group 1, which comes first.
    seed : int
        Seed of all draws.
    """

    split: Split
    n_per_class: tuple[int, ...] = N_PER_CLASS
    draws: int = 5
    groups: tuple[int, ...] = (1, 2)
    seed: int = 0
    _known: dict[tuple[str, ...], list[LowShot]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_counts(self.n_per_class, self.draws)
        if self.groups not in ((1,), (1, 2)):
            raise BadInput(f"groups are {self.groups}; give 1, or 1 and 2: hyper-parameters are chosen on group 1")

    @property
    def runs(self) -> int:
        """Sets of labelled images: one for each group, draw and number of them."""
        return len(self.groups) * self.draws * len(self.n_per_class)

    @property
    def told(self) -> str:
        """What is drawn, in words."""
        groups = "2 groups" if len(self.groups) == 2 else "group 1"
        return f"{groups}, {self.draws} draw{'s' * (self.draws > 1)}, n = {', '.join(map(str, self.n_per_class))}"

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines results, as JSON values."""
        chosen = {"n_per_class": list(self.n_per_class), "draws": self.draws, "groups": list(self.groups), "seed": self.seed}
        # seed 0 draws what it has always drawn
        drawn = {"drawn": "by draw and seed"} if self.seed else {}
        return {"split": digest(self.split.as_json()), **chosen, "ties": "by the other of top1 and top5", **drawn}

    def problems(self, store: Store) -> list[LowShot]:
        """Return the problem of each group, after what the store holds was checked; made once, while that is the same."""
        names = ("background/truth", "tests/truth")
        made_from = (str(store.path), *(store.entry(name).identity for name in names))
        if made_from not in self._known:
            truth, test_truth = store.arrays(*names)
            groups, shown = [self.split.groups[number - 1] for number in self.groups], class_names(store)
            made = [LowShot(group, truth, test_truth, self.n_per_class, self.seed, shown) for group in groups]
            self._known[made_from] = made
        return self._known[made_from]


def check_counts(n_per_class: Sequence[int], draws: int) -> None:
    """Raise `BadInput` unless there are numbers of labelled images, and these and the number of draws are at least 1."""
    if not n_per_class or min(n_per_class) < 1:
        raise BadInput(f"`n_per_class` is {list(n_per_class)}; give numbers of at least 1")
    if draws < 1:
        raise BadInput(f"`draws` is {draws}; it must be at least 1")


def make_protocol(store: Store, split: str | Path | Split, *, seed: int, **options: Any) -> Protocol:
    """Return the protocol for the classes of a store, with a split or the file of one."""
    check_store(store)
    if not isinstance(split, Split):
        split = read_split(split, n_classes=count_classes(store), class_names=class_names(store))
    return Protocol(split, seed=seed, **options)


def count_classes(store: Store) -> int:
    """Return the number of classes that the images of a store have or could have."""
    truth, test_truth = store.arrays("background/truth", "tests/truth")
    return max(int(max(truth.max(), test_truth.max())) + 1, len(class_names(store) or []))


def check_store(store: Store) -> None:
    """Raise `BadInput` unless a store has training images and tests, described and with their classes."""
    for role in ("background", "tests"):
        if f"{role}/vectors" not in store:
            halve = f"; or `ooc-diffusion study knn --data {store.path} --output DIR` halves them, into DIR/images.store"
            raise BadInput(
                f"{store.path} has no {role} with vectors; extract (or import) them with --role {role}, then reduce"
                f"{halve if role == 'tests' else ''}"
            )
        if f"{role}/truth" not in store:
            raise BadInput(
                f"{store.path} does not know the true classes of its {role}; extract a data set with classes, or import "
                "descriptors with --truth"
            )
    if "seeds/vectors" in store:
        raise BadInput(f"{store.path} has seeds apart from the background, but the protocol draws them; use a store without")
    refuse_other_classes(store)
