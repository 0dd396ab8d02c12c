"""The product L ← W L for columns of which only the entries that are not zero are held, by column or by row (Numba).

Either way entries have the bytes of the dense product: see `kernels`.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ..bits import lowest_bit
from .kernels import PIECE, POSITION
from .registers import fetch_row, narrow, widen

NO_POSITION = np.uint32((1 << 32) - 1)
SPREAD_ROWS = 4096
# Entries ahead of which rows of a sparse L are fetched: where they begin, and then themselves.
STARTS_AHEAD = 32
PAIRS_AHEAD = 16


@nb.njit(cache=True, nogil=True)
def count_sent(starts, positions, indptr, out):
    """Write for each sparse column how many entries of W its values are sent along."""
    for c in range(starts.shape[0] - 1):
        out[c] = 0
        for s in range(starts[c], starts[c + 1]):
            out[c] += indptr[positions[s] + 1] - indptr[positions[s]]


@nb.njit(cache=True, nogil=True)
def mark_pieces(first, end, starts, positions, indptr, out):
    """Set ``out`` for every piece of `PIECE` entries of W that holds some of the rows ``first`` to ``end`` of sparse columns."""
    for c in range(starts.shape[0] - 1):
        s = starts[c] + np.searchsorted(positions[starts[c] : starts[c + 1]], np.uint32(first))
        while s < starts[c + 1] and positions[s] < end:
            row = positions[s] - first
            s += 1
            for piece in range((indptr[row] - indptr[0]) // PIECE, (indptr[row + 1] - indptr[0] + PIECE - 1) // PIECE):
                out[piece] = True


@nb.njit(cache=True, nogil=True, parallel=True)
def send(first, end, columns, block, wanted, limits, workers, cursors, out_ends, out_targets, out_products):
    """Append what the entries of sparse columns in the rows ``first`` to ``end`` send along the edges of these rows.

    S is symmetric, so the row of a node holds the weights with which its neighbors count it. ``columns`` is (starts, positions,
    values), ``block`` (indptr, indices, weights) of the rows; ``cursors`` (C,) moves through the entries. Records of a target and
    weight times value go to column c from ``out_ends[c]`` on; a column that reaches ``limits[c]`` is left at ``limits[c] + 1``.
    ``wanted`` are the targets that count, as bits (N / 8,); of no length: all.
    """
    starts, positions, values = columns
    indptr, indices, weights = block
    for worker in nb.prange(workers):
        for c in range(worker, starts.shape[0] - 1, workers):
            s, at = cursors[c], out_ends[c]
            while s < starts[c + 1] and positions[s] < end:
                row, value = positions[s] - first, np.float64(values[s])
                a, b = indptr[row] - indptr[0], indptr[row + 1] - indptr[0]
                if at + b - a > limits[c]:
                    at = limits[c] + 1
                    break
                for e in range(a, b):
                    target = indices[e] & POSITION
                    times = np.float64(weights[e]) if weights.shape[0] > 0 else 1.0 + np.float64(indices[e] >> 31)
                    out_targets[at] = target
                    out_products[at] = times * value
                    at += 1 if wanted.shape[0] == 0 else np.int64(wanted[target >> 3] >> (7 - (target & 7)) & 1)
                s += 1
            cursors[c], out_ends[c] = s, at


@nb.njit(cache=True, nogil=True)
def _partition(targets, products, bits, ends, out_targets, out_products):
    """Bring records into the order of their ranges of 2^bits targets, records of one range in the order they had."""
    ends[:] = 0
    for r in range(targets.shape[0]):
        ends[targets[r] >> bits] += 1
    total = 0
    for place in range(ends.shape[0]):
        total, ends[place] = total + ends[place], total
    for r in range(targets.shape[0]):
        place = targets[r] >> bits
        out_targets[ends[place]] = targets[r]
        out_products[ends[place]] = products[r]
        ends[place] += 1


@nb.njit(cache=True, nogil=True)
def _add_range(first, targets, products, row_scale, like, total, touched, at, out_targets, out_values):
    """Add up the records of the targets from ``first`` on and append the sums, ascending, from ``at`` on; return their end."""
    for r in range(targets.shape[0]):
        p = targets[r] - first
        total[p] += products[r]
        touched[p >> 6] |= np.uint64(1) << np.uint64(p & 63)
    for word in range(touched.shape[0] if targets.shape[0] > 0 else 0):
        bits = touched[word]
        while bits != 0:
            p = (word << 6) + lowest_bit(bits)
            bits &= bits - np.uint64(1)
            out_targets[at] = first + p
            out_values[at] = widen(narrow(total[p] * row_scale[first + p], like))
            total[p] = 0.0
            at += 1
        touched[word] = 0
    return at


@nb.njit(cache=True, nogil=True, parallel=True)
def add_up(starts, ends, records, row_scale, like, bits, scratch, total, touched, out_counts, out_targets, out_values):
    """Add up the records from ``starts[c]`` to ``ends[c]`` of each column c, in their order, for each target.

    ``records`` is (targets, products). The sums times ``row_scale``, rounded to entries of ``like``, go, by ascending target,
    from ``starts[c]`` on, ``out_counts[c]`` of them, also over the records. Ranges of 2^bits targets are added up in cache:
    ``total`` (workers, 2^bits) and ``touched`` (workers, 2^bits / 64) are zero before and after; ``scratch`` is (ends of ranges,
    targets, products), a row for each worker.
    """
    targets, products = records
    for worker in nb.prange(total.shape[0]):
        range_ends, own_targets, own_products = scratch[0][worker], scratch[1][worker], scratch[2][worker]
        for c in range(worker, starts.shape[0], total.shape[0]):
            _partition(targets[starts[c] : ends[c]], products[starts[c] : ends[c]], bits, range_ends, own_targets, own_products)
            begin, at = 0, starts[c]
            for place in range(range_ends.shape[0]):
                some = slice(begin, range_ends[place])
                begin = range_ends[place]
                at = _add_range(
                    place << bits,
                    own_targets[some],
                    own_products[some],
                    row_scale,
                    like,
                    total[worker],
                    touched[worker],
                    at,
                    out_targets,
                    out_values,
                )
            out_counts[c] = at - starts[c]


@nb.njit(cache=True, nogil=True)
def pack(starts, counts, out_positions, out_values):
    """Move the ``counts[c]`` entries of each column from ``starts[c]`` forward until they follow each other."""
    end = 0
    for c in range(starts.shape[0]):
        for s in range(starts[c], starts[c] + counts[c]):
            out_positions[end], out_values[end] = out_positions[s], out_values[s]
            end += 1


@nb.njit(cache=True, nogil=True, parallel=True)
def spread(starts, positions, values, first, out):
    """Write sparse columns into the columns of ``out`` (N, C) from ``first`` on, by blocks of rows that stay in cache."""
    for block in nb.prange((out.shape[0] + SPREAD_ROWS - 1) // SPREAD_ROWS):
        begin, end = block * SPREAD_ROWS, min((block + 1) * SPREAD_ROWS, out.shape[0])
        out[begin:end, first : first + starts.shape[0] - 1] = 0
        for c in range(starts.shape[0] - 1):
            s = starts[c] + np.searchsorted(positions[starts[c] : starts[c + 1]], np.uint32(begin))
            while s < starts[c + 1] and positions[s] < end:
                out[positions[s], first + c] = narrow(values[s], out)
                s += 1


@nb.njit(cache=True, nogil=True, parallel=True)
def count_in_rows(starts, positions, out):
    """Count the entries of sparse columns in each row, uint32 (N,), by blocks of rows that stay in cache."""
    for block in nb.prange((out.shape[0] + SPREAD_ROWS - 1) // SPREAD_ROWS):
        begin, end = block * SPREAD_ROWS, min((block + 1) * SPREAD_ROWS, out.shape[0])
        out[begin:end] = np.uint32(0)
        for c in range(starts.shape[0] - 1):
            s = starts[c] + np.searchsorted(positions[starts[c] : starts[c + 1]], np.uint32(begin))
            while s < starts[c + 1] and positions[s] < end:
                out[positions[s]] += np.uint32(1)
                s += 1


@nb.njit(cache=True, nogil=True)
def add_before(counts):
    """Replace each count by the sum of those before it, in place; the last becomes the sum of all but itself."""
    total = np.uint32(0)
    for i in range(counts.shape[0]):
        counts[i], total = total, np.uint32(total + counts[i])


@nb.njit(cache=True, nogil=True, parallel=True)
def put_in_rows(starts, positions, values, row_starts, out):
    """Write the entries of sparse columns, row by row, as pairs of value and column (float32), to ``out`` (entries, 2)."""
    n_rows = row_starts.shape[0] - 1
    for block in nb.prange((n_rows + SPREAD_ROWS - 1) // SPREAD_ROWS):
        begin, end = block * SPREAD_ROWS, min((block + 1) * SPREAD_ROWS, n_rows)
        filled = np.zeros(end - begin, np.uint32)
        for c in range(starts.shape[0] - 1):
            s = starts[c] + np.searchsorted(positions[starts[c] : starts[c + 1]], np.uint32(begin))
            while s < starts[c + 1] and positions[s] < end:
                place = np.uint64(row_starts[positions[s]] + filled[positions[s] - begin])
                out[place, 0], out[place, 1] = values[s], np.float32(c)
                filled[positions[s] - begin] += np.uint32(1)
                s += 1


@nb.njit(cache=True, nogil=True, parallel=True)
def multiply_sparse(bounds, rows, block, row_scale, row_starts, pairs, out):
    """Do the same as `multiply` for an L given by the entries of its rows that are not zero, as `put_in_rows` writes them.

    ``block`` is (indptr, indices, weights).
    """
    indptr, indices, weights = block
    last = indices.shape[0] - 1
    for part in nb.prange(bounds.shape[0] - 1):
        total = np.zeros(out.shape[1], np.float64)
        for k in range(bounds[part], bounds[part + 1]):
            i = rows[k]
            total[:] = 0.0
            for e in range(indptr[i] - indptr[0], indptr[i + 1] - indptr[0]):
                fetch_row(row_starts, indices[min(e + STARTS_AHEAD, last)])
                fetch_row(pairs, row_starts[indices[min(e + PAIRS_AHEAD, last)] & POSITION])
                j = np.uint64(indices[e] & POSITION)
                weight = np.float64(weights[e]) if weights.shape[0] > 0 else 1.0 + np.float64(indices[e] >> 31)
                for s in range(np.uint64(row_starts[j]), np.uint64(row_starts[j + np.uint64(1)])):
                    total[np.uint64(pairs[s, 1])] += weight * pairs[s, 0]
            for c in range(out.shape[1]):
                out[k, c] = narrow(total[c] * row_scale[i], out)


@nb.njit(cache=True, nogil=True, parallel=True)
def find_following(cursors, ends, indices, out):
    """Write the position of the neighbor at each cursor, uint32; `NO_POSITION` at the end of a row."""
    for r in nb.prange(out.shape[0]):
        out[r] = indices[cursors[r]] & POSITION if cursors[r] < ends[r] else NO_POSITION


@nb.njit(cache=True, nogil=True, parallel=True)
def take_rows(bounds, cursors, ends, following, entries, first, places, L, out):
    """Add to sums what the neighbors contribute of which rows of L are at hand, those from position ``first`` on.

    The row of the neighbor at position p is ``L[places[p - first]]``. Sum r is over ``entries``, (indices, weights), up to
    ``ends[r]``; ``cursors[r]`` moves through them, ascending, and ``following`` with it, as `find_following` writes it: most sums
    take none of few rows, and that is seen there at once. ``bounds`` cuts the sums into parts.
    """
    indices, weights = entries
    end = first + places.shape[0]
    for part in nb.prange(bounds.shape[0] - 1):
        for r in range(bounds[part], bounds[part + 1]):
            if np.int64(following[r]) >= end:
                continue
            e, position = cursors[r], np.int64(following[r])
            while position < end:
                k = places[position - first]
                weight = np.float64(weights[e]) if weights.shape[0] > 0 else 1.0 + np.float64(indices[e] >> 31)
                for c in range(out.shape[1]):
                    out[r, c] += weight * widen(L[k, c])
                e += 1
                position = np.int64(indices[e] & POSITION if e < ends[r] else NO_POSITION)
            cursors[r], following[r] = e, position


@nb.njit(cache=True, nogil=True, parallel=True)
def scale_rows(sums, positions, row_scale, out):
    """Write sums times the scales of their rows, which lie at ``positions``, as entries of ``out``, of the same shape."""
    for r in nb.prange(sums.shape[0]):
        for c in range(sums.shape[1]):
            out[r, c] = narrow(sums[r, c] * row_scale[positions[r]], out)
