"""Merging lists of neighbors (Numba)."""

from __future__ import annotations

import numba as nb


@nb.njit(cache=True, nogil=True, parallel=True)
def merge_lists(ids_a, similarities_a, ids_b, similarities_b, out_ids, out_similarities):
    """Merge two lists per row, each by decreasing similarity with -1 = none, and keep the best; the first wins ties."""
    for row in nb.prange(out_ids.shape[0]):
        a, b = 0, 0
        for place in range(out_ids.shape[1]):
            while a < ids_a.shape[1] and ids_a[row, a] < 0:
                a += 1
            while b < ids_b.shape[1] and ids_b[row, b] < 0:
                b += 1
            has_a, has_b = a < ids_a.shape[1], b < ids_b.shape[1]
            if has_a and (not has_b or similarities_a[row, a] >= similarities_b[row, b]):
                out_ids[row, place] = ids_a[row, a]
                out_similarities[row, place] = similarities_a[row, a]
                a += 1
            elif has_b:
                out_ids[row, place] = ids_b[row, b]
                out_similarities[row, place] = similarities_b[row, b]
                b += 1
            else:
                out_ids[row, place] = -1
                out_similarities[row, place] = -1e30
