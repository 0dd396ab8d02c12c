"""The figures of the protocol (section 4.1): which accuracies there are, and what is chosen by them on the first group."""

from __future__ import annotations

import numpy as np

from ooc_diffusion.evaluation.metrics import ranks

__all__ = ["FEWEST_FOR_TOP5", "MEASURES", "choose_place", "choosing_measure", "count_hits", "shares"]

# Over the tests of all classes of the group, and over those of novel classes alone; predictions compete among all classes.
MEASURES = ("top1", "top5", "novel top1", "novel top5")
# With fewer classes the five best hold the true one too often to tell anything apart.
FEWEST_FOR_TOP5 = 20


def count_hits(scores: np.ndarray, columns: np.ndarray, n_base: int, *, logarithms: bool = False) -> np.ndarray:
    """Count how many of some tests each of `MEASURES` takes for right.

    Parameters
    ----------
    scores : ndarray, shape (b, C)
        Scores of tests, or their logarithms.
    columns : ndarray of int, shape (b,)
        Column of the true class of each.
    n_base : int
        Number of base classes, whose columns come first.
    logarithms : bool
        See `hits`.

    Returns
    -------
    ndarray of int64, shape (4,)
    """
    ahead = ranks(scores, columns, logarithms=logarithms)
    novel = ahead[columns >= n_base]
    return np.array([np.count_nonzero(some < k) for some in (ahead, novel) for k in (1, 5)], np.int64)


def shares(counts: np.ndarray, columns: np.ndarray, n_base: int) -> np.ndarray:
    """Return counts of hits, shape (..., 4), as shares of the tests, and of those of novel classes; NaN where there are none."""
    totals = np.array([len(columns)] * 2 + [np.count_nonzero(columns >= n_base)] * 2, np.float64)
    return counts / np.where(totals > 0, totals, np.nan)


def choosing_measure(n_classes: int) -> str:
    """Return the measure by which hyper-parameters are chosen: top-5 as in the paper, top-1 where there are few classes."""
    return "top5" if n_classes >= FEWEST_FOR_TOP5 else "top1"


def choose_place(accuracies: np.ndarray, by: str) -> int:
    """Choose one of several candidates on the first group.

    Parameters
    ----------
    accuracies : ndarray, shape (draws, candidates, 4)
        Those of `MEASURES`.
    by : str
        One of `MEASURES`.

    Returns
    -------
    int
        The candidate that is best on average over the draws; of equals the best by the other of top-1 and top-5, then the first.

    Notes
    -----
    Where all is easy many candidates have the five best right for every test of the first group, and the first of them may be
    diffusion without iterations, or fusion without logistic regression, which the second group then pays for.
    """
    # sums of the same numbers in another order must not decide
    means = np.round(accuracies.mean(axis=0), 12)
    other = "top1" if by == "top5" else "top5"
    return max(range(len(means)), key=lambda i: (means[i, MEASURES.index(by)], means[i, MEASURES.index(other)], -i))
