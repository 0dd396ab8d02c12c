"""Run products whose arrays end where a page begins that may not be touched: ``python -m tests.diffusion.guarded``.

Each case is printed before it runs, so that the last line names the one that ended the process.
"""

import ctypes
import itertools
import mmap

import numpy as np

from ooc_diffusion.diffusion import kernels, sparse_kernels
from ooc_diffusion.diffusion.precision import ELEMENTS, widened
from tests.reference import naive_bfloat16

PROT_NONE = 0
LIBC = ctypes.CDLL(None, use_errno=True)
COLUMNS = (1, 3, 4, 7, 8, 33, 64)
# 70 rows, some empty, the last ones among them or not; none, few or many entries in the last one that has some
DEGREES = {
    "long last row": [3, 0, 40, *[5] * 66, 33],
    "short last rows": [64, *[0, 1] * 34, 1],
    "empty last rows": [*[9] * 60, *[0] * 10],
    "fewer entries than are looked ahead": [*[0] * 40, 7, *[0] * 20, 24, *[0] * 8],
}
ROWS = {
    "dense": np.arange(70),
    "masked": np.array([0, 2, 3, 40, 41, 61, 68, 69]),
    "masked, without the last": np.array([1, 2, 59, 66]),
    "one row": np.array([69]),
}
HELD = []


def guarded(values):
    """Return a copy of an array whose last byte lies before a page that nobody may touch."""
    values = np.ascontiguousarray(values)
    size = -(-values.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, size + mmap.PAGESIZE)
    HELD.append(pages)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    if LIBC.mprotect(ctypes.c_void_p(address + size), ctypes.c_size_t(mmap.PAGESIZE), PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")
    copy = np.frombuffer(pages, np.uint8, values.nbytes, size - values.nbytes).view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def naive(indptr, indices, weights, scale, L):
    """Sums of all rows in float64, entry after entry, scaled and rounded to float32."""
    sums, L = np.zeros(L.shape), L.astype(np.float64)
    for i in range(len(sums)):
        for e in range(indptr[i], indptr[i + 1]):
            weight = float(weights[e]) if len(weights) else 1.0 + float(indices[e] >> 31)
            sums[i] += weight * L[indices[e] & kernels.POSITION]
    return (sums * scale[:, None].astype(np.float64)).astype(np.float32)


def make(degrees, columns, weighted, precision, rng):
    """Return (indptr, indices, weights), scale and L, and W L."""
    n, indptr = len(degrees), np.concatenate([[0], np.cumsum(degrees)])
    indices = rng.integers(0, n, indptr[-1]).astype(np.uint32)
    indices = np.concatenate([np.sort(part) for part in np.split(indices, indptr[1:-1])])
    indices[rng.random(len(indices)) < 0.3] |= np.uint32(1 << 31)
    indices[-1] = (n - 1) | (indices[-1] & np.uint32(1 << 31))
    L = rng.uniform(0, 1, (n, columns)).astype(np.float32)
    L = L if precision == "float32" else (L.view(np.uint32) >> 16).astype(np.uint16)
    weights = rng.uniform(0.5, 2, len(indices) if weighted else 0).astype(np.float32)
    scale = rng.uniform(0.1, 1, n).astype(np.float32)
    expected = naive(indptr, indices, weights, scale, widened(L))
    expected = expected if precision == "float32" else naive_bfloat16(expected).astype(np.float32)
    return (indptr, indices, weights), scale, L, expected


def run(rows, entries, scale, L, expected):
    """Compare each kernel with the loops on some rows."""
    n, columns = L.shape
    indptr, weighted = entries[0], len(entries[2]) > 0
    entries = tuple(guarded(array) for array in entries)
    rows, scale, L, bounds = (guarded(array) for array in (rows, scale, L, np.array([0, len(rows) // 2, len(rows)])))
    expected, out = expected[rows], guarded(np.empty((len(rows), columns), L.dtype))
    if weighted:
        kernels.multiply_weighted(bounds, rows, *entries, scale, L, out)
    else:
        kernels.multiply(bounds, rows, *entries[:2], scale, L, out)
    assert widened(out).tobytes() == expected.tobytes()

    bits = np.uint64(4)
    counts = np.concatenate([[0], np.cumsum(np.diff(indptr)[rows])])
    segments = ((n - 1) >> 4) + 1
    ends, starts = np.empty((2, segments), np.int64), guarded(np.empty((len(rows), segments), np.uint32))
    ordered = guarded(np.empty(counts[-1], np.uint32)), guarded(np.empty(counts[-1] if weighted else 0, np.float32))
    sums = guarded(np.empty((len(rows), columns)))
    out[...] = 0
    kernels.multiply_by_segments(bounds, counts[bounds], rows, entries, scale, bits, L, ends, starts, ordered, sums, out)
    assert widened(out).tobytes() == expected.tobytes()

    pairs = np.stack([widened(L).ravel(), np.tile(np.arange(columns, dtype=np.float32), n)], axis=1)
    row_starts = guarded((columns * np.arange(n + 1)).astype(np.uint32))
    out[...] = 0
    sparse_kernels.multiply_sparse(bounds, rows, entries, scale, row_starts, guarded(pairs), out)
    assert widened(out).tobytes() == expected.tobytes()


def main():
    rng = np.random.default_rng(0)
    for precision, weighted, columns, name in itertools.product(ELEMENTS, (False, True), COLUMNS, DEGREES):
        made = make(DEGREES[name], columns, weighted, precision, rng)
        for which, rows in ROWS.items():
            print(precision, "weighted" if weighted else "plain", columns, name, which, sep=", ", flush=True)
            run(rows, *made)
        HELD.clear()
    print("all done")


if __name__ == "__main__":
    main()
