"""How often nodes are listed as neighbors: hubs show in the upper quantiles."""

from __future__ import annotations

import numpy as np

QUANTILES = (0.5, 0.9, 0.99, 0.999)
_BLOCK_ROWS = 65536
# Degrees beyond this are told as this, but for the largest.
_MOST = 2**16


def in_degrees(ids: np.ndarray, counts: np.ndarray) -> dict[str, int]:
    """Return quantiles of the in-degree in the neighbor table W0.

    Parameters
    ----------
    ids : numpy.ndarray of shape (N, k), integers
        The neighbor table; -1 = none.
    counts : numpy.ndarray of shape (N,), uint32
        How many neighbors each node lists, and how often it is listed, together.

    Returns
    -------
    dict
        For each of the quantiles the smallest in-degree that so many nodes do not exceed, and ``largest``.
    """
    histogram, largest = np.zeros(_MOST + 1, np.int64), 0
    for first in range(0, len(ids), _BLOCK_ROWS):
        rows = slice(first, first + _BLOCK_ROWS)
        listed = counts[rows].astype(np.int64) - (ids[rows] >= 0).sum(axis=1)
        largest = max(largest, int(listed.max(initial=0)))
        histogram += np.bincount(np.minimum(listed, _MOST), minlength=_MOST + 1)
    below = np.cumsum(histogram)
    found = {str(q): int(np.searchsorted(below, q * len(ids))) for q in QUANTILES}
    return found | {"largest": largest}
