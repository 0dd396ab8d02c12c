"""The progress of a search counts what is done: searches, and assignments to lists where there are lists."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce

from .low_shot_chain import QUICK


@pytest.mark.parametrize(
    ("n", "table", "total", "unit"),
    [
        (60, False, 60, "searches"),
        (60, True, 60, "rows of the table"),
        (4200, False, 8400, "assignments and searches"),
        (4200, True, 8400, "assignments and rows of the table"),
    ],
)
def test_every_unit_of_the_progress_is_done_once(tmp_path, n, table, total, unit):
    X = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "table.npy", (np.arange(n)[:, None] + np.arange(3)) % n)
    import_descriptors(tmp_path / "x.npy", store=tmp_path / "s", settings=QUICK)
    reduce(tmp_path / "s", dim=0, settings=QUICK)
    bars, done = [], []

    def progress(*bar):
        bars.append(bar)
        return contextlib.nullcontext(done.append)

    own = {"table": tmp_path / "table.npy"} if table else {}
    neighbors(tmp_path / "s", k=2, index="Flat", **own, settings=replace(QUICK, progress=progress))
    assert bars == [("neighbors.background", total, unit)]
    assert sum(done) == total
