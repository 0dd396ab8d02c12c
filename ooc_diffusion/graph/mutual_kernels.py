"""Leaving out the edges that one end alone lists (Numba)."""

from __future__ import annotations

import numba as nb
import numpy as np

from .kernels import RECIPROCAL


@nb.njit(cache=True, nogil=True, parallel=True)
def keep_mutual(bounds, starts, keys, weights, lengths, scale, one_way, ends):
    """Keep the reciprocal entries of merged rows, in place and packed, with their ``lengths``, ``scale`` and ``ends``.

    All are as `kernels.merge_rows` (without ``weights``) or `kernels.merge_weighted_rows` left them; ``one_way`` gets how many
    entries of each row are left out.
    """
    for part in nb.prange(bounds.shape[0] - 1):
        end = e = starts[bounds[part]]
        for row in range(bounds[part], bounds[part + 1]):
            total, before, after = 0.0, end, e + lengths[row]
            while e < after:
                if keys[e] & RECIPROCAL:
                    keys[end] = keys[e]
                    if weights.shape[0] > 0:
                        weights[end] = weights[e]
                        total += np.float64(weights[e])
                    else:
                        total += 2.0
                    end += 1
                e += 1
            one_way[row] = lengths[row] - (end - before)
            lengths[row] = end - before
            scale[row] = 1.0 / total if total > 0 else 0.0
        ends[part] = end
