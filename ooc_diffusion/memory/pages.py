"""Large arrays in huge pages: rows that are read at random are found several times as fast.

The system gives huge pages where it finds 2 MiB in one piece, which its own cache of files breaks up in the course of time.
"""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

PAGE_BYTES = 2 * 2**20
# MADV_COLLAPSE of Linux 6.1, which `mmap` has no name for: move a range into a huge page now; elsewhere it is refused.
_COLLAPSE = 25


def allocate(n_bytes: int) -> np.ndarray:
    """Return an array of bytes of anything, in huge pages as far as the system has them, from the beginning of one on.

    It takes up to `PAGE_BYTES` more, and is in memory when it is returned: unlike what `numpy.empty` does, which leaves that to
    whoever writes first.
    """
    held = mmap.mmap(-1, n_bytes + PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # a system without huge pages
        held.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(held, np.uint8)
    first = -whole.ctypes.data % PAGE_BYTES
    array = whole[first : first + n_bytes]
    array[::PAGE_BYTES] = 0
    collapse(array)
    return array


def collapse(array: np.ndarray) -> int:
    """Move what lies in small pages, of an array made by `allocate`, into huge ones; return how many pages stayed small.

    Takes some microseconds per page that is huge already. What failed may succeed later.
    """
    held = _mapping(array)
    if held is None:
        return 0
    first = -np.frombuffer(held, np.uint8).ctypes.data % PAGE_BYTES
    small = 0
    for begin in range(first, len(held) - PAGE_BYTES + 1, PAGE_BYTES):
        try:
            held.madvise(_COLLAPSE, begin, PAGE_BYTES)
        except OSError:
            small += 1
    return small


def _mapping(array: np.ndarray) -> mmap.mmap | None:
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    return owner if isinstance(owner, mmap.mmap) else None
