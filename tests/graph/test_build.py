"""The graph on disk equals the naive W for every budget, block size and thread count."""

import contextlib

import numpy as np
import pytest
import scipy.sparse as sp

from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.graph import build, build_graph, kernels
from tests.reference import awkward_table, naive_csr, naive_w, naive_w0


def as_matrix(graph):
    """The graph as a SciPy matrix in the caller's ids."""
    entries = np.asarray(graph.indices)
    columns = entries & 0x7FFFFFFF
    values = 1.0 + (entries >> 31) if graph.weights is None else graph.weights.astype(np.float64)
    W = sp.csr_array((values, columns, graph.indptr), shape=(graph.n, graph.n))
    W = sp.diags_array(graph.row_scale.astype(np.float64)) @ W
    position = graph.position.astype(np.int64)
    return W.tocsr()[position][:, position].toarray()


def arrays(graph):
    names = ["order", "position", "indptr", "indices", "row_scale", "weights"]
    return [np.asarray(getattr(graph, name)).tobytes() for name in names if getattr(graph, name) is not None]


@pytest.fixture(params=["constant", "weighted"])
def table(request):
    rng = np.random.default_rng(3)
    ids, weights = awkward_table(rng, 83, 6)
    return ids, (weights.astype(np.float32) if request.param == "weighted" else None)


@pytest.mark.parametrize("shuffled", [False, True])
def test_equals_naive_w(table, shuffled):
    ids, weights = table
    order = np.random.default_rng(0).permutation(len(ids)).astype(np.uint32) if shuffled else None
    graph = build_graph(ids, weights=weights, order=order, threads=2)
    np.testing.assert_allclose(as_matrix(graph), naive_w(ids, weights).toarray(), rtol=2e-7, atol=0)


def test_reciprocal_edges_and_the_diagonal_count_twice():
    graph = build_graph(np.array([[0, 1], [0, 1], [2, 0]]))
    expected = np.array([[2, 2, 1], [2, 2, 0], [1, 0, 2]]) / np.array([[5], [4], [3]])
    np.testing.assert_allclose(as_matrix(graph), expected, rtol=1e-7)


def test_rows_are_ascending_and_lists_of_any_integer_type_give_the_same_bytes(table):
    ids, weights = table
    graph = build_graph(ids, weights=weights)
    for row in range(graph.n):
        columns = graph.indices[graph.indptr[row] : graph.indptr[row + 1]] & 0x7FFFFFFF
        assert (np.diff(columns.astype(np.int64)) > 0).all()
    for dtype in (np.int32, np.int16):
        assert arrays(build_graph(ids.astype(dtype), weights=weights)) == arrays(graph)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("block_rows", [1, 82, 83, 84])
def test_same_bytes_for_any_block_and_range(table, monkeypatch, threads, block_rows):
    ids, weights = table
    expected = arrays(build_graph(ids, weights=weights))
    monkeypatch.setattr(build, "_TABLE_ROWS", block_rows)
    ends = iter(np.linspace(0, 83, block_rows % 7 + 2).astype(int)[1:])
    monkeypatch.setattr(build, "_range_end", lambda *a: int(next(ends)))
    assert arrays(build_graph(ids, weights=weights, threads=threads)) == expected


@pytest.fixture(scope="module", params=["constant", "weighted"])
def crowd(request):
    """A table with a hub that is too long for buckets, neighbors near and far, and its graph to the last bit."""
    rng = np.random.default_rng(11)
    ids, weights = awkward_table(rng, 3600, 12)
    near = (np.arange(3600)[:, None] + rng.integers(-3, 4, (3600, 6))) % 3600
    ids[:, 1:7] = np.where(rng.random((3600, 6)) < 0.5, near, ids[:, 1:7])
    weights = weights if request.param == "weighted" else None
    order = rng.permutation(3600).astype(np.uint32)
    assert np.bincount(ids[ids >= 0]).max() > kernels.SHORT
    return ids, weights, order, naive_csr(ids, weights, order)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("entries", [10**6, 2**15, 2**14])
def test_the_bytes_are_those_of_the_reference(crowd, monkeypatch, threads, entries):
    ids, weights, order, expected = crowd
    ranges = []
    original = build._range_end
    monkeypatch.setattr(build, "_range_end", lambda *a: ranges.append(original(*a)) or ranges[-1])
    monkeypatch.setattr(build.MemoryBudget, "units", lambda self, unit, **kw: entries if weights is None else 16 * entries)
    # also more threads than this machine has
    monkeypatch.setattr("ooc_diffusion.graph.api.limit_threads", lambda wanted: contextlib.nullcontext(threads))
    graph = build_graph(ids, weights=weights, order=order)
    if weights is None:
        assert (len(ranges) > 1) == (entries < 10**6)
    for name, values in zip(["indptr", "indices", "row_scale", "weights"], expected, strict=True):
        assert values is None or np.asarray(getattr(graph, name)).tobytes() == values.tobytes(), name


def test_ranges_follow_the_budget(monkeypatch):
    ids, _ = awkward_table(np.random.default_rng(5), 400, 10)
    seen = []
    original = build._merge_range
    monkeypatch.setattr(build, "_merge_range", lambda *a: seen.append(a[1:3]) or original(*a))
    monkeypatch.setattr(build.MemoryBudget, "units", lambda self, unit, **kw: 2000)
    small = arrays(build_graph(ids))
    ranges = list(seen)
    monkeypatch.undo()
    assert len(ranges) > 3
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 400
    assert small == arrays(build_graph(ids))


def test_a_hub_that_does_not_fit_is_refused(monkeypatch):
    ids = np.zeros((500, 1), np.int32)
    monkeypatch.setattr(build.MemoryBudget, "units", lambda self, unit, **kw: 500)
    with pytest.raises(DoesNotFit, match="501 neighbor lists.*--memory-budget"):
        build_graph(ids)


def test_a_budget_too_small_names_the_smallest():
    with pytest.raises(DoesNotFit, match=r"needs a memory budget of \d+MiB"):
        build_graph(np.zeros((10, 3), np.int64), memory_budget=70 * 2**20)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([[0, 1], [1, 2]]), "row 1 .* holds the id 2; ids go from 0 to 1"),
        (np.array([[0, -2]]), "row 0 .* holds the id -2"),
        (np.array([[0.0, 1.0]]), "holds float64"),
        (np.array([0, 1]), "shape"),
        (np.empty((3, 0), np.int64), "shape"),
    ],
)
def test_bad_tables(ids, message):
    with pytest.raises(BadInput, match=message):
        build_graph(ids)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_bad_weights(value):
    weights = np.ones((5, 2))
    weights[3, 1] = value
    with pytest.raises(BadInput, match="row 3 of the weights"):
        build_graph(np.zeros((5, 2), np.int64), weights=weights)


def test_another_table_in_the_same_store_is_refused(tmp_path):
    table = np.array([[0, 1], [1, 0]])
    first = build_graph(table, store=tmp_path / "g")
    assert arrays(build_graph(table, store=tmp_path / "g")) == arrays(first)
    with pytest.raises(BadInput, match="other table.*--overwrite"):
        build_graph(table[::-1], store=tmp_path / "g")
    assert build_graph(table[:, :1], store=tmp_path / "g", overwrite=True).nnz == 2


def test_the_callers_table_is_untouched_and_may_be_read_only():
    ids, _ = awkward_table(np.random.default_rng(1), 40, 4)
    before = ids.copy()
    ids.flags.writeable = False
    build_graph(ids)
    np.testing.assert_array_equal(ids, before)


def test_naive_w0_agrees_on_repeats():
    assert naive_w0(np.array([[1, 1, -1], [0, 1, 0]]), 2).toarray().tolist() == [[0, 1], [1, 1]]
