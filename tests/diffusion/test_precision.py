"""L as bfloat16: rounded once more in each iteration, to nearest, ties to even, the same way in every step."""

import numpy as np
import pytest

from ooc_diffusion import build_graph, diffuse
from ooc_diffusion.diffusion import iterate, needed, room, sparse, sparse_kernels
from ooc_diffusion.diffusion.precision import ELEMENTS, widened
from ooc_diffusion.diffusion.sparse import SparseColumns
from tests.reference import awkward_table, naive_bfloat16, naive_diffuse_rounded, naive_query_scores

N, C, T = 131, 5, 6
BFLOAT16 = ELEMENTS["bfloat16"]


@pytest.fixture(params=["constant", "weighted"], scope="module")
def case(request):
    rng = np.random.default_rng(5)
    ids, weights = awkward_table(rng, N, 5)
    order = rng.permutation(N).astype(np.uint32)
    at_rest = {"weights": weights if request.param == "weighted" else None, "order": order}
    seeds = rng.choice(N, 20, replace=False)
    return build_graph(ids, **at_rest), (ids, seeds, rng.integers(0, C, 20), C, T), at_rest, rng.integers(-1, N, (31, 4))


def scores(case, **options):
    graph, (_, seeds, classes, *_), *_ = case
    options = {"n_iter": T, "normalization": "none", "every_iteration": True, "precision": "bfloat16"} | options
    return np.array(diffuse(graph, seeds, classes, C, **options))


def test_equals_the_loops_that_round_after_each_iteration(case):
    _, arguments, at_rest, queries = case
    expected = naive_diffuse_rounded(*arguments, **at_rest)
    assert scores(case).tobytes() == np.stack(expected).astype(np.float32).tobytes()
    read = np.stack([naive_query_scores(L, queries) for L in expected])
    assert scores(case, queries=queries).tobytes() == read.astype(np.float32).tobytes()
    sums = np.array([[max(column.sum(), 1e-300) for column in L.T] for L in expected])
    np.testing.assert_allclose(scores(case, normalization="columns"), expected / sums[:, None], rtol=1e-6, atol=0)


def truncated(values):
    return (np.asarray(values).astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64)


def ties_away(values):
    return truncated((np.asarray(values).astype(np.float32).view(np.uint32) + 0x8000).view(np.float32))


def float32(values):
    return np.asarray(values).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("rounded", [truncated, float32])
def test_another_rounding_is_noticed(case, rounded):
    _, arguments, at_rest, _ = case
    expected = naive_diffuse_rounded(*arguments, **at_rest, rounded=rounded)
    assert scores(case).tobytes() != np.stack(expected).astype(np.float32).tobytes()


def test_is_close_to_float32(case):
    found, expected = scores(case), scores(case, precision="float32")
    for t in range(T + 1):
        np.testing.assert_allclose(found[t], expected[t], rtol=t * 2**-8, atol=0)
    assert (found != expected).mean() > 0.1


# Bits at the nodes 1, 2 and 3, of which node 0 holds half of the first, half of the second and 2^-41 of the third.
MEANS = {
    "a tie, the lower one is even": (0x3F80, 0x3F81, 0, 0x3F80),
    "a tie, the upper one is even": (0x3F81, 0x3F82, 0, 0x3F82),
    "above a tie in float64, at it in float32": (0x3F80, 0x3F81, 0x3F80, 0x3F80),
    "above a tie in float32": (0x3F80, 0x3F81, 0x4980, 0x3F81),
    "a tie below a power of two": (0x3FFF, 0x4000, 0, 0x4000),
    "a tie of subnormal numbers": (0x0001, 0x0002, 0, 0x0002),
    "the largest": (0x7F7F, 0x7F7F, 0x7F7F, 0x7F7F),
    "zeros": (0, 0, 0, 0),
}


def test_ties_go_to_the_even_one_in_every_step(monkeypatch):
    monkeypatch.setattr(sparse, "RECORDS_PER_LINE", 10**6)
    ids, weights = np.full((4, 3), -1), np.ones((4, 3), np.float32)
    ids[0], weights[0, 2] = [1, 2, 3], 2.0**-40
    graph = build_graph(ids, weights=weights)
    assert graph.row_scale[0] == 0.5
    *given, expected = np.array(list(MEANS.values()), np.uint16).T
    L = np.stack([np.zeros_like(expected), *given])
    every, values = needed.all_rows(graph, 1), widened(L)
    means = np.array([0, 0.5, 0.5, 2.0**-41]) @ values.astype(np.float64)
    assert (naive_bfloat16(means) == widened(expected)).all()
    assert (ties_away(means) != widened(expected)).sum() == 2
    for width in (8, 4, 1):
        part = np.ascontiguousarray(L[:, :width])
        done = iterate.step(graph, part, iterate.InMemory(room.make_rows(*part.shape, BFLOAT16)), every, 1, threads=1)
        assert done[0].tolist() == expected[:width].tolist()
    columns = SparseColumns(np.arange(0, 33, 4), np.tile(np.arange(4, dtype=np.uint32), 8), values.T.ravel(), BFLOAT16)
    sent, rows, options = columns.count_sent(graph), room.make_rows(4, 8, BFLOAT16), {"memory_bytes": 10**9, "threads": 1}
    monkeypatch.setattr(sparse, "RECORDS_PER_LINE", 10**9)
    pushed = sparse.push(graph, columns, sent, every, 1, **options)
    assert pushed.dense(rows)[0].tolist() == expected.tolist()
    rows[:] = 0
    assert (
        sparse.push_into_rows(graph, columns, sent, every, 1, make_out=lambda: rows, **options)[0].tolist() == expected.tolist()
    )


def test_what_is_no_bfloat16_is_rounded_when_it_is_spread():
    values = np.concatenate([np.array([0, 1, -1, 3.0e38, 1e-45]), np.random.default_rng(0).normal(size=999)]).astype(np.float32)
    out = np.empty((len(values), 1), np.uint16)
    sparse_kernels.spread(np.array([0, len(values)]), np.arange(len(values), dtype=np.uint32), values, 0, out)
    assert widened(out).tobytes() == naive_bfloat16(values).astype(np.float32).tobytes()
