"""Neighbors searched list after list on disk: the same table for any budget and interruption, and the recall asked for."""

import shutil

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.memory import MemoryBudget
from ooc_diffusion.neighbors import list_major, permute
from ooc_diffusion.stages import ordered_search
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.reference import naive_list_search, naive_neighbors
from tests.stages.chain import import_roles, published_bytes
from tests.stages.test_same_bytes import interrupted, mixture

K, PROBES = 7, 9


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ordered") / "store"
    import_roles(folder, mixture())
    reduce(folder, dim=16)
    return folder


@pytest.fixture
def folder(reduced, tmp_path):
    return shutil.copytree(reduced, tmp_path / "store")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr(list_major, "query_rows", lambda q, probes: 1000)
    monkeypatch.setattr(permute, "BLOCK_ROWS", 700)
    for module in ("neighbors", "ordered_search"):
        monkeypatch.setattr(f"ooc_diffusion.stages.{module}.BLOCK_ROWS", 1024)


def search(folder, **options):
    settings = options.pop("settings", None)
    return neighbors(folder, k=K, index="list-major", probes=PROBES, settings=settings, **options)


def test_tables_are_those_of_a_loop(folder):
    records = search(folder)
    store = Store(folder)
    X, lists, centroids = store.arrays("background/vectors", "background/lists", "background/centroids")
    rng = np.random.default_rng(0)
    for role in ("background", "seeds", "tests"):
        queries, ids, similarities = store.arrays(f"{role}/vectors", f"{role}/neighbor_ids", f"{role}/similarities")
        assert ids.shape == (len(queries), K + 2)
        rows = rng.choice(len(queries), 40, replace=False)
        expected = naive_list_search(X, lists, centroids, queries[rows], K + 2, PROBES)
        assert (ids[rows] == expected).mean() > 0.99
        np.testing.assert_allclose(np.einsum("qd,qkd->qk", queries, X[ids]), similarities, atol=1e-5)
        assert (np.diff(similarities, axis=1) <= 0).all()
        assert records[role]["probes"] == PROBES
    truth, _ = naive_neighbors(X, K, X[::20])
    table = store.array("background/neighbor_ids")[::20, :K]
    found = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(truth, table, strict=True)])
    recall = records["background"]["recall"]
    assert recall["recall"] == pytest.approx(found, abs=2 * recall["uncertainty"])
    assert recall["samples"] == 1000
    assert records["background"]["short"] == 0


def test_the_vectors_stand_in_the_order_of_the_graph(folder):
    search(folder)
    store = Store(folder)
    order, ordered, starts, lists = store.arrays(*(f"background/{a}" for a in ("order", "ordered", "list_starts", "lists")))
    np.testing.assert_array_equal(ordered, store.array("background/vectors")[order])
    np.testing.assert_array_equal(np.repeat(np.arange(len(starts) - 1), np.diff(starts)), lists[order])


def test_no_budget_changes_a_byte(folder, tmp_path, monkeypatch):
    other = shutil.copytree(folder, tmp_path / "other")
    search(folder)
    expected = published_bytes(Store(folder))
    with pytest.raises(DoesNotFit) as error:
        search(other, settings=Settings(memory_budget="64MiB"))
    least = int(str(error.value).split("budget of ")[1].split("MiB")[0]) + 64  # this process may hold more by then
    # a few rows in each range
    some = permute.permuted
    monkeypatch.setattr(ordered_search, "permuted", lambda *a, memory_bytes, **options: some(*a, memory_bytes=2**16, **options))
    monkeypatch.setattr(ordered_search, "searches_at_once", lambda *a: 1)
    record = search(other, settings=Settings(memory_budget=f"{least}MiB"))["background"]
    assert record["peak_memory_bytes"] <= record["memory_budget_bytes"]
    assert published_bytes(Store(other)) == expected


def test_interrupted_anywhere(folder, tmp_path, small_blocks, monkeypatch):
    before = shutil.copytree(folder, tmp_path / "before")
    appends = interrupted(monkeypatch, lambda: search(folder), -1)
    expected = published_bytes(Store(folder))
    resumed = 0
    for at in range(0, appends, 4):
        again = shutil.copytree(before, tmp_path / f"at-{at}")
        interrupted(monkeypatch, lambda again=again: search(again), at)
        records = search(again)
        assert published_bytes(Store(again)) == expected, at
        resumed += any(record.get("resumed", False) for record in records.values())
        assert list((again / "jobs").iterdir()) == []
        assert {entry.file for entry in Store(again).manifest.arrays.values()} == {
            f"data/{file.name}" for file in (again / "data").iterdir()
        }
        shutil.rmtree(again)
    assert resumed > appends // 8


def test_through_buckets_the_bytes_are_the_same_wherever_interrupted(folder, tmp_path, small_blocks, monkeypatch):
    before = shutil.copytree(folder, tmp_path / "before")
    search(folder)
    expected, units = published_bytes(Store(folder)), MemoryBudget.units
    room = 40_000  # 625 vectors, 1111 rows of the tables

    def few(budget, unit_bytes, *, what, **options):
        return room // unit_bytes if what == "putting rows in order" else units(budget, unit_bytes, what=what, **options)

    monkeypatch.setattr(MemoryBudget, "units", few)
    monkeypatch.setattr("ooc_diffusion.stages.buckets.BLOCK_ROWS", 900)
    appends = interrupted(monkeypatch, lambda: search(shutil.copytree(before, tmp_path / "whole")), -1)
    assert published_bytes(Store(tmp_path / "whole")) == expected
    for at in range(6, appends, 45):
        again = shutil.copytree(before, tmp_path / f"at-{at}")
        room = 40_000
        interrupted(monkeypatch, lambda again=again: search(again), at)
        room = 40_000 if at % 2 else 15_000  # a bucket no longer fits, and is gone through several times
        search(again)
        assert published_bytes(Store(again)) == expected, at
        assert {entry.file for entry in Store(again).manifest.arrays.values()} == {
            f"data/{file.name}" for file in (again / "data").iterdir()
        }
        shutil.rmtree(again)
    assert appends > 150


@pytest.mark.parametrize("target", [0.5, 0.9, 0.99])
def test_as_many_lists_as_a_recall_takes(folder, target):
    record = neighbors(folder, k=K, index="list-major", target_recall=target)["background"]
    assert target <= record["recall"]["recall"] < target + 0.15
    assert 1 <= record["probes"] < 200
    assert Store(folder).parameters("neighbors.background")["target_recall"] == target


def test_too_low_a_recall_is_an_error_and_nothing_is_lost(folder):
    with pytest.raises(BadInput, match=r"recall is 0\.\d+ ± 0\.\d+, below the 0\.9999 that was asked for; give more --probes"):
        search(folder, min_recall=0.9999)
    assert "background/neighbor_ids" not in Store(folder)
    record = search(folder, min_recall=0.1)["background"]
    assert record["resumed"]
    assert record["recall"]["recall"] > 0.1
    with pytest.raises(BadInput, match="below the 0.9999"):  # nor of a table that is there
        search(folder, min_recall=0.9999)


def test_half_precision_halves_what_is_read(folder):
    record = search(folder, precision="float16")["background"]
    store = Store(folder)
    assert store.array("background/ordered").dtype == np.float16
    exact = search(folder, settings=Settings(overwrite=True))["background"]
    assert record["recall"]["recall"] == pytest.approx(exact["recall"]["recall"], abs=0.005)
    assert record["recall"]["recall"] < record["recall"]["visited"]
    assert record["recall"]["visited"] == pytest.approx(exact["recall"]["recall"], abs=1e-12)
    assert "visited" not in exact["recall"]
    graph(folder)


@pytest.mark.parametrize("index", ["IVFFlat", "list-major"])
def test_any_number_of_probes(folder, index):
    few = neighbors(folder, k=K, index=index, probes=1)["background"]
    many = neighbors(folder, k=K, index=index, probes=256, settings=Settings(overwrite=True))["background"]
    assert few["recall"]["recall"] < 0.8 < 0.999 < many["recall"]["recall"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 257}, "`probes` is 257; give from 1 to all 256 lists"),
        ({"probes": 0}, "`probes` is 0; give from 1"),
        ({"probes": 3, "target_recall": 0.5}, "give either `probes` or `target_recall`"),
        ({"target_recall": 0.0}, r"`target_recall` is 0\.0; give a share above 0"),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(BadInput, match=message):
        neighbors(folder, k=K, index="list-major", **options)
