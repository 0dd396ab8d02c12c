"""From scores to labels and confidences."""

from __future__ import annotations

import numpy as np

__all__ = ["predict", "top_k"]


def predict(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label and confidence of each row of scores.

    Parameters
    ----------
    scores : ndarray, shape (b, C)
        Nonnegative finite scores.

    Returns
    -------
    labels : ndarray of int32, shape (b,)
        The class with the largest score, the lowest at equal scores; -1 for a row of zeros, which no label has reached.
    confidences : ndarray of float32, shape (b,)
        The largest score over the sum of the row, from 1/C to 1; 0 for a row of zeros.

    Raises
    ------
    ValueError
        A score is negative, NaN or infinite: a mistake of the calling code, not of its user.
    """
    _check(scores)
    sums = scores.sum(axis=1, dtype=np.float64)
    reached = sums > 0
    labels = np.where(reached, scores.argmax(axis=1), -1).astype(np.int32)
    largest = scores.max(axis=1).astype(np.float64)
    return labels, np.divide(largest, sums, out=np.zeros_like(sums), where=reached).astype(np.float32)


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``min(k, C)`` best classes of each row of scores.

    Parameters
    ----------
    scores : ndarray, shape (b, C)
        Nonnegative finite scores.
    k : int
        Classes per row.

    Returns
    -------
    labels : ndarray of int32, shape (b, min(k, C))
        Classes by decreasing score, the lower first at equal scores; -1 where the score is zero.
    confidences : ndarray of float32, shape (b, min(k, C))
        Their scores over the sum of the row; 0 where the score is zero.

    Raises
    ------
    ValueError
        A score is negative, NaN or infinite.
    """
    _check(scores)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, axis=1).astype(np.float64)
    sums = np.broadcast_to(scores.sum(axis=1, keepdims=True, dtype=np.float64), best.shape)
    shares = np.divide(best, sums, out=np.zeros_like(best), where=sums > 0)
    return np.where(best > 0, order, -1).astype(np.int32), shares.astype(np.float32)


def _check(scores: np.ndarray) -> None:
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores of shape {scores.shape}: expected rows of at least one class")
    # Written so that NaN fails as well.
    if not bool(np.all((scores >= 0) & (scores < np.inf))):
        raise ValueError("scores must be finite and not negative")
