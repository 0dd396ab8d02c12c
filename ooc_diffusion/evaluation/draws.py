"""Which images are labelled: the random draws of the protocol, nested in the number of images per class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation.splits import shown_class

__all__ = ["draw_novel", "draw_seeds", "seed_of_draw"]


def seed_of_draw(seed: int, draw: int) -> list[int]:
    """Return the seed of one of several draws: no two of them, of whatever seeds, are the same.

    Of seed 0 it is the number of the draw alone, since NumPy takes ``[i, 0]`` for i.
    """
    return [draw, seed]


def draw_seeds(
    truth: np.ndarray, *, n_per_class: int, seed: int | Sequence[int], class_names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the same number of labelled images of each class.

    Parameters
    ----------
    truth : ndarray of int, shape (n,)
        True class of each image, -1 where it is unknown; such an image is never drawn. The classes are 0 to the largest.
    n_per_class : int
        Images per class.
    seed : int or sequence of int
        Seed of the draw; of one of several see `seed_of_draw`.
    class_names : sequence of str, optional
        Names of the classes, for messages.

    Returns
    -------
    seeds : ndarray of int64, shape (C * n_per_class,)
        Row numbers, sorted by class, within a class in the order of the draw.
    classes : ndarray of int32, shape (C * n_per_class,)
        Their classes.

    Raises
    ------
    BadInput
        A class has fewer than ``n_per_class`` images.

    Notes
    -----
    Section 4.1: the images of each class are permuted, classes in order, and the first n are taken. The permutations do not
    depend on n, so the draw of n images contains that of fewer, and methods are compared on the same images.
    """
    if n_per_class < 1:
        raise BadInput(f"{n_per_class} labelled images per class: give at least 1")
    order = np.argsort(truth, kind="stable")
    n_classes = int(truth.max(initial=-1)) + 1
    first = np.searchsorted(truth[order], np.arange(n_classes + 1))
    rng = np.random.default_rng(seed)
    drawn = []
    for c in range(n_classes):
        members = rng.permutation(order[first[c] : first[c + 1]])
        if len(members) < n_per_class:
            raise BadInput(
                f"class {shown_class(c, class_names)} has {len(members)} images, {n_per_class} are to be drawn: lower the number "
                "per class"
            )
        drawn.append(members[:n_per_class])
    if not drawn:
        raise BadInput("no image has a known class: nothing can be drawn")
    return np.concatenate(drawn).astype(np.int64), np.repeat(np.arange(n_classes, dtype=np.int32), n_per_class)


def draw_novel(columns: np.ndarray, n_base: int, *, n_per_class: int, seed: int | Sequence[int]) -> np.ndarray:
    """Draw the labelled images of novel classes.

    Parameters
    ----------
    columns : ndarray of int, shape (n,)
        Column of each training image in its group: base classes first, then novel ones; -1 = not in the group.
    n_base : int
        Number of base classes.
    n_per_class : int
        Images per novel class.
    seed : int or sequence of int
        Seed of the draw; of one of several see `seed_of_draw`.

    Returns
    -------
    ndarray of int64, shape (novel classes, n_per_class)
        Row numbers; the first n columns are the draw of n images per class.

    Raises
    ------
    BadInput
        A novel class has fewer than ``n_per_class`` images.
    """
    seeds, _ = draw_seeds(np.where(columns >= n_base, columns - n_base, -1), n_per_class=n_per_class, seed=seed)
    return seeds.reshape(-1, n_per_class)
