"""From scores to labels and confidences."""

from __future__ import annotations

import numpy as np

__all__ = ["predict"]


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


def _check(scores: np.ndarray) -> None:
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores of shape {scores.shape}: expected rows of at least one class")
    # Written so that NaN fails as well.
    if not bool(np.all((scores >= 0) & (scores < np.inf))):
        raise ValueError("scores must be finite and not negative")
