"""Rows in another order, range after range."""

import numpy as np
import pytest

from ooc_diffusion.neighbors import inverse, permute, permuted

N = 101


@pytest.mark.parametrize("rows", [1, N - 1, N, N + 1])
@pytest.mark.parametrize("memory_bytes", [0, 24 * 10, 24 * (N - 1), 24 * N, 2**30])
@pytest.mark.parametrize("start", [0, 40, N])
def test_rows_come_in_the_order_asked_for(monkeypatch, rows, memory_bytes, start):
    monkeypatch.setattr(permute, "BLOCK_ROWS", rows)
    rng = np.random.default_rng(0)
    source, order = rng.normal(size=(N, 6)).astype(np.float32), rng.permutation(N).astype(np.uint32)
    blocks = [block.copy() for block in permuted(source, inverse(order), memory_bytes=memory_bytes, start=start)]
    assert all(block.nbytes <= max(24, memory_bytes) for block in blocks)
    np.testing.assert_array_equal(np.concatenate([source[:0], *blocks]), source[order][start:])


@pytest.mark.parametrize(("given", "wanted"), [("f4", "f2"), ("f2", "f2"), ("f2", "f4"), ("i4", "i4"), ("u1", "u1")])
def test_types(given, wanted):
    source, order = np.arange(60).reshape(20, 3).astype(given), np.random.default_rng(1).permutation(20).astype(np.uint32)
    (block,) = permuted(source, inverse(order), memory_bytes=2**20, dtype=wanted)
    assert block.dtype == wanted
    np.testing.assert_array_equal(block, source[order])


def test_one_dimension():
    source, order = np.arange(20, dtype=np.float32), np.random.default_rng(1).permutation(20).astype(np.uint32)
    blocks = [block.copy() for block in permuted(source, inverse(order), memory_bytes=12)]
    np.testing.assert_array_equal(np.concatenate(blocks), source[order])
