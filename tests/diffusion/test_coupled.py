"""η that is not linear, and the reset: right on awkward graphs, the same bytes for any budget, thread count and interruption."""

import numpy as np
import pytest

from ooc_diffusion import build_graph, diffuse
from ooc_diffusion.diffusion import Diffusion, coupled, kernels, normalize, room, scores, write_scores
from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.memory import MemoryBudget
from ooc_diffusion.parallel import limit_threads
from ooc_diffusion.store import ArrayWriter, Store
from tests.reference import awkward_table, naive_coupled, naive_normalized, naive_query_scores, naive_w

C, T = 7, 3
PRIOR = np.array([1, 4, 2, 0.5, 3, 1, 9])
KINDS = {
    "rows": {"normalization": "rows"},
    "sinkhorn": {"normalization": "sinkhorn"},
    "sinkhorn with prior": {"normalization": "sinkhorn", "prior": PRIOR},
    "gamma": {"normalization": "gamma"},
    "gamma of 1.3": {"normalization": "gamma", "power": 1.3},
    "reset": {"normalization": "none", "reset": True},
    "columns, reset": {"normalization": "columns", "reset": True},
    "rows, reset": {"normalization": "rows", "reset": True},
    "sinkhorn, reset": {"normalization": "sinkhorn", "prior": PRIOR, "reset": True},
    "gamma, reset": {"normalization": "gamma", "power": 1.7, "reset": True},
}


def make_case(n, weighted, seed=5):
    """A graph with isolated nodes and parts that no seed reaches; class 6 without seeds; seeds twice, and of two classes."""
    rng = np.random.default_rng(seed)
    ids, weights = awkward_table(rng, n, 5, n_components=4)
    weights = weights if weighted else None
    graph = build_graph(ids, weights=weights, order=rng.permutation(n).astype(np.uint32))
    reached = np.flatnonzero(np.arange(n) % 3 != 0)
    seeds = rng.choice(reached, n // 6, replace=False)
    classes = rng.integers(0, C - 1, len(seeds))
    seeds = np.concatenate([seeds, seeds[:3], seeds[:2]])
    classes = np.concatenate([classes, classes[:3], (classes[:2] + 1) % (C - 1)])
    queries = rng.integers(-1, n, (31, 4))
    queries[7] = -1
    return graph, naive_w(ids, weights), seeds, classes, queries


@pytest.fixture(scope="module", params=["constant", "weighted"])
def case(request):
    return make_case(331, request.param == "weighted")


def cut(monkeypatch, *, columns, rows):
    """Force so many columns in a batch, and so many rows in all blocks."""
    monkeypatch.setattr(coupled, "columns_at_once", lambda n, left, **options: min(left, columns))
    monkeypatch.setattr(coupled, "block_rows", lambda n, n_classes, budget: kernels.NORMALIZED_ROWS * rows)
    monkeypatch.setattr(coupled, "_ASSEMBLED_BYTES", 4 * C * rows)
    monkeypatch.setattr(room, "BLOCK_ROWS", 8 * rows)
    monkeypatch.setattr(scores, "_SCORE_ROWS", 10 * rows)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_loops(case, kind):
    graph, W, seeds, classes, queries = case
    expected = naive_coupled(W, seeds, classes, C, T, **KINDS[kind])
    found = diffuse(graph, seeds, classes, C, n_iter=T, every_iteration=True, **KINDS[kind])
    assert found.shape == (T + 1, 331, C)
    for t in range(T + 1):
        np.testing.assert_allclose(found[t], expected[t], rtol=1e-5, atol=1e-12)
    unreached = (expected[T] == 0).all(axis=1)
    assert 5 < unreached.sum() < 300
    assert (found[T][unreached] == 0).all()
    of_queries = diffuse(graph, seeds, classes, C, queries=queries, n_iter=T, every_iteration=True, **KINDS[kind])
    for t in range(T + 1):
        np.testing.assert_allclose(of_queries[t], naive_query_scores(expected[t], queries), rtol=1e-5, atol=1e-12)
    last = diffuse(graph, seeds, classes, C, queries=queries, n_iter=T, **KINDS[kind])
    assert last.tobytes() == of_queries[T].tobytes()


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("kind", ["rows", "sinkhorn with prior", "gamma, reset"])
def test_equals_the_loops_on_graphs_smaller_than_any_block(kind, n):
    ids = np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1)
    seeds, classes = [0, 0, n - 1], [1, 4, 5]
    expected = naive_coupled(naive_w(ids), seeds, classes, C, 2, **KINDS[kind])[-1]
    np.testing.assert_allclose(diffuse(build_graph(ids), seeds, classes, C, n_iter=2, **KINDS[kind]), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["rows", "sinkhorn with prior", "gamma of 1.3", "columns, reset"])
def test_same_bytes_for_any_batch_block_and_thread_count(case, monkeypatch, kind):
    graph, _, seeds, classes, queries = case
    options = {"n_iter": T, "queries": queries, "every_iteration": True, **KINDS[kind]}
    expected = diffuse(graph, seeds, classes, C, threads=2, **options).tobytes()
    for columns, rows, threads in [(1, 1, 1), (3, 1, 2), (C - 1, 2, 1), (C, 1, 1)]:
        cut(monkeypatch, columns=columns, rows=rows)
        assert diffuse(graph, seeds, classes, C, threads=threads, **options).tobytes() == expected


def test_same_bytes_for_any_budget_on_more_rows_than_a_block(monkeypatch):
    n = 3000
    graph, _, seeds, classes, _ = make_case(n, False)
    overhead = MemoryBudget(1).overhead()
    monkeypatch.setattr(MemoryBudget, "overhead", lambda self, torch=False: overhead)
    least = overhead + room.FIXED_BYTES + coupled.least_coupled_bytes(n, C)
    taken = set()
    units = MemoryBudget.units

    def noted(self, *args, **options):
        taken.add((options["what"].split()[0], units(self, *args, **options)))
        return units(self, *args, **options)

    monkeypatch.setattr(MemoryBudget, "units", noted)
    options = {"n_iter": 2, "normalization": "sinkhorn", "reset": True}
    found = {
        np.array(diffuse(graph, seeds, classes, C, memory_budget=size, **options)).tobytes()
        for size in (least, least + 3 * room.column_bytes(n), 2**31)
    }
    assert len(found) == 1
    assert {("diffusing", 1), ("diffusing", 4), ("diffusing", C)} <= taken
    assert len([how for how in taken if how[0] == "normalizing"]) > 1
    with pytest.raises(DoesNotFit, match="needs a memory budget of"):
        diffuse(graph, seeds, classes, C, memory_budget=least - room.column_bytes(n), **options)


class Crash(Exception):
    pass


@pytest.mark.parametrize(("kind", "every"), [("sinkhorn, reset", False), ("gamma, reset", True)])
def test_an_interrupted_run_goes_on_behind_its_last_batch_or_iterate(tmp_path, monkeypatch, kind, every):
    graph, _, seeds, classes, _ = make_case(331, False)
    expected = np.array(diffuse(graph, seeds, classes, C, n_iter=2, every_iteration=every, **KINDS[kind])).tobytes()
    what = Diffusion(seeds, classes, C, 2, every_iteration=every, **KINDS[kind])
    places = [(coupled, "step"), (coupled, "_read"), (coupled._OneHot, "set_back"), (normalize.Eta, "of")]
    places += [(coupled._Coupled, "_drop"), (ArrayWriter, "append")]
    functions = [getattr(*place) for place in places]
    calls = []

    def crashing(store, function, crash_at):
        def counted(*args, **options):
            if len(calls) == crash_at:
                raise Crash
            calls.append(function.__name__)
            scratch = [path.stat().st_size for kind in ("iterate", "product") for path in store.path.glob(f"data/{kind}*")]
            assert sum(scratch) <= 8 * 331 * C + 128 * len(scratch)
            return function(*args, **options)

        return counted

    def run(store, crash_at, columns):
        calls.clear()
        cut(monkeypatch, columns=columns, rows=20)
        for place, function in zip(places, functions, strict=True):
            monkeypatch.setattr(*place, crashing(store, function, crash_at))
        with limit_threads(2), store.job("diffuse", parameters={}) as job:
            record = write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=2)
            job.publish(record)
        assert columns != 4 or record["steps"] == {"dense": 4}
        assert [path.name.split(".")[0] for path in store.path.glob("data/*")] == ["scores"]
        return store.array("scores").tobytes()

    assert run(Store(tmp_path / "whole", create=True), None, 4) == expected
    whole = list(calls)
    assert whole.count("step") == 2 * 2
    for crash_at in range(1, len(whole)):
        store = Store(tmp_path / str(crash_at), create=True)
        with pytest.raises(Crash):
            run(store, crash_at, 4)
        done = list(calls)
        # with another budget, which cuts what is left otherwise
        assert run(store, None, 4 if crash_at % 2 else 3) == expected
        if crash_at % 2:  # at most the step that was cut off is done again
            assert (done + calls).count("step") - whole.count("step") <= 1


@pytest.mark.parametrize("prior", [None, PRIOR])
def test_sinkhorn_ends_with_rows_that_sum_to_one(case, prior):
    graph, _, seeds, classes, _ = case
    found = diffuse(graph, seeds, classes, C, n_iter=T, normalization="sinkhorn", prior=prior).astype(np.float64)
    sums = found.sum(axis=1)
    reached = sums > 0
    assert 10 < reached.sum() < len(sums)
    np.testing.assert_allclose(sums[reached], 1, rtol=1e-6)


def eta(M, normalization, prior):
    matrix = normalize.SideBySide([M[:, :2], M[:, 2:]], kernels.NORMALIZED_ROWS)
    found = normalize.Eta.of(normalization, 2.0, len(M) * prior / prior.sum(), matrix.column_sums)
    return np.concatenate([block.copy() for _, block, _ in matrix.normalized(found)])


@pytest.mark.parametrize("prior", [np.ones(5), np.array([1.0, 2, 3, 4, 5])])
def test_sinkhorn_meets_both_marginals_where_all_entries_are_positive(prior):
    M = np.random.default_rng(1).uniform(0.5, 1, (1111, 5)).astype(np.float32)
    M[:, 3] *= 1e-9
    found = eta(M, "sinkhorn", prior).astype(np.float64)
    np.testing.assert_allclose(found, naive_normalized(M, "sinkhorn", prior=prior), rtol=2e-7)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0) / found.sum(), prior / prior.sum(), rtol=1e-3)


@pytest.mark.parametrize("by_rows", [False, True])
def test_column_sums_depend_neither_on_the_rows_at_once_nor_on_threads(by_rows):
    rng = np.random.default_rng(4)
    M = (rng.random((3000, 5)) * 10.0 ** rng.integers(-9, 9, (3000, 1))).astype(np.float32)
    found = set()
    for rows in (256, 768, 4096):
        for threads in (1, 2):
            with limit_threads(threads):
                sums = normalize.SideBySide([M], rows).column_sums(np.arange(1.0, 6), 1.0, by_rows)
            found.add(sums.tobytes())
    assert len(found) == 1
    expected = M * np.arange(1.0, 6)
    expected = expected / expected.sum(axis=1, keepdims=True) if by_rows else expected
    np.testing.assert_allclose(sums, expected.sum(axis=0), rtol=1e-13)


@pytest.mark.parametrize("normalization", ["none", "rows", "columns", "sinkhorn", "gamma"])
def test_zeros_and_the_smallest_numbers_survive(normalization):
    rng = np.random.default_rng(2)
    M = np.where(rng.random((600, 5)) < 0.5, rng.random((600, 5)), 0).astype(np.float32)
    M[100:200], M[:, 1] = 0, 0
    M[:, 4] *= np.float32(1e-30)
    expected = naive_normalized(M, normalization, prior=np.ones(5))
    np.testing.assert_allclose(eta(M, normalization, np.ones(5)), expected, rtol=1e-6, atol=1e-40)


def test_the_reset_keeps_both_classes_of_a_seed_and_lets_columns_go():
    graph = build_graph(np.array([[0, 1], [1, 2], [2, 1]]))
    found = diffuse(graph, [0, 0, 0], [0, 2, 2], 3, n_iter=4, normalization="columns", reset=True)
    assert found[0].tolist() == [1, 0, 1]
    assert (found[1:, [0, 2]] > 0).all()
    assert (found[:, 1] == 0).all()
    assert (found[:, 0].sum()) > 1


def test_diffusion_with_reset_goes_to_the_harmonic_function():
    ids = np.stack([np.arange(6), np.minimum(np.arange(6) + 1, 5)], axis=1)
    found = diffuse(build_graph(ids), [0, 5], [0, 1], 2, n_iter=60, normalization="none", reset=True)
    np.testing.assert_allclose(found[:, 0], 1 - np.arange(6) / 5, atol=2e-3)


def test_the_progress_ends_with_all_columns(case):
    graph, _, seeds, classes, _ = case
    told = []
    with limit_threads(1), Store.temporary().job("diffuse", parameters={}) as job:
        what = Diffusion(seeds, classes, C, 2, normalization="rows")
        record = write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=1, advance=told.append)
    assert sum(told) == C
    assert min(told) >= 0
    assert record == {"column_batches": 1, "steps": {"dense": 2}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalization": "softmax"}, "'softmax' is not one of columns, none, rows, sinkhorn, gamma"),
        ({"power": 1}, "`power` is 1; give a number above 1 and at most 2"),
        ({"power": float("nan")}, "`power` is nan"),
        ({"power": "2"}, "`power` is '2'"),
        ({"normalization": "rows", "prior": PRIOR}, "`prior` is for `normalization` columns or sinkhorn, not rows; leave it out"),
        ({"prior": PRIOR[1:]}, r"prior is float64 \(6,\); give a number for each of the 7 classes"),
        ({"prior": [*PRIOR[1:], 0]}, r"prior\[6\] is 0.0; give frequencies above 0"),
        ({"prior": [*PRIOR[1:], np.nan]}, r"prior\[6\] is nan"),
    ],
)
def test_bad_input(case, change, message):
    with pytest.raises(BadInput, match=message):
        diffuse(case[0], [1], [0], C, **({"normalization": "sinkhorn"} | change))
