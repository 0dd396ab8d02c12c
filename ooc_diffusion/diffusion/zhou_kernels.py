"""Sums and combinations of whole iterates, column by column, for Zhou's diffusion (Numba).

Each column is computed from itself alone, in an order that is fixed: neither threads nor the columns beside it change a bit.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from .kernels import SUM_ROWS


@nb.njit(cache=True, nogil=True)
def _degree(scale):
    """Return the row sum D of a node from 1 / D; a node without edges counts as one of 1."""
    return 1.0 / np.float64(scale) if scale > 0 else 1.0


@nb.njit(cache=True, nogil=True, parallel=True)
def weighted_dots(A, B, row_scale, partial, out):
    """Sum ``A * B * D`` of each column in float64, per block of 8192 rows into ``partial``, then block after block."""
    for block in nb.prange(partial.shape[0]):
        partial[block, :] = 0.0
        for i in range(block * SUM_ROWS, min((block + 1) * SUM_ROWS, A.shape[0])):
            degree = _degree(row_scale[i])
            for c in range(A.shape[1]):
                partial[block, c] += degree * np.float64(A[i, c]) * np.float64(B[i, c])
    out[:] = 0.0
    for block in range(partial.shape[0]):
        for c in range(out.shape[0]):
            out[c] += partial[block, c]


@nb.njit(cache=True, nogil=True, parallel=True)
def largest_ratios(R, X, row_scale, least, partial, out):
    """Find the largest ``|R| / X`` of each column: at most 1, which stands for an entry of X of 0 and below, too.

    Entries with ``R² D`` of at most ``least``, one for each column, are left out.
    """
    for block in nb.prange(partial.shape[0]):
        partial[block, :] = 0.0
        for i in range(block * SUM_ROWS, min((block + 1) * SUM_ROWS, R.shape[0])):
            degree = _degree(row_scale[i])
            for c in range(R.shape[1]):
                r = abs(np.float64(R[i, c]))
                if degree * r * r > least[c]:
                    x = np.float64(X[i, c])
                    partial[block, c] = max(partial[block, c], r / x if r < x else 1.0)
    for c in range(out.shape[0]):
        out[c] = partial[:, c].max()


@nb.njit(cache=True, nogil=True, parallel=True)
def add_scaled(A, factors, out):
    """Add ``factors * A`` to ``out``, a factor for each column."""
    for i in nb.prange(A.shape[0]):
        for c in range(A.shape[1]):
            out[i, c] = out[i, c] + factors[c] * A[i, c]


@nb.njit(cache=True, nogil=True, parallel=True)
def scale_and_add(A, factors, out):
    """Write ``A + factors * out``, a factor for each column."""
    for i in nb.prange(A.shape[0]):
        for c in range(A.shape[1]):
            out[i, c] = A[i, c] + factors[c] * out[i, c]


@nb.njit(cache=True, nogil=True, parallel=True)
def unscale_rows(M, row_scale, out):
    """Write ``L = D^(1/2) M``."""
    for i in nb.prange(M.shape[0]):
        root = math.sqrt(_degree(row_scale[i]))
        for c in range(M.shape[1]):
            out[i, c] = root * M[i, c]
