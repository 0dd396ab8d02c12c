"""The promise about memory: under the budget by the meter, and at home in a cgroup of the budget plus 256 MiB."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

MIB = 2**20
BUDGET = 340 * MIB
N, K, CLASSES = 1_000_000, 8, 120

JOB = """
    import json, sys
    import numpy as np
    from ooc_diffusion import build_graph, diffuse
    from ooc_diffusion.memory import MemoryMeter
    folder, budget = sys.argv[1], int(sys.argv[2])
    table = np.load(folder + "/table.npy", mmap_mode="r")
    rng = np.random.default_rng(1)
    seeds, queries = rng.choice(len(table), 60 * {classes}, replace=False), rng.integers(0, len(table), ({queries}, 8))
    with MemoryMeter() as meter:
        graph = build_graph(table, store=folder + "/graph-" + sys.argv[2], memory_budget=budget)
        given = np.arange(len(seeds)) % {classes}
        scores = diffuse(graph, seeds, given, {classes}, queries=queries, n_iter={n_iter}, memory_budget=budget)
    np.save(folder + "/scores-" + sys.argv[2], scores)
    print(json.dumps({{"peak": meter.peak}}))
"""
GREEDY = "import numpy as np; print(np.ones(10**9, np.uint8).sum())"


@pytest.fixture
def cgroup():
    """A function that makes a memory cgroup of a size, and returns its file of process numbers."""
    root, made = Path("/sys/fs/cgroup/memory"), []
    if not (root / "memory.limit_in_bytes").exists():
        root = Path("/sys/fs/cgroup")
    limit = "memory.limit_in_bytes" if root.name == "memory" else "memory.max"

    def make(size):
        path = root / f"ooc-diffusion-test-{os.getpid()}-{len(made)}"
        try:
            path.mkdir()
            made.append(path)
            (path / limit).write_text(str(size))
        except OSError as error:
            pytest.skip(f"no memory cgroup can be made here: {error.strerror}")
        return path / "cgroup.procs"

    yield make
    for path in made:
        path.rmdir()


def run(code, *arguments, procs=None):
    """Run Python in a process of its own, from its first instruction inside a cgroup."""
    enter = None if procs is None else lambda: procs.write_text(str(os.getpid()))
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=enter, timeout=300)


@pytest.mark.faults
@pytest.mark.parametrize(("queries", "n_iter", "dense"), [(200_000, 5, True), (500, 3, False)])
def test_a_budget_below_the_size_of_l_holds_and_gives_the_same_bytes(tmp_path, cgroup, queries, n_iter, dense):
    rng = np.random.default_rng(0)
    near = np.arange(N)[:, None] + rng.integers(-2000, 2000, (N, K))
    np.save(tmp_path / "table.npy", np.clip(near, 0, N - 1).astype(np.int32))
    job = JOB.format(classes=CLASSES, queries=queries, n_iter=n_iter)
    assert 4 * N * CLASSES > BUDGET - 256 * MIB  # L does not fit beside the libraries: several batches
    subprocess.run(["sync"], check=True)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")  # a warm cache would hide what reading costs
    except OSError as error:
        pytest.skip(f"the page cache cannot be dropped here: {error.strerror}")
    small = run(job, tmp_path, BUDGET, procs=cgroup(BUDGET + 256 * MIB))
    assert small.returncode == 0, small.stderr
    assert json.loads(small.stdout)["peak"] < BUDGET
    large = run(job, tmp_path, 8 * 2**30)
    if dense:  # so the small run really had to do it otherwise; few queries read L without one that is dense
        assert json.loads(large.stdout)["peak"] > BUDGET
    found = [(tmp_path / f"scores-{budget}.npy").read_bytes() for budget in (BUDGET, 8 * 2**30)]
    assert found[0] == found[1]


@pytest.mark.faults
def test_the_cgroup_does_kill(cgroup):
    greedy = run(GREEDY, procs=cgroup(256 * MIB))
    assert greedy.returncode == -signal.SIGKILL
