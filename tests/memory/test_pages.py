"""Arrays in huge pages."""

import numpy as np

from ooc_diffusion.memory import anonymous_bytes, pages


def test_an_array_is_in_memory_at_once_and_given_back():
    size = 2**26 + 4096
    before = anonymous_bytes()
    array = pages.allocate(size)
    assert array.shape == (size,)
    assert array.ctypes.data % pages.PAGE_BYTES == 0
    array[:] = 7
    held = anonymous_bytes() - before
    assert size <= held < size + 3 * pages.PAGE_BYTES
    # whether pages could be moved is the system's business; what they hold is not
    assert 0 <= pages.collapse(array[3:].view(np.int8)) <= size // pages.PAGE_BYTES + 1
    assert array.min() == array.max() == 7  # without an array of flags, which the allocator may keep
    del array
    assert anonymous_bytes() - before < pages.PAGE_BYTES * 4


def test_an_array_of_another_kind_is_left_alone():
    assert pages.collapse(np.zeros(5)) == 0
