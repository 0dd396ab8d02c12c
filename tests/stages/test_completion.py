"""Completing a table that was searched list after list: exactly as a loop does, or by the same lists."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.memory import clock
from ooc_diffusion.neighbors import list_major, permute
from ooc_diffusion.stages import completion
from ooc_diffusion.stages.completion import DEFAULT_RECALL, How, _recall_of_seeds
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.reference import naive_merge, naive_neighbors
from tests.stages.chain import Sample, import_roles, published_bytes
from tests.stages.test_same_bytes import interrupted, mixture

K, SEEDS = 7, 1030


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion") / "store"
    import_roles(folder, mixture())
    reduce(folder, dim=16)
    neighbors(folder, k=K, index="list-major", probes=9)
    return folder


@pytest.fixture
def folder(searched, tmp_path):
    return shutil.copytree(searched, tmp_path / "store")


@pytest.fixture
def many(monkeypatch):
    """Have a thousand seeds be too many for exact search."""
    monkeypatch.setattr(completion, "FEW_SEEDS", 100)


def test_exactly(folder):
    record = graph(folder, exact=True)
    store = Store(folder)
    assert "recall_of_seeds" not in record
    seeds = store.array("seeds/vectors")
    for role, first in (("seeds", 0), ("background", SEEDS)):
        rows = np.arange(len(store.array(f"{role}/vectors")))
        ids, similarities = naive_neighbors(seeds, K, store.array(f"{role}/vectors")[rows])
        known = store.array(f"{role}/neighbor_ids")[rows] + SEEDS
        expected, values = naive_merge(ids, similarities, known, store.array(f"{role}/similarities")[rows], K)
        assert (store.array("graph/neighbor_ids")[first + rows] == expected).mean() > 0.999
        np.testing.assert_allclose(store.array("graph/similarities")[first + rows], values, atol=1e-6)
    assert (store.array("graph/neighbor_ids")[SEEDS:] < SEEDS).mean() > 0.1


def naive_recall_of_background(store, table):
    """Of the seeds that are in rows of the background, or nearer than the last neighbor there, how many are in them."""
    similarities = store.array("background/vectors") @ store.array("seeds/vectors").T
    there = np.zeros(similarities.shape, bool)
    row, place = np.nonzero(table[SEEDS:] < SEEDS)
    there[row, table[SEEDS:][row, place]] = True
    nearer = similarities > store.array("graph/similarities")[SEEDS:, -1:] + 1e-6
    return there.sum() / (there | nearer).sum()


def test_by_lists_nearly_all_are_found_and_nothing_else(folder, tmp_path, many):
    exact = shutil.copytree(folder, tmp_path / "exact")
    record = graph(folder)
    graph(exact, exact=True)
    found, truth = Store(folder).array("graph/neighbor_ids"), Store(exact).array("graph/neighbor_ids")
    hits = np.array([len(np.intersect1d(a[a < SEEDS], b)) for a, b in zip(truth, found, strict=True)])
    for role, rows in (("seeds", slice(0, SEEDS)), ("background", slice(SEEDS, None))):
        recall = record["recall_of_seeds"][role]
        share = hits[rows].sum() / (truth[rows] < SEEDS).sum()
        counted = share if role == "seeds" else naive_recall_of_background(Store(folder), found)
        assert 1 - 2 * (1 - share) < counted <= share
        assert recall["recall"] == pytest.approx(counted, abs=2 * recall["uncertainty"])
        assert 0.8 < recall["recall"] < 1
    vectors = np.concatenate([Store(folder).array("seeds/vectors"), Store(folder).array("background/vectors")])
    rows = np.arange(SEEDS, len(vectors), 13)
    similarities = Store(folder).array("graph/similarities")[rows]
    np.testing.assert_allclose(np.einsum("qd,qkd->qk", vectors[rows], vectors[found[rows]]), similarities, atol=1e-5)


@pytest.mark.parametrize("target", [0.7, 0.99])
def test_as_many_lists_as_a_recall_takes(folder, target, many):
    found = graph(folder, target_recall=target)["recall_of_seeds"]["background"]
    assert target - found["uncertainty"] <= found["recall"] < target + 0.2
    if target != DEFAULT_RECALL:
        with pytest.raises(BadInput, match="target_recall"):
            graph(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_recall": 1.5}, r"`target_recall` is 1\.5; give a share above 0"),
        ({"target_recall": 0.9, "exact": True}, "exact search finds all seeds; leave out `target_recall`"),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(BadInput, match=message):
        graph(folder, **options)


def test_few_seeds_are_looked_for_everywhere(tmp_path, folder):
    neighbors(folder, k=K, index="list-major", probes=256, settings=Settings(overwrite=True))
    exact = shutil.copytree(folder, tmp_path / "exact")
    recall = graph(folder)["recall_of_seeds"]
    assert recall["seeds"]["recall"] == recall["background"]["recall"] == 1.0  # all lists are probed
    graph(exact, exact=True)
    same = Store(folder).array("graph/neighbor_ids") == Store(exact).array("graph/neighbor_ids")
    assert same.mean() > 0.9999


def test_interrupted_anywhere(folder, tmp_path, monkeypatch, many):
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr(permute, "BLOCK_ROWS", 700)
    monkeypatch.setattr(completion, "BLOCK_ROWS", 1024)
    monkeypatch.setattr(list_major, "query_rows", lambda q, probes: 300)
    before = shutil.copytree(folder, tmp_path / "before")
    appends = interrupted(monkeypatch, lambda: graph(folder), -1)
    expected = published_bytes(Store(folder))
    resumed = 0
    for at in range(0, appends, 5):
        again = shutil.copytree(before, tmp_path / f"at-{at}")
        interrupted(monkeypatch, lambda again=again: graph(again), at)
        resumed += graph(again)["resumed"]
        assert published_bytes(Store(again)) == expected, at
        assert list((again / "jobs").iterdir()) == []
        shutil.rmtree(again)
    assert resumed > appends // 10


@pytest.mark.parametrize("n_seeds", [1, 3, 20])
def test_a_handful_of_seeds(reduced_few, n_seeds, tmp_path):
    folder = reduced_few(n_seeds)
    recall = graph(folder, k=4)["recall_of_seeds"]["background"]
    store = Store(folder)
    ids, similarities = naive_neighbors(store.array("seeds/vectors"), 4, store.array("background/vectors"))
    known = store.array("background/neighbor_ids") + n_seeds
    expected, _ = naive_merge(ids, similarities, known, store.array("background/similarities"), 4)
    assert (expected < n_seeds).sum() > 0
    assert ((expected < n_seeds) == (store.array("graph/neighbor_ids")[n_seeds:] < n_seeds)).mean() > 0.9999
    assert recall["recall"] == 1.0
    assert recall["samples"] <= n_seeds


@pytest.fixture
def reduced_few(tmp_path):
    def make(n_seeds):
        whole = mixture(m=1030)
        folder = tmp_path / "few"
        seeds = whole.seeds[:n_seeds], whole.seeds_truth[:n_seeds]
        sample = Sample(whole.background, whole.background_truth, whole.tests, whole.tests_truth, *seeds)
        import_roles(folder, sample)
        reduce(folder, dim=16)
        neighbors(folder, k=K, index="list-major", probes=9)
        return folder

    return make


def test_identical_seeds_stand_for_each_other_in_recall(tmp_path):
    """All lists are visited, so that a seed misses others only for copies of them."""
    sample = mixture()
    sample.seeds[300:] = sample.seeds[300]
    folder = tmp_path / "store"
    import_roles(folder, sample)
    reduce(folder, dim=16)
    neighbors(folder, k=K, index="list-major", probes=256)
    assert graph(folder)["recall_of_seeds"]["seeds"]["recall"] == 1.0
    store = Store(folder)
    table = np.array(store.array("graph/neighbor_ids")[:SEEDS])
    table[300:] = SEEDS - 1 - np.arange(K)  # other copies than those that a loop finds
    assert _recall_of_seeds(store, table, K, How())["recall"] == 1.0
    table[300:, 2:] = np.arange(K - 2)
    copies = (SEEDS - 300) * (K - 2)
    naive, _ = naive_neighbors(store.array("seeds/vectors"), K, store.array("seeds/vectors"))
    assert (naive[300:] >= 300).all()
    counted = (store.array("graph/neighbor_ids")[:SEEDS] < SEEDS).sum()
    assert _recall_of_seeds(store, table, K, How())["recall"] == pytest.approx(1 - copies / counted, abs=0.01)


@pytest.mark.parametrize(("background", "seeds"), [(20, 20), (100, 5), (1, 100), (0, 100)])
def test_descriptors_that_are_all_zeros(tmp_path, many, background, seeds):
    sample, folder = mixture(), tmp_path / "store"
    sample.background[:background], sample.seeds[:seeds] = 0, 0
    import_roles(folder, sample)
    reduce(folder, dim=0)
    neighbors(folder, k=K, index="list-major", probes=9)
    with np.errstate(all="raise"):
        recall = graph(folder)["recall_of_seeds"]["background"]["recall"]
    assert recall > 0.95
    assert (Store(folder).array("graph/neighbor_ids")[SEEDS:] < SEEDS).mean() > 0.1


def test_half_precision_is_not_exact(folder):
    neighbors(folder, k=K, index="list-major", probes=9, precision="float16", settings=Settings(overwrite=True))
    with pytest.raises(BadInput, match="exact search needs float32"):
        graph(folder, exact=True)
    assert graph(folder)["recall_of_seeds"]["background"]["recall"] > 0.97


def test_exact_has_no_other_meaning(folder):
    graph(folder)
    with pytest.raises(BadInput, match="exact"):
        graph(folder, exact=True)


@pytest.mark.parametrize("index", ["list-major", "Flat"])
def test_seconds_of_each_block_are_its_own(folder, monkeypatch, index):
    """The clock goes on where a block is searched, or two are merged, and nowhere else."""
    if index == "Flat":
        neighbors(folder, k=K, index=index, settings=Settings(overwrite=True))
    now, spent = [0.0], {"seeds": 3.0, "background": 50.0, "tests": 700.0, "merge": 11000.0}
    real, entered, merge, calls = completion._searched, completion.entered, completion.merge_neighbors, {}
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def spend(what):
        now[0] += spent[what]
        calls[what] = calls.get(what, 0) + 1

    def slowly(what, blocks):
        for block in blocks:
            spend(what)
            yield block

    def merged(*args, **options):
        spend("merge")
        return merge(*args, **options)

    monkeypatch.setattr(completion, "_searched", lambda *args: slowly(args[2], real(*args)))
    monkeypatch.setattr(completion, "entered", lambda *args: slowly("background", entered(*args)))
    monkeypatch.setattr(completion, "merge_neighbors", merged)
    blocks = graph(folder)["block_seconds"]
    names = {"W_LL": "seeds", "W_BL": "background", "tests": "tests", "merge": "merge"}
    assert set(calls) == set(spent)
    calls["merge"] -= index == "list-major"  # once more for the recall of a sample
    assert blocks == {block: calls[what] * spent[what] for block, what in names.items()}
