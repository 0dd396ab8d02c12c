"""What is planned is what is done: the same steps of the same edges, where these can be counted beforehand."""

import sys

import numpy as np
import pytest

from ooc_diffusion import build_graph
from ooc_diffusion.diffusion import Diffusion, forecast, forward, joined, room, scores, write_scores
from ooc_diffusion.diffusion.steps import Steps
from ooc_diffusion.memory import MemoryBudget
from ooc_diffusion.store import Store

# the function has the name of its module
forecast_module = sys.modules["ooc_diffusion.diffusion.forecast"]

N, C, T = 20_000, 40, 4
BUDGET = MemoryBudget(2**31)


@pytest.fixture(scope="module")
def graph():
    rng = np.random.default_rng(5)
    # some nodes are listed far more often than others
    ids = np.minimum(rng.integers(0, N, (N, 6)), rng.integers(0, N, (N, 6)))
    return build_graph(ids)


def run(graph, what, **options):
    with Store.temporary().job("diffuse", parameters={}) as job:
        return write_scores(job, graph, what, name="scores", budget=BUDGET, threads=2, **options)


@pytest.mark.parametrize("n_queries", [None, 5, 5000])
@pytest.mark.parametrize("seeds_per_class", [1, 30])
def test_steps_and_edges_are_those_that_are_taken(graph, n_queries, seeds_per_class):
    rng, n_classes = np.random.default_rng(1), 32  # one batch
    queries = None if n_queries is None else rng.integers(0, N, (n_queries, 4))
    seeds = rng.choice(N, n_classes * seeds_per_class, replace=False)
    what = Diffusion(seeds, np.repeat(np.arange(n_classes), seeds_per_class), n_classes, T, queries)
    planned = {(step["t"], step["kind"]): step for step in forecast(graph, what, budget=BUDGET, threads=2)}
    done = {(step["t"], step["kind"]): step for step in run(graph, what)["iterations"]}
    assert planned.keys() == done.keys()
    assert ((0, "sums") in planned) == (n_queries is not None)
    for (t, kind), step in done.items():
        plan = planned[t, kind]
        assert plan["batches"] == step["batches"] == 1
        if kind == "push":  # which nodes the labels reach is drawn at random, as it were
            assert 0.7 < plan["edges"] / step["edges"] < 1.4
            assert 0.7 < plan["rows"] / step["rows"] < 1.4
        else:
            assert (plan["rows"], plan["edges"]) == (step["rows"], step["edges"])
        assert plan["bytes"] == 4 * min(plan["edges"], graph.nnz)
        assert plan["seconds"] > 0
        assert step["seconds"] > 0


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize(
    ("columns", "in_memory", "sparse_bytes", "kept_bytes", "worth"),
    [
        (8, False, 2**24, 2**24, True),
        (8, False, 2**24, 2**24, False),
        (8, False, 2**20, 2**16, False),
        (8, True, 2**20, 2**18, False),
        (16, False, 2**19, 0, False),
        (16, False, 0, 0, True),
    ],
)
def test_batches_and_groups_are_those_that_are_taken(
    graph, monkeypatch, every, columns, in_memory, sparse_bytes, kept_bytes, worth
):
    made = room.Room(columns, in_memory, sparse_bytes, kept_bytes)
    for module in (scores, forecast_module):
        monkeypatch.setattr(module, "make_room", lambda *args, **options: made)
    for module in (forward, joined):
        monkeypatch.setattr(module, "worth", lambda *args: worth)
    rng = np.random.default_rng(2)
    what = Diffusion(np.arange(2 * C), np.arange(2 * C) // 2, C, T, rng.integers(0, N, (3, 2)), every_iteration=every)
    planned = {(step["t"], step["kind"]): step for step in forecast(graph, what, budget=BUDGET, threads=2)}
    done = {(step["t"], step["kind"]): step for step in run(graph, what)["iterations"]}
    assert {key: step["batches"] for key, step in planned.items()} == {key: step["batches"] for key, step in done.items()}
    for (t, kind), step in done.items():
        if kind != "push":
            assert (planned[t, kind]["rows"], planned[t, kind]["edges"]) == (step["rows"], step["edges"])
    assert not every or not any(kind == "joined" for _, kind in done)


@pytest.mark.parametrize("kept_bytes", [2**15, 2**19])  # too little to push all once more, and enough
@pytest.mark.parametrize(("most", "batches"), [(40, 1), (24, 2), (20, 1), (12, None)])
def test_groups_that_are_too_large_to_join_are_cut_until_they_are_not(graph, monkeypatch, most, batches, kept_bytes):
    made = room.Room(8, False, 2**22, kept_bytes)
    for module in (scores, forecast_module):
        monkeypatch.setattr(module, "make_room", lambda *args, **options: made)
    for module in (forward, joined):
        monkeypatch.setattr(module, "worth", lambda *args: True)
        monkeypatch.setattr(module, "held_bytes", lambda graph, needed, n_iter, columns, *sizes: 0 if columns <= most else 2**40)
    monkeypatch.setattr(joined, "better_than_a_file", lambda *args, **options: False)
    monkeypatch.setattr(scores, "better_than_a_file", lambda *args, **options: False)
    rng = np.random.default_rng(2)
    what = Diffusion(np.arange(2 * C), np.arange(2 * C) // 2, C, T, rng.integers(0, N, (3, 2)))
    planned = {(step["t"], step["kind"]): step["batches"] for step in forecast(graph, what, budget=BUDGET, threads=2)}
    done = {(step["t"], step["kind"]): step["batches"] for step in run(graph, what)["iterations"]}
    assert planned == done
    assert done.get((T, "joined")) == batches


def test_rows_and_edges_of_several_batches_are_added_up(graph, monkeypatch):
    for module in (scores, forecast_module):
        monkeypatch.setattr(module, "make_room", lambda *args, **options: room.Room(16, True, 2**24, 0))
    what = Diffusion(np.arange(C), np.arange(C), C, 1)
    (plan,) = forecast(graph, what, budget=BUDGET, threads=2)
    done = run(graph, what)["iterations"]
    assert plan["batches"] == 3 == sum(step["batches"] for step in done)
    assert plan["rows"] == C == sum(step["rows"] for step in done)
    degrees = np.diff(graph.indptr)[graph.position[:C]]
    assert sum(step["edges"] for step in done) == degrees.sum()


def test_figures_of_steps_come_back_from_their_state():
    steps = Steps()
    steps.add(2, "dense", batches=1, rows=5, edges=7, seconds=0.5)
    steps.add(1, "push", batches=1, edges=3)
    steps.add(2, "dense", batches=1, rows=5, edges=7, disk_bytes=9)
    again = Steps(steps.as_state())
    again.add(2, "masked", batches=4)
    assert again.count() == {"push": 1, "dense": 2, "masked": 4}
    assert again.as_state()[1] == {
        "t": 2,
        "kind": "dense",
        "batches": 2,
        "rows": 10,
        "edges": 14,
        "disk_bytes": 9,
        "seconds": 0.5,
    }
    again.replace(steps.as_state())
    assert again.as_state() == steps.as_state()
