"""The mutual graph: edges that both ends list, to the last bit, whatever the budget, threads and interruptions; and its check."""

import numpy as np
import pytest

from ooc_diffusion import build_graph
from ooc_diffusion.errors import BadInput, CorruptStore
from ooc_diffusion.graph import build, check, kernels
from ooc_diffusion.store import Store
from tests.graph.test_build import arrays, as_matrix
from tests.reference import awkward_table, naive_w0

N = 300


@pytest.fixture(scope="module", params=["constant", "weighted"])
def table(request):
    """Half of the neighbors list back; a hub that all of its part list; nodes that lose every edge."""
    rng = np.random.default_rng(8)
    ids, weights = awkward_table(rng, N, 7)
    for i in range(1, N, 2):
        j = ids[i, 2]
        if j > 0 and i not in ids[j]:
            ids[j, rng.integers(3, 7)] = i
    return ids, weights if request.param == "weighted" else None


def naive_mutual(ids, weights):
    """D^-1 S of S = W0 + W0ᵀ where both are there; the pattern comes from the lists, since weights may be 0."""
    W0, lists = naive_w0(ids, len(ids), weights).toarray(), naive_w0(ids, len(ids)).toarray() > 0
    S = np.where(lists & lists.T, W0 + W0.T, 0)
    sums = S.sum(axis=1, keepdims=True)
    return S / np.where(sums > 0, sums, 1), lists & lists.T


def test_equals_the_dense_one(table):
    ids, weights = table
    order = np.random.default_rng(1).permutation(N).astype(np.uint32)
    graph = build_graph(ids, weights=weights, order=order, mutual=True)
    expected, pattern = naive_mutual(ids, weights)
    np.testing.assert_allclose(as_matrix(graph), expected, rtol=3e-7, atol=0)
    assert graph.nnz == pattern.sum()
    assert (graph.indices >> 31).all()
    rows = np.diff(graph.indptr)
    alone = ~pattern.any(axis=1)
    assert 5 < alone.sum() < N - 20
    assert (rows[graph.position[alone]] == 0).all()
    assert (graph.row_scale[graph.position[alone]] == 0).all()
    assert not np.array_equal(as_matrix(graph), as_matrix(build_graph(ids, weights=weights)))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_same_bytes_for_any_row_range_and_thread_count(table, monkeypatch, threads):
    ids, weights = table
    expected = arrays(build_graph(ids, weights=weights, mutual=True))
    monkeypatch.setattr(build, "_TABLE_ROWS", 11)
    monkeypatch.setattr(build, "_sorting_bytes", lambda *args: 0)
    monkeypatch.setattr(build.MemoryBudget, "units", lambda self, unit, **kw: 900)
    assert arrays(build_graph(ids, weights=weights, mutual=True, threads=threads)) == expected


def test_an_interrupted_run_goes_on(table, tmp_path, monkeypatch):
    ids, weights = table
    expected = arrays(build_graph(ids, weights=weights, mutual=True))
    monkeypatch.setattr(build, "_TABLE_ROWS", 11)
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    append, calls = build._Rows.append, []

    def crashing(self, *args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        append(self, *args)

    monkeypatch.setattr(build._Rows, "append", crashing)
    with pytest.raises(KeyboardInterrupt):
        build_graph(ids, weights=weights, mutual=True, store=tmp_path / "g")
    assert arrays(build_graph(ids, weights=weights, mutual=True, store=tmp_path / "g")) == expected
    assert len(calls) == -(-N // 11) + 1  # the rows of before were kept, and with them what was left out of them
    assert not list((tmp_path / "g").glob("data/graph.one_way*"))


def test_it_is_another_graph_for_the_store(table, tmp_path):
    ids, weights = table
    build_graph(ids, weights=weights, store=tmp_path / "g")
    with pytest.raises(BadInput, match="mutual"):
        build_graph(ids, weights=weights, store=tmp_path / "g", mutual=True)
    build_graph(ids, weights=weights, store=tmp_path / "g", mutual=True, overwrite=True)
    assert Store(tmp_path / "g").record("graph")["reciprocal_share"] == 1


@pytest.mark.parametrize("fault", ["one way", "dropped", "not counted"])
def test_what_is_wrong_is_found(table, monkeypatch, fault):
    ids, weights = table
    keep = build.mutual_kernels.keep_mutual

    def faulty(bounds, starts, keys, weights, lengths, scale, one_way, ends):
        if fault == "one way":  # one edge passes for mutual at one of its ends
            e = starts[0] + int(np.argmin(keys[starts[0] : ends[0]] >> 31))
            keys[e] |= kernels.RECIPROCAL
        keep(bounds, starts, keys, weights, lengths, scale, one_way, ends)
        if fault == "dropped":
            row = int(np.flatnonzero(lengths)[-1])
            lengths[row] -= 1
            ends[-1] -= 1
            scale[row] = 1 / (2 * lengths[row]) if lengths[row] else 0
        elif fault == "not counted":
            one_way[3] += 1

    monkeypatch.setattr(build.mutual_kernels, "keep_mutual", faulty)
    with pytest.raises(CorruptStore, match="the graph failed its self-check"):
        build_graph(ids, weights=weights, mutual=True, threads=1)


@pytest.mark.parametrize("mutual", [False, True])
def test_the_sample_knows_which_edges_belong_to_a_mutual_graph(mutual):
    ids = np.array([[0, 1], [1, 0], [2, 1]])  # 2 lists 1, not the other way round
    same = np.arange(3, dtype=np.uint32)
    bit = np.uint32(1 << 31)
    entries = np.array([bit, 1 | bit, bit, 1 | bit, 2, 1, 2 | bit], np.uint32)
    graph = check.GraphArrays(
        same, same, np.array([0, 2, 5, 7]), entries, np.empty(0, np.float32), np.float32([1 / 4, 1 / 5, 1 / 3])
    )
    options = {"halves": 12, "threads": 1, "advance": lambda rows: None}
    if not mutual:
        assert check.check_graph(graph, ids, None, **options)["nnz"] == 7
        return
    with pytest.raises(CorruptStore, match="row 1 .*in no neighbor list"):
        check.check_graph(graph, ids, None, mutual=True, **options)
