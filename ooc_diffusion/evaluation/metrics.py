"""Top-k accuracy, accumulated block by block; mean and deviation of draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["NEVER", "Accuracy", "hits", "mean_std", "ranks"]

NEVER = np.iinfo(np.int64).max


def hits(scores: np.ndarray, truth: np.ndarray, k: int, *, logarithms: bool = False) -> np.ndarray:
    """Whether the true class is among the k best of each row.

    Parameters
    ----------
    scores : ndarray, shape (b, C)
        Nonnegative scores, or their logarithms.
    truth : ndarray of int, shape (b,)
        True classes; one outside 0 to C - 1 is never hit.
    k : int
        Classes that count.
    logarithms : bool
        The scores are logarithms: any sign is as good as another.

    Returns
    -------
    ndarray of bool, shape (b,)
        At equal scores the lower class is ahead. Unless ``logarithms``, a class whose score is zero is never among the best,
        so an unreached row is wrong.

    Raises
    ------
    ValueError
        A score is NaN: it would be neither ahead nor behind.
    """
    return ranks(scores, truth, logarithms=logarithms) < k


def ranks(scores: np.ndarray, truth: np.ndarray, *, logarithms: bool = False) -> np.ndarray:
    """How many classes are ahead of the true one in each row.

    Parameters
    ----------
    scores, truth, logarithms
        See `hits`.

    Returns
    -------
    ndarray of int64, shape (b,)
        0 where the true class is the best one; `NEVER` where it is not hit whatever k is, see `hits`.
    """
    if np.isnan(scores).any():
        raise ValueError("scores contain NaN")
    n_classes = scores.shape[1]
    known = (truth >= 0) & (truth < n_classes)
    label = np.where(known, truth, 0)[:, None]
    own = np.take_along_axis(scores, label, axis=1)
    ahead = (scores > own).sum(axis=1) + ((scores == own) & (np.arange(n_classes) < label)).sum(axis=1)
    counts = known if logarithms else known & (own[:, 0] > 0)
    return np.where(counts, ahead, NEVER)


class Accuracy:
    """Top-k accuracies averaged over images; blocks of any size give the same result.

    Parameters
    ----------
    ks : tuple of int
        The k of each accuracy, (1, 5) as in the paper; top-5 among fewer classes is top-C.
    logarithms : bool
        Scores will be logarithms, see `hits`.

    Notes
    -----
    Section 4.1: the average is over images, not over classes. Unreached images count, as wrong.
    """

    def __init__(self, ks: tuple[int, ...] = (1, 5), *, logarithms: bool = False) -> None:
        self._hits = dict.fromkeys(ks, 0)
        self._logarithms = logarithms
        self.count = 0

    def update(self, scores: np.ndarray, truth: np.ndarray) -> None:
        """Add a block: scores (b, C) and true classes (b,)."""
        for k in self._hits:
            self._hits[k] += int(hits(scores, truth, k, logarithms=self._logarithms).sum())
        self.count += len(truth)

    def result(self) -> dict[str, float]:
        """Return accuracies from 0 to 1 by name, ``{"top1": ..., "top5": ...}``; NaN before the first image."""
        return {f"top{k}": hit / self.count if self.count else float("nan") for k, hit in self._hits.items()}


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation of the draws; no deviation where there was one draw only."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
