"""Folds of the seeds for cross-validation."""

from __future__ import annotations

import numpy as np

from ooc_diffusion.errors import BadInput

__all__ = ["seed_folds"]


def seed_folds(seed_classes: np.ndarray, *, n_folds: int = 5, seed: int = 0) -> np.ndarray | None:
    """Assign each seed to the fold in which it is held out.

    Parameters
    ----------
    seed_classes : ndarray of int, shape (m,)
        Classes of the seeds, in any order.
    n_folds : int
        Folds wanted; there are no more than the largest class has seeds.
    seed : int
        Seed of the assignment.

    Returns
    -------
    ndarray of int8, shape (m,), or None
        Fold of each seed, from 0 on; -1 where a seed is never held out, being alone in its class. None when that is true of
        all.

    Raises
    ------
    BadInput
        ``n_folds`` is not within 2 to 127.

    Notes
    -----
    Stratified: the fold sizes within a class differ by at most one, and the classes start at different folds, so that the
    folds as a whole differ by at most one too. At least one seed of each class remains in every fold's training part.
    """
    if not 2 <= n_folds <= 127:
        raise BadInput(f"{n_folds} folds: give 2 to 127")
    labels, members, counts = np.unique(seed_classes, return_inverse=True, return_counts=True)
    if counts.max(initial=0) < 2:
        return None
    n_folds = min(n_folds, int(counts.max()))
    folds = np.full(len(seed_classes), -1, dtype=np.int8)
    rng = np.random.default_rng(seed)
    dealt = 0
    for c in range(len(labels)):
        if counts[c] > 1:
            shuffled = rng.permutation(np.flatnonzero(members == c))
            folds[shuffled] = (dealt + np.arange(counts[c])) % n_folds
            dealt += int(counts[c])
    return folds
