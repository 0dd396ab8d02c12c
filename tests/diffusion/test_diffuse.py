"""diffuse equals the naive product on awkward graphs and gives the same bytes for any budget, block and thread count."""

import numpy as np
import pytest

from ooc_diffusion import build_graph, diffuse
from ooc_diffusion.diffusion import engine, room, scores
from ooc_diffusion.diffusion.room import Room
from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.memory import MemoryBudget
from tests.reference import awkward_table, naive_diffuse, naive_query_scores, naive_w


@pytest.fixture(params=["constant", "weighted"])
def case(request):
    rng = np.random.default_rng(11)
    ids, weights = awkward_table(rng, 97, 5)
    weights = weights.astype(np.float32) if request.param == "weighted" else None
    order = rng.permutation(97).astype(np.uint32)
    graph = build_graph(ids, weights=weights, order=order)
    seeds = rng.choice(97, 20, replace=False)
    classes = rng.integers(0, 6, 20)  # class 6 stays empty
    queries = rng.integers(-1, 97, (31, 4))
    queries[7] = -1
    return graph, naive_w(ids, weights), seeds, classes, queries


@pytest.mark.parametrize("normalization", ["columns", "none"])
@pytest.mark.parametrize("n_iter", [0, 1, 2, 7])
def test_equals_the_naive_product(case, normalization, n_iter):
    graph, W, seeds, classes, queries = case
    expected = naive_diffuse(W, seeds, classes, 7, n_iter, normalization)
    found = diffuse(graph, seeds, classes, 7, n_iter=n_iter, normalization=normalization, every_iteration=True)
    assert found.shape == (n_iter + 1, 97, 7)
    for t in range(n_iter + 1):
        np.testing.assert_allclose(found[t], expected[t], rtol=1e-5, atol=1e-12)
    last = diffuse(graph, seeds, classes, 7, queries=queries, n_iter=n_iter, normalization=normalization)
    np.testing.assert_allclose(last, naive_query_scores(expected[-1], queries), rtol=1e-5, atol=1e-12)
    assert (last[7] == 0).all()


def test_query_scores_of_every_iteration(case):
    graph, W, seeds, classes, queries = case
    found = diffuse(graph, seeds, classes, 7, queries=queries, n_iter=4, every_iteration=True)
    for t, L in enumerate(naive_diffuse(W, seeds, classes, 7, 4)):
        np.testing.assert_allclose(found[t], naive_query_scores(L, queries), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("width", [1, 6, 7, 8])
@pytest.mark.parametrize("rows", [1, 96, 97, 98])
def test_same_bytes_for_any_batch_block_and_thread_count(case, monkeypatch, threads, width, rows):
    graph, _, seeds, classes, queries = case
    expected = diffuse(graph, seeds, classes, 7, queries=queries, n_iter=3).tobytes()
    all_nodes = diffuse(graph, seeds, classes, 7, n_iter=3).tobytes()
    monkeypatch.setattr(room, "BLOCK_ROWS", rows)
    monkeypatch.setattr(scores, "_SCORE_ROWS", rows)
    monkeypatch.setattr(scores, "make_room", lambda n, left, **kw: Room(min(width, left), width % 2 == 0, 999, 99))
    assert diffuse(graph, seeds, classes, 7, queries=queries, n_iter=3, threads=threads).tobytes() == expected
    assert diffuse(graph, seeds, classes, 7, n_iter=3, threads=threads).tobytes() == all_nodes


@pytest.mark.parametrize("entries", [1, 5, 10**6])
def test_same_bytes_for_any_number_of_entries_at_once(case, monkeypatch, entries):
    graph, _, seeds, classes, _ = case
    expected = diffuse(graph, seeds, classes, 7, n_iter=2).tobytes()
    monkeypatch.setattr(room, "BLOCK_ENTRIES", entries)
    assert diffuse(graph, seeds, classes, 7, n_iter=2).tobytes() == expected


def test_column_sums_do_not_lose_small_terms():
    L = np.full((100_000, 2), 1e-4, np.float32)
    L[0] = 4096.0
    np.testing.assert_allclose(engine.column_sums(L), L.astype(np.float64).sum(axis=0), rtol=1e-14)


def test_a_hub_row_is_summed_exactly():
    n = 50_000
    ids = np.stack([np.zeros(n, np.int64), np.arange(n)], axis=1)
    graph = build_graph(ids)
    seeds = np.arange(1, n, 2)
    found = diffuse(graph, seeds, np.zeros(len(seeds), int), 1, n_iter=1, normalization="none")
    np.testing.assert_allclose(found[0, 0], len(seeds) / (n + 1), rtol=1e-6)


def test_unreached_nodes_are_rows_of_zeros_and_never_nan():
    ids = np.array([[0, 1], [1, 0], [2, 3], [3, 2], [-1, -1]])
    found = diffuse(build_graph(ids), [0], [1], 3, n_iter=5)
    assert np.isfinite(found).all()
    assert (found[2:] == 0).all()
    assert (found[:2, 1] > 0).all()


def test_a_seed_with_two_classes_counts_in_both_and_a_repeated_one_once():
    graph = build_graph(np.array([[0, 1], [1, 0]]))
    found = diffuse(graph, [0, 0, 0], [0, 1, 1], 2, n_iter=0)
    assert found.tolist() == [[1, 1], [0, 0]]


def test_the_budget_decides_the_batches():
    ids = np.arange(1000)[:, None]
    graph = build_graph(ids)
    overhead = MemoryBudget(1).overhead()
    for columns in (1, 3, 10):
        held = room.FIXED_BYTES + room.masks_bytes(1000) + columns * room.column_bytes(1000)
        made = room.make_room(1000, 10**6, budget=MemoryBudget(overhead + 2**21 + held))
        assert made.columns >= min(columns, 64)
    with pytest.raises(DoesNotFit, match=r"diffusing over 1000 nodes needs a memory budget of \d+MiB"):
        diffuse(graph, [0], [0], 1, memory_budget=64 * 2**20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [97]}, r"seeds\[0\] is 97; it must be from 0 to 96"),
        ({"seeds": [-1]}, r"seeds\[0\] is -1"),
        ({"seed_classes": [7]}, r"seed_classes\[0\] is 7; it must be from 0 to 6"),
        ({"seeds": []}, "equal length"),
        ({"seeds": [], "seed_classes": []}, "no seeds"),
        ({"seeds": [0.5]}, "float64"),
        ({"queries": np.array([[97]])}, "row 0 of the table of query neighbors holds the id 97"),
        ({"n_iter": -1}, "n_iter"),
        ({"normalization": "softmax"}, "columns, none"),
        ({"precision": "float16"}, "precision 'float16' is not one of float32, bfloat16"),
        ({"precision": "bfloat16", "normalization": "rows"}, "rows, .* take no bfloat16; give `precision` float32"),
        ({"precision": "bfloat16", "reset": True}, "`reset` and `alpha` take no bfloat16"),
        (
            {"precision": "bfloat16", "device": "cuda"},
            "`precision` bfloat16 runs on the CPU, but `device` is cuda; give `device` cpu",
        ),
    ],
)
def test_bad_input(case, change, message):
    arguments = {"seeds": [1], "seed_classes": [0], "n_classes": 7} | change
    with pytest.raises(BadInput, match=message):
        diffuse(case[0], **arguments)
