"""Zhou's diffusion: equal to dense iterations and to the inverse, the same bytes for any budget, threads and interruption."""

import logging

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ooc_diffusion import build_graph, diffuse
from ooc_diffusion.diffusion import Diffusion, room, scores, write_scores, zhou
from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.memory import MemoryBudget
from ooc_diffusion.parallel import limit_threads
from ooc_diffusion.stages.study.parameters import SWEPT
from ooc_diffusion.store import Store
from tests.reference import awkward_table, naive_query_scores, naive_w0, naive_zhou

C, T, N = 7, 4, 331
SOLVED = {"solver": "conjugate-gradient", "tolerance": 1e-6}


@pytest.fixture(scope="module", params=["constant", "weighted"])
def case(request):
    """Isolated nodes, one of them a seed; parts that no seed reaches; class 6 without seeds; seeds twice, and of two classes."""
    rng = np.random.default_rng(3)
    ids, weights = awkward_table(rng, N, 5, n_components=4)
    weights = weights if request.param == "weighted" else None
    graph = build_graph(ids, weights=weights, order=rng.permutation(N).astype(np.uint32))
    alone = np.flatnonzero((ids < 0).all(axis=1))[:1]
    seeds = np.concatenate([alone, rng.choice(np.flatnonzero(np.arange(N) % 3 != 0), 40, replace=False)])
    classes = rng.integers(0, C - 1, len(seeds))
    seeds = np.concatenate([seeds, seeds[3:6], seeds[1:3]])
    classes = np.concatenate([classes, classes[3:6], (classes[1:3] + 1) % (C - 1)])
    queries = rng.integers(-1, N, (31, 4))
    queries[7] = -1
    return graph, (ids, weights), seeds, classes, queries


def normalized(L):
    sums = L.sum(axis=0)
    return L / np.where(sums > 0, sums, 1)


@pytest.mark.parametrize("alpha", [0.3, 0.9])
def test_iterations_equal_the_dense_ones(case, alpha):
    graph, table, seeds, classes, queries = case
    expected = naive_zhou(*table, seeds, classes, C, alpha, T)
    options = {"alpha": alpha, "n_iter": T, "every_iteration": True}
    plain = diffuse(graph, seeds, classes, C, normalization="none", **options)
    found = diffuse(graph, seeds, classes, C, **options)
    of_queries = diffuse(graph, seeds, classes, C, queries=queries, **options)
    for t in range(T + 1):
        np.testing.assert_allclose(plain[t], expected[t], rtol=2e-6, atol=1e-12)
        np.testing.assert_allclose(found[t], normalized(expected[t]), rtol=2e-6, atol=1e-12)
        np.testing.assert_allclose(of_queries[t], naive_query_scores(normalized(expected[t]), queries), rtol=2e-6, atol=1e-12)
    assert plain[T][seeds[0], classes[0]] == np.float32(1 - alpha)  # it has no edges


@pytest.mark.parametrize("alpha", [0.3, 0.9, 0.99])
def test_conjugate_gradients_equal_the_inverse(case, alpha):
    graph, table, seeds, classes, queries = case
    expected = naive_zhou(*table, seeds, classes, C, alpha)
    found = diffuse(graph, seeds, classes, C, normalization="none", alpha=alpha, **SOLVED)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found[seeds[0], classes[0]] == pytest.approx(1 - alpha)
    assert (found[:, C - 1] == 0).all()
    of_queries = diffuse(graph, seeds, classes, C, queries=queries, alpha=alpha, **SOLVED)
    np.testing.assert_allclose(of_queries, naive_query_scores(normalized(expected), queries), rtol=1e-4)


@pytest.fixture(scope="module")
def real_digits():
    """Ten neighbors of each digit, and a seed per class."""
    X, truth = load_digits(return_X_y=True)
    X = X - X.mean(axis=0)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    seeds = np.array([np.random.default_rng(c).choice(np.flatnonzero(truth == c)) for c in range(10)])
    return np.argsort(-(X @ X.T), axis=1, kind="stable")[:, :10], seeds


@pytest.mark.parametrize("alpha", [0.5, 0.99])
def test_every_image_has_the_best_classes_of_the_inverse(real_digits, alpha):
    """With the options of the study; the least entries are 1e-14 of the largest, and whole images have none above 1e-8."""
    ids, seeds = real_digits
    (limit,) = [swept for swept in SWEPT if swept.name == "Zhou et al., limit (CG)"]
    found = diffuse(build_graph(ids), seeds, np.arange(10), 10, threads=1, **limit.options(alpha)["eta"])
    expected = normalized(naive_zhou(ids, None, seeds, np.arange(10), 10, alpha))
    assert (expected > 0).all()
    assert (found > 0).all()
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    best = np.argsort(-found, axis=1, kind="stable")[:, :5]
    fifth = np.sort(expected, axis=1)[:, -5]
    assert (np.take_along_axis(expected, best, axis=1).min(axis=1) >= fifth * (1 - 2e-3)).all()  # the same, or as good as equal


def test_a_line_of_nodes_is_followed_as_far_as_float32_reaches(caplog):
    n, what = 400, Diffusion(np.array([0]), np.array([0]), 1, 0, alpha=0.5, solver="conjugate-gradient")
    ids = np.stack([np.arange(n), np.minimum(np.arange(n) + 1, n - 1)], axis=1)
    store = Store.temporary()
    with limit_threads(1) as threads, store.job("diffuse", parameters={}) as job:
        record = write_scores(job, build_graph(ids), what, name="scores", budget=MemoryBudget(2**31), threads=threads)
        job.publish({})
    expected = normalized(naive_zhou(ids, None, [0], [0], 1, 0.5))[:, 0]
    found = store.array("scores")[:, 0]
    near = expected > 1e-26
    assert 25 < near.sum() < n / 2
    np.testing.assert_allclose(found[near], expected[near], rtol=1e-3)
    assert (found[~near] <= 2e-26).all()
    assert record["solver_steps"] < zhou.most_passes(what) < 70
    assert (record["unsolved_classes"], caplog.messages) == (0, [])


@pytest.mark.parametrize("steps", [1, 3])
def test_the_steps_are_those_with_the_symmetric_matrix(case, steps, caplog):
    graph, table, seeds, classes, _ = case
    first, second = naive_zhou(*table, seeds, classes, C, 0.9, 1)
    expected = np.empty((N, C))
    S = symmetric(*table)
    for c in range(C):
        x, r = np.zeros(N), 0.1 * first[:, c]
        p = r.copy()
        for _ in range(steps if r.any() else 0):
            q = p - 0.9 * S @ p
            a = r @ r / (p @ q)
            x, after = x + a * p, r - a * q
            p, r = after + after @ after / (r @ r) * p, after
        expected[:, c] = x
    np.testing.assert_allclose(0.9 * S @ first + 0.1 * first, second)
    assert (expected >= 0).all()
    options = {"normalization": "none", "alpha": 0.9, "solver": "conjugate-gradient", "max_steps": steps}
    with caplog.at_level(logging.ERROR, "ooc_diffusion"):
        found = diffuse(graph, seeds, classes, C, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def symmetric(ids, weights):
    W0 = naive_w0(ids, N, weights).toarray()
    S, degrees = W0 + W0.T, (W0 + W0.T).sum(axis=1)
    roots = 1 / np.sqrt(np.where(degrees > 0, degrees, 1))
    return S * roots[:, None] * roots


def test_many_iterations_go_to_the_limit(case):
    graph, _, seeds, classes, _ = case
    iterated = diffuse(graph, seeds, classes, C, alpha=0.7, n_iter=60)
    np.testing.assert_allclose(diffuse(graph, seeds, classes, C, alpha=0.7, **SOLVED), iterated, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"n_iter": T, "every_iteration": True}, SOLVED])
def test_same_bytes_for_any_batch_block_and_thread_count(case, monkeypatch, options):
    graph, _, seeds, classes, queries = case
    options = {"alpha": 0.9, "queries": queries, **options}
    expected = diffuse(graph, seeds, classes, C, threads=2, **options).tobytes()
    for columns, rows, threads in [(1, 1, 1), (3, 1, 2), (C - 1, 2, 1)]:
        monkeypatch.setattr(zhou, "zhou_columns", lambda n, left, columns=columns, **options: columns)
        monkeypatch.setattr(room, "BLOCK_ROWS", 8 * rows)
        monkeypatch.setattr(scores, "_SCORE_ROWS", 10 * rows)
        assert diffuse(graph, seeds, classes, C, threads=threads, **options).tobytes() == expected


def test_the_budget_decides_about_columns_and_what_is_too_small_is_refused(monkeypatch):
    n = 20_000
    ids = np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1)
    graph, seeds, classes = build_graph(ids), np.arange(C), np.arange(C)
    overhead = MemoryBudget(1).overhead()
    monkeypatch.setattr(MemoryBudget, "overhead", lambda self, torch=False: overhead)
    reading = zhou.reading_bytes(graph.nnz, weighted=False)
    column = zhou.zhou_column_bytes(n, "conjugate-gradient")
    least = overhead + room.FIXED_BYTES + reading + column
    widths, batch = [], zhou._Batch

    def noted(graph, what, classes, *args):
        widths.append(len(classes))
        return batch(graph, what, classes, *args)

    monkeypatch.setattr(zhou, "_Batch", noted)
    found = {
        np.array(diffuse(graph, seeds, classes, C, alpha=0.9, memory_budget=size, **SOLVED)).tobytes()
        for size in (least, least + column, 2**31)
    }
    assert len(found) == 1
    assert set(widths) == {1, 2, C}
    with pytest.raises(DoesNotFit, match="needs a memory budget of"):
        diffuse(graph, seeds, classes, C, alpha=0.9, memory_budget=least - 1, **SOLVED)


class Crash(Exception):
    pass


@pytest.mark.parametrize("options", [{"n_iter": 2}, {"n_iter": 2, "every_iteration": True}, SOLVED])
def test_an_interrupted_run_goes_on_behind_its_last_batch(case, tmp_path, monkeypatch, options):
    graph, _, seeds, classes, _ = case
    expected = np.array(diffuse(graph, seeds, classes, C, alpha=0.8, **options)).tobytes()
    what = Diffusion(seeds, classes, C, **({"n_iter": 0} | options), alpha=0.8)
    read, calls = zhou._read, []

    def run(store, crash_at, columns):
        calls.clear()
        monkeypatch.setattr(zhou, "zhou_columns", lambda n, left, **options: columns)

        def crashing(*args):
            if len(calls) == crash_at:
                raise Crash
            calls.append(1)
            read(*args)

        monkeypatch.setattr(zhou, "_read", crashing)
        with limit_threads(2), store.job("diffuse", parameters={}) as job:
            job.publish(write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=2))
        return store

    whole = run(Store(tmp_path / "whole", create=True), None, 3)
    assert whole.array("scores").tobytes() == expected
    each = len(calls) // 3
    for crash_at in range(1, 3 * each):
        store = Store(tmp_path / str(crash_at), create=True)
        with pytest.raises(Crash):
            run(store, crash_at, 3)
        run(store, None, 3)
        assert len(calls) == 3 * each - crash_at // each * each
        assert store.array("scores").tobytes() == expected
        assert store.record("diffuse") == whole.record("diffuse")
        assert [path.name.split(".")[0] for path in store.path.glob("data/*")] == ["scores"]


def test_the_record_has_the_residual_and_how_many_classes_are_unsolved(case, tmp_path, monkeypatch):
    graph, _, seeds, classes, _ = case
    monkeypatch.setattr(zhou, "zhou_columns", lambda *_, **__: 2)
    records = []
    for number, steps in enumerate((1000, 3)):
        what = Diffusion(seeds, classes, C, 0, alpha=0.9, solver="conjugate-gradient", max_steps=steps)
        with limit_threads(1), Store(tmp_path / str(number), create=True).job("diffuse", parameters={}) as job:
            records.append(write_scores(job, graph, what, name="scores", budget=MemoryBudget(2**31), threads=1))
            job.publish({})
    assert 3 < records[0]["solver_steps"] < zhou.most_passes(Diffusion(seeds, classes, C, 0, alpha=0.9, **SOLVED)) < 160
    assert 0 < records[0]["residual"] <= 1e-5 < records[1]["residual"] <= 1
    assert records[1]["solver_steps"] == 3
    assert [record["unsolved_classes"] for record in records] == [0, C - 1]  # one has no seeds


def test_classes_that_are_not_solved_for_are_warned_of_once(case, monkeypatch, caplog):
    graph, _, seeds, classes, _ = case
    monkeypatch.setattr(zhou, "zhou_columns", lambda *_, **__: 2)
    diffuse(graph, seeds, classes, C, alpha=0.9, **SOLVED)
    assert caplog.messages == []
    diffuse(graph, seeds, classes, C, alpha=0.9, **{**SOLVED, "max_steps": 3})
    diffuse(graph, seeds, classes, C, alpha=0.9, **{**SOLVED, "tolerance": 1e-9})
    cut, rounded = caplog.messages
    assert cut.startswith(
        f"{C - 1} of {C} classes are not solved for: conjugate gradients ended after 3 steps with a residual of up to"
    )
    assert cut.endswith("give more `max_steps`, or a smaller `alpha`")
    assert rounded.endswith("`tolerance` of 1e-09; give a larger one: float32 hardly holds less than 1e-6")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1}, "`alpha` is 1; give a number above 0 and below 1"),
        ({"alpha": 0.0}, "`alpha` is 0.0"),
        ({"alpha": float("nan")}, "`alpha` is nan"),
        ({"alpha": "0.9"}, "`alpha` is '0.9'"),
        ({"alpha": 0.9, "normalization": "rows"}, "`alpha` is for `normalization` columns or none, without `reset`"),
        ({"alpha": 0.9, "reset": True}, "`alpha` is for `normalization` columns or none, without `reset`"),
        ({"alpha": 0.9, "solver": "jacobi"}, "solver 'jacobi' is not one of iterate, conjugate-gradient"),
        ({"solver": "conjugate-gradient"}, "`solver` conjugate-gradient is for `alpha`"),
        ({"alpha": 0.9, "every_iteration": True, **SOLVED}, "has no iterations to return"),
        ({"alpha": 0.9, **SOLVED, "tolerance": 0}, "`tolerance` is 0; give a number above 0"),
        ({"alpha": 0.9, **SOLVED, "max_steps": 0}, "`max_steps` is 0; give 1 or more"),
        ({"alpha": 0.9, "precision": "bfloat16"}, "`reset` and `alpha` take no bfloat16"),
        ({"alpha": 0.9, "device": "cuda"}, "`reset` and `alpha` run on the CPU, but `device` is cuda"),
    ],
)
def test_bad_input(case, options, message):
    with pytest.raises(BadInput, match=message):
        diffuse(case[0], [1], [0], C, **options)
