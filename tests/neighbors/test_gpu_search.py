"""Searching on GPUs: what goes there and how. Where there is none, indexes on the CPU stand in for it."""

import shutil

import faiss
import numpy as np
import pytest

from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.neighbors import Inverted, assign_lists, gpu, search, train_centroids
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.stages.chain import import_roles, published_bytes
from tests.stages.test_same_bytes import mixture

K = 6


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 16))[rng.integers(0, 60, 5000)] + 0.3 * rng.normal(size=(5000, 16))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=[1, 3])
def sent(request, monkeypatch):
    """The indexes that went to one or three GPUs; shards on the CPU take ids and parts as those on GPUs do."""
    seen = []

    def to_all_gpus(index, co=None, ngpu=-1):
        seen.append((index.__class__.__name__, index.ntotal, bool(co and co.shard)))
        if not (co and co.shard):
            return faiss.clone_index(index)
        shards = faiss.IndexShards(index.d, True, isinstance(index, faiss.IndexFlat))
        for _ in range(request.param):
            shards.add_shard(faiss.clone_index(index))
        return shards

    for module in (faiss, faiss.extra_wrappers):  # where k-means counts them
        monkeypatch.setattr(module, "get_num_gpus", lambda: request.param)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", to_all_gpus)
    monkeypatch.setattr(gpu, "free_gpu_bytes", lambda: 2**34)
    seen.append(request.param)
    return seen


def found(*args, **options):
    ids, similarities = zip(*search(*args, k=K, **options), strict=True)
    return np.concatenate(ids), np.concatenate(similarities)


@pytest.mark.parametrize("metric", ["inner product", "euclidean"])
def test_exact_search(sent, vectors, metric):
    ids, similarities = found(vectors, vectors, metric=metric, device="cuda")
    expected_ids, expected = found(vectors, vectors, metric=metric)
    np.testing.assert_allclose(similarities, expected, atol=1e-5)
    assert (ids == expected_ids).mean() > 0.999
    assert sent[1:] == [("IndexFlat", 0, sent[0] > 1)]


@pytest.mark.parametrize(("precision", "kind", "off"), [("float32", "IVFFlat", 1e-6), ("float16", "IVFScalarQuantizer", 2e-3)])
def test_inverted_lists(sent, vectors, precision, kind, off):
    centroids = train_centroids(vectors)
    inverted = Inverted(centroids, assign_lists(vectors, centroids))
    ids, similarities = found(vectors, vectors, inverted=inverted, probes=9, device="cuda", precision=precision)
    expected_ids, expected = found(vectors, vectors, inverted=inverted, probes=9)
    np.testing.assert_allclose(similarities, expected, atol=off)
    assert (ids == expected_ids).mean() > (0.999 if precision == "float32" else 0.97)
    assert sent[1:] == [(f"Index{kind}", 0, sent[0] > 1)]


def test_training_and_assignment(sent, vectors):
    centroids = train_centroids(vectors, device="cuda")
    np.testing.assert_allclose(centroids, train_centroids(vectors), atol=1e-5)
    assert sent[1:] == 10 * [("IndexFlat", 0, sent[0] > 1)]  # in each iteration of k-means
    lists = assign_lists(vectors[4096:], centroids, device="cuda")
    np.testing.assert_array_equal(lists, assign_lists(vectors[4096:], centroids))
    assert sent[11:] == [("IndexFlat", 0, sent[0] > 1)]


def test_queries_at_a_time():
    assert gpu.gpu_query_rows(128, 32, 0, free=None, least=4096) == 4096
    assert gpu.gpu_query_rows(128, 32, 0, free=2**40, least=4096) == 65536
    assert gpu.gpu_query_rows(128, 32, 40_000, free=10 * 2**30, least=4096) == 32768
    assert gpu.gpu_query_rows(128, 32, 40_000, free=0, least=4096) == 4096


@pytest.fixture
def folder(tmp_path):
    import_roles(tmp_path / "store", mixture())
    reduce(tmp_path / "store", dim=16)
    return tmp_path / "store"


CUDA = Settings(device="cuda", overwrite=True)


def test_the_stage_puts_everything_on_the_gpu(sent, folder):
    twin = shutil.copytree(folder, folder.with_name("twin"))
    neighbors(folder, k=K, index="IVFFlat", probes=9, settings=CUDA)
    assert {kind for kind, *_ in sent[1:]} == {"IndexFlat", "IndexIVFFlat"}
    assert Store(folder).parameters("neighbors.background")["device"] == "cuda"
    assert Store(folder).record("neighbors.background")["plan"]["least_bytes"] > 768 * 2**20  # torch
    neighbors(twin, k=K, index="IVFFlat", probes=9, settings=Settings(device="cpu"))
    for role in ("background", "seeds", "tests"):
        ours, theirs = (Store(one).array(f"{role}/neighbor_ids") for one in (folder, twin))
        assert (ours == theirs).mean() > 0.99
    half = neighbors(folder, k=K, index="IVFFlat", probes=9, precision="float16", settings=CUDA)["background"]
    assert half["recall"]["recall"] > 0.9
    assert ("IndexIVFScalarQuantizer", 0, sent[0] > 1) in sent


def test_lists_on_disk_are_trained_where_asked(sent, folder):
    twin = shutil.copytree(folder, folder.with_name("twin"))
    neighbors(folder, k=K, index="list-major", probes=9)
    assert len(sent) == 1
    assert Store(folder).parameters("neighbors.background")["device"] == "cpu"
    neighbors(twin, k=K, index="list-major", probes=9, settings=CUDA)
    assert {kind for kind, *_ in sent[1:]} == {"IndexFlat"}
    assert published_bytes(Store(twin)).keys() == published_bytes(Store(folder)).keys()


def test_too_much_for_a_gpu(sent, folder, vectors, monkeypatch):
    monkeypatch.setattr(gpu, "free_gpu_bytes", lambda: 2**30)
    with pytest.raises(DoesNotFit, match=r"searching 5000 vectors takes 2 GiB of the memory of each GPU, but 1 GiB are free"):
        found(vectors, vectors, device="cuda")
    for options in ({"k": 2047}, {"k": 5, "index": "IVFFlat", "probes": 2049}):
        with pytest.raises(
            BadInput, match=r"on a GPU `k` \+ 2 and `probes` go up to 2048|`probes` is 2049; give from 1 to all 256"
        ):
            neighbors(folder, **options, settings=CUDA)
    with pytest.raises(BadInput, match="`precision` float16 is for `index` list-major, or IVFFlat on a GPU; Flat takes float32"):
        neighbors(folder, k=K, index="Flat", precision="float16", settings=CUDA)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_gpu_finds_what_the_cpu_finds(vectors, precision):
    if not faiss.get_num_gpus():
        pytest.skip("faiss finds no GPU")
    centroids = train_centroids(vectors, device="cuda")
    lists = assign_lists(vectors, centroids, device="cuda")
    assert (lists == assign_lists(vectors, centroids)).mean() > 0.999
    inverted = Inverted(centroids, lists)
    assert (found(vectors, vectors, device="cuda")[0] == found(vectors, vectors)[0]).mean() > 0.99
    ids, similarities = found(vectors, vectors, inverted=inverted, probes=9, device="cuda", precision=precision)
    expected_ids, expected = found(vectors, vectors, inverted=inverted, probes=9)
    np.testing.assert_allclose(similarities, expected, atol=1e-4 if precision == "float32" else 2e-3)
    assert (ids == expected_ids).mean() > 0.97
