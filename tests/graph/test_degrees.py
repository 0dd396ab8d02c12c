"""Quantiles of the in-degree against a count."""

import numpy as np
import pytest

from ooc_diffusion.graph import build_graph, degrees
from ooc_diffusion.store import Store


def naive_in_degrees(ids):
    listed = np.bincount(ids[ids >= 0], minlength=len(ids))
    ordered = np.sort(listed)
    at = {str(q): int(ordered[max(0, int(np.ceil(q * len(ids))) - 1)]) for q in degrees.QUANTILES}
    return at | {"largest": int(listed.max())}


@pytest.mark.parametrize("rows", [1, 999, 1000, 1001])
def test_quantiles(monkeypatch, rows):
    monkeypatch.setattr(degrees, "_BLOCK_ROWS", rows)
    rng = np.random.default_rng(0)
    ids = np.minimum(rng.integers(0, 1000, (1000, 6)), rng.integers(0, 1000, (1000, 6)))
    ids[rng.random(ids.shape) < 0.1] = -1
    ids[:, 5] = 7
    counts = (np.bincount(ids[ids >= 0], minlength=1000) + (ids >= 0).sum(axis=1)).astype(np.uint32)
    assert degrees.in_degrees(ids, counts) == naive_in_degrees(ids)


def test_more_than_is_told_apart(monkeypatch):
    monkeypatch.setattr(degrees, "_MOST", 3)
    ids = np.zeros((10, 1), np.int64)
    counts = np.ones(10, np.uint32)
    counts[0] += 10
    assert degrees.in_degrees(ids, counts) == {"0.5": 0, "0.9": 0, "0.99": 3, "0.999": 3, "largest": 10}


def test_the_record_of_a_graph_tells_them(tmp_path):
    ids = np.random.default_rng(1).integers(0, 50, (50, 4))
    build_graph(ids, store=tmp_path / "s")
    assert Store(tmp_path / "s").record("graph")["in_degree"] == naive_in_degrees(ids)
