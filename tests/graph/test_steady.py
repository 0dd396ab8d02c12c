"""Progress moves in small steps whose sum is the number of nodes."""

import logging

import numpy as np
import pytest

from ooc_diffusion.graph import api, build, build_graph, check
from ooc_diffusion.graph.steady import Steady
from ooc_diffusion.store import Store
from ooc_diffusion.store.writer import ArrayWriter


def test_the_sum_is_the_number_of_nodes_whatever_was_expected():
    for expected in (1, 300, 10**6):
        told = []
        steady = Steady(told.append, 1000)
        steady.skip(100)
        steady.expect(expected)
        for _ in range(300):
            steady(1)
        steady.finish()
        assert told[0] == 100
        assert min(told) > 0
        assert sum(told) == 1000


def write(job, table, advance):
    limit = build.MemoryBudget(2**31)
    return build.write_graph(job, table, weights=None, order=None, budget=limit, threads=1, advance=advance)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(build, "_TABLE_ROWS", 50)
    monkeypatch.setattr(check, "_BLOCK_ROWS", 50)
    monkeypatch.setattr(build.MemoryBudget, "units", lambda self, unit, **kw: 3000)
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)


TABLE = np.random.default_rng(0).integers(0, 1000, (1000, 6)).astype(np.int32)


def test_counting_passes_and_merging_all_move_it(tmp_path, small_blocks):
    told = []
    with Store(tmp_path / "s", create=True).job("graph", parameters={}) as job:
        write(job, TABLE, told.append)
    assert sum(told) == 1000
    # 20 blocks to count, in each of 5 ranges 20 to read, then 20 to merge and 20 to check; small ones may be told together
    assert len(told) > 100
    assert max(told) < 40


def test_a_resumed_run_begins_with_what_was_done(tmp_path, small_blocks, monkeypatch):
    store, told = Store(tmp_path / "s", create=True), []
    original = ArrayWriter.append
    appended = []

    def append(writer, block):
        appended.append(len(block))
        if len(appended) == 40:
            raise KeyboardInterrupt
        original(writer, block)

    monkeypatch.setattr(ArrayWriter, "append", append)
    with pytest.raises(KeyboardInterrupt), store.job("graph", parameters={}) as job:
        write(job, TABLE, lambda nodes: None)
    with store.job("graph", parameters={}) as job:
        done = job.array("graph/row_scale", "<f4", (1000,)).rows
        # the middle of a range will do
        assert 0 < done < 1000
        checked = write(job, TABLE, told.append)
    assert told[0] == done
    assert sum(told) == 1000
    assert checked["nnz"] == build_graph(TABLE).nnz


def test_build_graph_tells_the_log(caplog, small_blocks, monkeypatch):
    monkeypatch.setattr(api, "_SECONDS_BETWEEN_LINES", 0)
    with caplog.at_level(logging.INFO, "ooc_diffusion"):
        build_graph(TABLE)
    assert any("of 1000 nodes" in line and "s left" in line for line in caplog.messages)
