"""Symmetrization of a neighbor table, row range by row range (Numba).

An entry on its way is a key: the position of the other node, shifted left by one, and a last bit that tells whether the row lists
it (0) or is listed by it (1). Sorted keys therefore bring both halves of a reciprocal edge side by side. A published entry is the
position with the high bit set where the edge is reciprocal.
"""

from __future__ import annotations

import numba as nb
import numpy as np

RECIPROCAL = np.uint32(1 << 31)
POSITION = np.uint32((1 << 31) - 1)
NOWHERE = np.uint32((1 << 32) - 1)
# rows up to SHORT keys are sorted in buckets, buckets up to FEW keys by insertion
SHORT = 1024
FEW = 24
ROUNDING = 2.0**-22
# what can be wrong with a finished row
SOUND, WRONG_ORDER, WRONG_OFFSETS, OUT_OF_RANGE, NOT_ASCENDING, WRONG_SCALE = range(6)
MISSING, NO_MIRROR, INVENTED, WRONG_BIT, WRONG_WEIGHT = range(6, 11)


@nb.njit(cache=True, nogil=True)
def first_invalid_row(ids, n):
    """Return the first row that holds an id below -1 or not below n, or -1."""
    for i in range(ids.shape[0]):
        for place in range(ids.shape[1]):
            if ids[i, place] < -1 or ids[i, place] >= n:
                return i
    return -1


@nb.njit(cache=True, nogil=True)
def invert(order, out_position):
    """Write the position of each node; return the first position with a node that is none, or there twice, or -1."""
    out_position[:] = NOWHERE
    for p in range(order.shape[0]):
        if order[p] >= order.shape[0] or out_position[order[p]] != NOWHERE:
            return p
        out_position[order[p]] = p
    return -1


@nb.njit(cache=True, nogil=True, parallel=True)
def count_lists(ids, out_counts):
    """Add to ``out_counts`` the length of each list; return the number of pairs (row, neighbor), a repeated one counted once."""
    pairs = 0
    for i in nb.prange(ids.shape[0]):
        for place in range(ids.shape[1]):
            j = ids[i, place]
            if j < 0:
                continue
            repeats = 0
            # no way out of the loop: it is short, and without a branch it is done in vectors
            for earlier in range(place):
                repeats += np.int64(ids[i, earlier] == j)
            out_counts[i] += 1
            pairs += np.int64(repeats == 0)
    return pairs


@nb.njit(cache=True, nogil=True, parallel=True)
def count_listed(ids, bounds, out_counts):
    """Add to ``out_counts`` (N,) how often each node is listed; each part of the nodes is one thread's own."""
    for part in nb.prange(bounds.shape[0] - 1):
        low, high = bounds[part], bounds[part + 1]
        for i in range(ids.shape[0]):
            for place in range(ids.shape[1]):
                j = ids[i, place]
                if low <= j < high:
                    out_counts[j] += 1


@nb.njit(cache=True, nogil=True)
def range_end(counts, order, begin, room, key_bytes, row_bytes):
    """Return the end of the longest row range from ``begin`` whose keys and rows fit in ``room`` bytes (at least one row)."""
    for p in range(begin, order.shape[0]):
        room -= np.int64(counts[order[p]]) * key_bytes + row_bytes
        if room < 0 and p > begin:
            return p
    return order.shape[0]


@nb.njit(cache=True, nogil=True)
def row_starts(counts, order, out_starts):
    """Write where the keys of each row of a range begin into ``out_starts[1:]``; return the number of keys.

    `scatter_keys` moves each start to the end of its row, where the next one starts; then ``out_starts`` begins with row 0.
    """
    start = np.int64(0)
    out_starts[0] = 0
    for row in range(order.shape[0]):
        out_starts[row + 1] = start
        start += counts[order[row]]
    return start


@nb.njit(cache=True, nogil=True, parallel=True)
def look_up(ids, position, out_places):
    """Write the position of each neighbor, or `NOWHERE`: the only random reads of a pass, made once for all threads."""
    for i in nb.prange(ids.shape[0]):
        for place in range(ids.shape[1]):
            j = ids[i, place]
            out_places[i, place] = position[j] if j >= 0 else NOWHERE


@nb.njit(cache=True, nogil=True, parallel=True)
def scatter_keys(places, weights, position, bounds, out_starts, out_keys, out_weights):
    """Put the keys for positions ``bounds[0] .. bounds[-1]`` into their rows; each part of the range is one thread's own.

    ``places`` and ``position`` are those of a block of the table; ``out_starts`` comes from `row_starts`. ``weights`` and
    ``out_weights`` of no columns and no entries stand for constant weights.
    """
    begin = np.int64(bounds[0])
    weighted = weights.shape[1] > 0
    for part in nb.prange(bounds.shape[0] - 1):
        low, rows = np.uint32(bounds[part]), np.uint32(bounds[part + 1] - bounds[part])
        for i in range(places.shape[0]):
            p = position[i]
            # what is below the part turns into a large number
            listing = np.uint32(p - low) < rows
            for place in range(places.shape[1]):
                q = places[i, place]
                if listing and q != NOWHERE:
                    e = out_starts[p - begin + 1]
                    out_keys[e] = q << 1
                    if weighted:
                        out_weights[e] = weights[i, place]
                    out_starts[p - begin + 1] = e + 1
                if np.uint32(q - low) < rows:
                    e = out_starts[q - begin + 1]
                    out_keys[e] = (p << 1) | 1
                    if weighted:
                        out_weights[e] = weights[i, place]
                    out_starts[q - begin + 1] = e + 1


@nb.njit(cache=True, nogil=True)
def _sort_in_heaps(keys):
    """Sort in place by heaps: no scratch, n log n also for a hub, and compiled in a tenth of the time of ``keys.sort()``."""
    n = keys.shape[0]
    for step in range(n // 2 + n - 1):
        building = step < n // 2
        root = n // 2 - 1 - step if building else 0
        end = n if building else n - 1 - (step - n // 2)
        if not building:
            keys[0], keys[end] = keys[end], keys[0]
        value = keys[root]
        child = 2 * root + 1
        while child < end:
            if child + 1 < end and keys[child + 1] > keys[child]:
                child += 1
            if keys[child] <= value:
                break
            keys[root] = keys[child]
            root, child = child, 2 * child + 1
        keys[root] = value


@nb.njit(cache=True, nogil=True)
def _sort_by_insertion(keys):
    for e in range(1, keys.shape[0]):
        value, place = keys[e], e
        while place > 0 and keys[place - 1] > value:
            keys[place] = keys[place - 1]
            place -= 1
        keys[place] = value


@nb.njit(cache=True, nogil=True)
def _sort(keys, scratch, ends):
    """Sort in place: as many buckets of equal width as there are keys, which leaves few keys in most, then bucket by bucket.

    Rows that are longer than ``scratch`` are sorted by heaps; ``ends`` has one entry more than ``scratch``.
    """
    n = keys.shape[0]
    if n < 2 or n > scratch.shape[0]:
        _sort_in_heaps(keys)
        return
    low, high = keys[0], keys[0]
    for e in range(n):
        scratch[e] = keys[e]
        low, high = min(low, keys[e]), max(high, keys[e])
    per_key = n / (np.float64(high - low) + 1.0)
    ends[: n + 1] = 0
    for e in range(n):
        ends[np.int64((scratch[e] - low) * per_key) + 1] += 1
    for bucket in range(n):
        ends[bucket + 1] += ends[bucket]
    for e in range(n):
        bucket = np.int64((scratch[e] - low) * per_key)
        keys[ends[bucket]] = scratch[e]
        ends[bucket] += 1
    start = 0
    for bucket in range(n):
        if ends[bucket] - start > FEW:
            _sort_in_heaps(keys[start : ends[bucket]])
        elif ends[bucket] - start > 1:
            _sort_by_insertion(keys[start : ends[bucket]])
        start = ends[bucket]


@nb.njit(cache=True, nogil=True)
def _merge_row(keys, out):
    """Turn the sorted keys of one row into its entries; return their number and the row sum (reciprocal edges count 2)."""
    length, total = 0, 0
    previous = np.int64(-1)
    for e in range(keys.shape[0]):
        key = np.int64(keys[e])
        if key == previous:
            continue
        if length > 0 and (key >> 1) == (previous >> 1):
            out[length - 1] |= RECIPROCAL
        else:
            out[length] = np.uint32(key >> 1)
            length += 1
        total += 1
        previous = key
    return length, total


@nb.njit(cache=True, nogil=True)
def _merge_weighted_row(keys, weights, out, out_weights):
    """Do the same for a weighted row: both directions of an edge are added; a repeated neighbor counts at its first place."""
    turn = np.argsort(keys, kind="mergesort")
    keys, weights = keys[turn], weights[turn]
    length = 0
    total = 0.0
    previous = np.int64(-1)
    for e in range(keys.shape[0]):
        key = np.int64(keys[e])
        if key == previous:
            continue
        if length > 0 and (key >> 1) == (previous >> 1):
            out[length - 1] |= RECIPROCAL
            out_weights[length - 1] += weights[e]
        else:
            out[length] = np.uint32(key >> 1)
            out_weights[length] = weights[e]
            length += 1
        total += weights[e]
        previous = key
    return length, total


@nb.njit(cache=True, nogil=True, parallel=True)
def merge_rows(bounds, starts, keys, out_lengths, out_scale, out_ends):
    """Sort and merge the rows of each part, in place and packed: its ``keys`` become entries up to ``out_ends[part]``.

    Besides comes, for each row, its length and 1 / row sum (0 for an empty row).
    """
    for part in nb.prange(bounds.shape[0] - 1):
        scratch, ends = np.empty(SHORT, np.uint32), np.empty(SHORT + 1, np.int32)
        end = starts[bounds[part]]
        for row in range(bounds[part], bounds[part + 1]):
            a, b = starts[row], starts[row + 1]
            _sort(keys[a:b], scratch, ends)
            length, total = _merge_row(keys[a:b], keys[end:b])
            end += length
            out_lengths[row] = length
            out_scale[row] = 1.0 / total if total > 0 else 0.0
        out_ends[part] = end


@nb.njit(cache=True, nogil=True, parallel=True)
def merge_weighted_rows(bounds, starts, keys, weights, out_lengths, out_scale, out_ends):
    """Do the same with weights, also in place; a kernel of its own, because compiling it takes long."""
    for part in nb.prange(bounds.shape[0] - 1):
        end = starts[bounds[part]]
        for row in range(bounds[part], bounds[part + 1]):
            a, b = starts[row], starts[row + 1]
            length, total = _merge_weighted_row(keys[a:b], weights[a:b], keys[end:b], weights[end:b])
            end += length
            out_lengths[row] = length
            out_scale[row] = 1.0 / total if total > 0 else 0.0
        out_ends[part] = end


@nb.njit(cache=True, nogil=True)
def _row_fault(entries, weights, weighted, scale, n):
    """Return what is wrong with a row, and how many halves of edges it holds: two in a reciprocal entry."""
    halves, total = 0, 0.0
    previous = np.int64(-1)
    for e in range(entries.shape[0]):
        q = np.int64(entries[e] & POSITION)
        if q >= n:
            return OUT_OF_RANGE, 0
        if q <= previous:
            return NOT_ASCENDING, 0
        previous = q
        halves += 1 + np.int64(entries[e] >> 31)
        if weighted:
            total += weights[e]
    if not weighted:
        total = np.float64(halves)
    expected = 1.0 / total if total > 0 else 0.0
    # two roundings to float32: of the weights, and of the scale; written so that NaN is a fault
    if not abs(scale - expected) <= ROUNDING * expected:
        return WRONG_SCALE, 0
    return SOUND, halves


@nb.njit(cache=True, nogil=True, parallel=True)
def check_rows(bounds, order, position, indptr, indices, weights, row_scale, out_rows, out_faults, out_halves):
    """Check each row by itself; write for each part its first faulty row, the fault (or `SOUND`) and its halves of edges."""
    n, nnz = order.shape[0], indices.shape[0]
    for part in nb.prange(bounds.shape[0] - 1):
        out_faults[part], out_halves[part] = SOUND, 0
        for p in range(bounds[part], bounds[part + 1]):
            a, b = indptr[p], indptr[p + 1]
            fault, halves = SOUND, 0
            if order[p] >= n or position[order[p]] != p:
                fault = WRONG_ORDER
            elif a < 0 or b < a or b > nnz:
                fault = WRONG_OFFSETS
            else:
                fault, halves = _row_fault(indices[a:b], weights[a:b], weights.shape[0] > 0, row_scale[p], n)
            out_halves[part] += halves
            if fault != SOUND:
                out_rows[part], out_faults[part] = p, fault
                break


@nb.njit(cache=True, nogil=True)
def _find(indices, low, high, q):
    """Return where between ``low`` and ``high`` the entry of position q stands, or -1."""
    while low < high:
        middle = (low + high) // 2
        found = np.int64(indices[middle] & POSITION)
        if found == q:
            return middle
        if found < q:
            low = middle + 1
        else:
            high = middle
    return np.int64(-1)


@nb.njit(cache=True, nogil=True)
def _place(neighbors, j):
    """Return the first place of an id in a list, or -1."""
    for place in range(neighbors.shape[0]):
        if neighbors[place] == j:
            return place
    return -1


@nb.njit(cache=True, nogil=True)
def _entry_fault(e, p, mutual, ids, table_weights, order, indptr, indices, weights):
    """Compare an entry of row p with its mirror and with the lists of both of its nodes."""
    q = np.int64(indices[e] & POSITION)
    mirror = _find(indices, indptr[q], indptr[q + 1], p)
    if mirror < 0:
        return NO_MIRROR
    i, j = np.int64(order[p]), np.int64(order[q])
    lists, listed = _place(ids[i], j), _place(ids[j], i)
    if (lists < 0 and listed < 0) or (mutual and (lists < 0 or listed < 0)):
        return INVENTED
    reciprocal = np.uint32(lists >= 0 and listed >= 0)
    if indices[e] >> 31 != reciprocal or indices[mirror] >> 31 != reciprocal:
        return WRONG_BIT
    if weights.shape[0] > 0:
        weight = np.float32(0)
        if lists >= 0:
            weight += np.float32(table_weights[i, lists])
        if listed >= 0:
            weight += np.float32(table_weights[j, listed])
        if weights[e] != np.float32(weight) or weights[mirror] != weights[e]:
            return WRONG_WEIGHT
    return SOUND


@nb.njit(cache=True, nogil=True)
def check_edges(rows, most_entries, mutual, ids, table_weights, order, position, indptr, indices, weights):
    """Compare rows with the neighbor table; return the first faulty one and its fault.

    The rows must have passed `check_rows`; of a long one some ``most_entries`` entries are compared. In a ``mutual`` graph
    both ends must list each other. ``table_weights`` and ``weights`` of no columns and no entries stand for constant weights.
    """
    for p in rows:
        a, b = indptr[p], indptr[p + 1]
        neighbors = ids[np.int64(order[p])]
        for place in range(neighbors.shape[0]):
            j = neighbors[place]
            if mutual and j >= 0 and _place(ids[j], np.int64(order[p])) < 0:
                continue
            if j >= 0 and _find(indices, a, b, np.int64(position[j])) < 0:
                return p, MISSING
        for e in range(a, b, 1 + (b - a) // most_entries):
            fault = _entry_fault(e, p, mutual, ids, table_weights, order, indptr, indices, weights)
            if fault != SOUND:
                return p, fault
    return np.int64(-1), SOUND
