"""Searching with a faiss index from a file, from end to end."""

import os
import shutil

import faiss
import numpy as np
import pytest

from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.neighbors import foreign_index
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.stages.chain import import_roles, published_bytes, write_labels
from tests.stages.test_same_bytes import interrupted, mixture

K = 7


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "store"
    import_roles(folder, mixture())
    reduce(folder, dim=16)
    return folder


@pytest.fixture
def folder(reduced, tmp_path):
    return shutil.copytree(reduced, tmp_path / "store")


def write(folder, spec="Flat", metric=faiss.METRIC_INNER_PRODUCT):
    X = np.ascontiguousarray(Store(folder).array("background/vectors"))
    index = faiss.index_factory(16, spec, metric)
    index.train(X)
    index.add(X)
    faiss.write_index(index, str(folder.parent / "my.faiss"))
    return folder.parent / "my.faiss"


def test_an_exact_index_gives_the_same_graph(folder, tmp_path):
    twin = shutil.copytree(folder, tmp_path / "twin")
    records = neighbors(folder, k=K, index_file=write(folder))
    assert records["background"]["recall"]["recall"] == pytest.approx(1, abs=0.001)
    assert records["background"]["kind"] == "IndexFlatIP"
    neighbors(twin, k=K)
    for one in (folder, twin):
        graph(one)
        diffuse(one, labels=write_labels(one, range(20), [row % 5 for row in range(20)]), n_iter=2)
    ours, theirs = Store(folder), Store(twin)
    assert published_bytes(ours).keys() == published_bytes(theirs).keys()
    for role in ("background", "seeds", "tests"):
        np.testing.assert_allclose(ours.array(f"{role}/similarities"), theirs.array(f"{role}/similarities"), atol=1e-6)
    for name in ("graph/indptr", "graph/indices", "graph/query_ids"):
        assert ours.array(name).tobytes() == theirs.array(name).tobytes(), name


def test_lists_are_probed_and_the_recall_is_measured(folder):
    file = write(folder, "IVF64,Flat", faiss.METRIC_L2)
    few = neighbors(folder, k=K, index_file=file, probes=1)
    again = Settings(overwrite=True)
    many = neighbors(folder, k=K, index_file=file, settings=again)
    assert [record["probes"] for record in few.values()] == [1, 1, 1]
    assert many["background"]["probes"] == 48
    assert few["background"]["recall"]["recall"] < 0.9 < 0.99 < many["background"]["recall"]["recall"]
    with pytest.raises(BadInput, match=r"below the 0\.99 that was asked for; give another table or index, with --overwrite"):
        neighbors(folder, k=K, index_file=file, probes=1, min_recall=0.99, settings=again)
    for role in ("background", "seeds", "tests"):
        queries, ids, values = Store(folder).arrays(f"{role}/vectors", f"{role}/neighbor_ids", f"{role}/similarities")
        products = np.einsum("qd,qkd->qk", queries, Store(folder).array("background/vectors")[ids])
        np.testing.assert_allclose(values, products, atol=1e-5)


def test_interrupted_and_changed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr(foreign_index, "QUERY_ROWS", 1000)
    file = write(folder, "HNSW16")
    before = shutil.copytree(folder, tmp_path / "before")
    appends = interrupted(monkeypatch, lambda: neighbors(folder, k=K, index_file=file), -1)
    expected = published_bytes(Store(folder))
    for at in (4, 7, appends - 2):
        again = shutil.copytree(before, tmp_path / f"at-{at}")
        interrupted(monkeypatch, lambda again=again: neighbors(again, k=K, index_file=file), at)
        assert any(record.get("resumed") for record in neighbors(again, k=K, index_file=file).values())
        assert published_bytes(Store(again)) == expected, at
    interrupted(monkeypatch, lambda: neighbors(before, k=K, index_file=file), 6)
    os.utime(file, ns=(0, 0))
    with pytest.raises(BadInput, match="was interrupted with index_file = .* give the same again, or --overwrite"):
        neighbors(before, k=K, index_file=file)


def test_the_memory_of_both_processes_is_planned(folder):
    file = write(folder, "HNSW16")
    with pytest.raises(DoesNotFit, match="stage neighbors needs a memory budget of") as error:
        neighbors(folder, k=K, index_file=file, settings=Settings(memory_budget="64MiB"))
    least = int(str(error.value).split("budget of ")[1].split("MiB")[0])
    planned = neighbors(folder, k=K, index_file=file, settings=Settings(dry_run=True))["background"]["plan"]
    assert planned["work"] == f"an index of {file.stat().st_size:,} bytes, of 4,200 vectors"
    record = neighbors(folder, k=K, index_file=file, settings=Settings(memory_budget=f"{least + 64}MiB"))["background"]
    assert record["peak_memory_bytes"] <= record["plan"]["memory_bytes"] <= record["memory_budget_bytes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": "Flat"}, "everything is searched with the index of the file; leave out `table` and `index`, or `index_file`"),
        ({"table": "ids.npy"}, "leave out `table` and `index`"),
        ({"target_recall": 0.9}, "`target_recall` is for lists that are made here; with `index_file` give `probes`"),
        ({"precision": "float16"}, "`precision` float16 is for `index` list-major"),
        ({"probes": 0}, "`probes` is 0; give"),
        ({"probes": 3}, r"`probes` is 3, but .*my.faiss \(IndexFlatIP\) has 0 lists; give at most that, or none"),
        ({"index_file": "none.faiss"}, "none.faiss cannot be read: No such file"),
        ({"index_file": "/tmp"}, "/tmp is no file; give one that faiss.write_index wrote"),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(BadInput, match=message):
        neighbors(folder, k=K, **({"index_file": write(folder)} | options))


def test_vectors_of_zeros_are_near_to_everything_by_distance(tmp_path):
    folder, sample = tmp_path / "store", mixture()
    sample.background[7] = 0  # an image that could not be read
    import_roles(folder, sample)
    reduce(folder, dim=0)
    X = np.ascontiguousarray(Store(folder).array("background/vectors"))
    for metric in (faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT):
        index = faiss.index_factory(X.shape[1], "Flat", metric)
        index.add(X)
        faiss.write_index(index, str(tmp_path / "my.faiss"))
        if metric == faiss.METRIC_L2:
            with pytest.raises(BadInput, match="searches by L2, but the background has vectors of zeros"):
                neighbors(folder, k=K, index_file=tmp_path / "my.faiss", settings=Settings(overwrite=True))
    assert neighbors(folder, k=K, index_file=tmp_path / "my.faiss", settings=Settings(overwrite=True))["background"]["images"]


def test_the_plan_reads_the_index_and_searches_nothing(folder):
    file = write(folder)
    reads = neighbors(folder, k=K, index_file=file, settings=Settings(dry_run=True))["background"]["plan"]["reads"]
    assert "searching" not in reads
    assert reads["index"] == 2 * file.stat().st_size
