"""Searching on GPUs: what goes there and how. Where there is none, indexes on the CPU stand in for it."""

import shutil
import sys

import faiss
import numpy as np
import pytest

from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.memory import format_size
from ooc_diffusion.neighbors import Inverted, assign_lists, gpu, search, train_centroids
from ooc_diffusion.stages.addition import add_images
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.search_options import where_searched
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.stages.chain import import_roles, published_bytes
from tests.stages.test_same_bytes import interrupted, mixture

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


def needed_bytes(n, d, index, gpus, itemsize=4):
    """Each GPU has 2 GiB for faiss, its part of vectors and ids, in lists up to twice that, and the centroids of the lists."""
    if index == "Flat":
        return 2 * 2**30 + n * (4 * d + 8) // gpus
    return 2 * 2**30 + 2 * (n * (itemsize * d + 8) // gpus) + 4 * int(n**0.5) * 4 * d


def where(n, index, device, precision="float32"):
    try:
        return where_searched(n, 128, index, Settings(device=device), precision)
    except DoesNotFit as error:
        return str(error)


@pytest.mark.parametrize(("n", "searched", "elsewhere"), [(250_000, "IVFFlat", "list-major"), (90_000, "Flat", "Flat")])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_auto_takes_what_the_gpus_have_the_memory_for(sent, monkeypatch, n, searched, elsewhere, precision):
    half = precision == "float16" and searched == "IVFFlat"
    least = needed_bytes(n, 128, searched, sent[0], itemsize=2 if half else 4)
    refused = (
        f"searching {n} vectors takes {format_size(least)} of the memory of each GPU, but {format_size(least - 1)} can be had; "
    )
    refused += "give `index` list-major, or --device cpu"
    for usable, free in ((None, 0), (least, 0), (least, 2**50), (least - 1, 0), (least - 1, 2**50)):
        monkeypatch.setattr(gpu, "usable_gpu_bytes", lambda usable=usable: usable)
        monkeypatch.setattr(gpu, "free_gpu_bytes", lambda free=free: free)  # which changes, and does not count
        fits = usable != least - 1
        assert where(n, "auto", "auto", precision) == ((searched, "cuda") if fits else (elsewhere, "cpu"))
        assert where(n, searched, "auto", precision) == ((searched, "cuda") if fits else refused)
        assert where(n, searched, "cuda", precision) == ((searched, "cuda") if fits else refused)
        # what is exact otherwise is not searched by lists because of a GPU
        asked = ("list-major", "cuda") if elsewhere == "list-major" else refused
        assert where(n, "auto", "cuda", precision) == ((searched, "cuda") if fits else asked)
        assert where(n, "auto", "cpu", precision) == (elsewhere, "cpu")
        for index in ("list-major", "file"):
            assert where(n, index, "auto", precision) == (index, "cpu")
            assert where(n, index, "cuda", precision) == (index, "cuda")
    assert len(sent) == 1


@pytest.fixture
def many(monkeypatch):
    """Have 4200 images be too many for exact search."""
    monkeypatch.setattr(sys.modules[search.__module__], "_LARGEST_FLAT", 4000)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_what_no_gpu_holds_is_searched_list_after_list(sent, many, folder, monkeypatch, device):
    """As if that had been asked for; what fits is not, and nobody asks how much is free."""
    twin, other = (shutil.copytree(folder, folder.with_name(name)) for name in ("twin", "other"))
    monkeypatch.setattr(gpu, "usable_gpu_bytes", lambda: 2 * 2**30)
    settings = Settings(device=device)
    planned = neighbors(folder, k=K, settings=Settings(device=device, dry_run=True))
    found = neighbors(folder, k=K, settings=settings)
    for role, record in found.items():
        assert record["index"] == "list-major"
        assert record["plan"]["work"].startswith("list-major, ")
        assert all(record["plan"][name] == planned[role]["plan"][name] for name in ("work", "disk_bytes", "operations"))
        # the seconds of training on a GPU are not foretold
        assert ("planned_seconds" in planned[role]) == (device == "auto")
    assert {kind for kind, *_ in sent[1:]} == (set() if device == "auto" else {"IndexFlat"})
    asked = Settings(device="cpu" if device == "auto" else "cuda")
    neighbors(twin, k=K, index="list-major", settings=asked)
    assert published_bytes(Store(folder)) == published_bytes(Store(twin))
    assert neighbors(folder, k=K, index="list-major", settings=asked)["background"]["skipped"]
    monkeypatch.setattr(gpu, "usable_gpu_bytes", lambda: 2**32)
    assert neighbors(other, k=K, settings=settings)["background"]["index"] == "IVFFlat"


def test_what_no_gpu_holds_is_refused_before_anything_is_done(sent, folder, monkeypatch):
    monkeypatch.setattr(gpu, "usable_gpu_bytes", lambda: 2**31)
    for dry_run in (True, False):
        for device in ("auto", "cuda"):
            with pytest.raises(DoesNotFit, match=r"takes 2 GiB .* but 2 GiB can be had; give `index` list-major"):
                neighbors(folder, k=K, index="IVFFlat", settings=Settings(device=device, dry_run=dry_run))
    assert len(sent) == 1
    assert list((folder / "jobs").iterdir()) == []


def test_a_gpu_that_others_fill_is_no_reason_to_take_another_index(sent, many, folder, monkeypatch):
    """It is told before anything is trained, and another may be given then; what is done is done."""
    done = shutil.copytree(folder, folder.with_name("done"))
    neighbors(done, k=K)
    sent[1:] = []
    monkeypatch.setattr(gpu, "free_gpu_bytes", lambda: 2**30)
    with pytest.raises(DoesNotFit, match=r"but 1 GiB are free; end what else runs there, or give `index` list-major"):
        neighbors(folder, k=K)
    assert len(sent) == 1
    assert list((folder / "jobs").iterdir()) == []
    assert neighbors(folder, k=K, index="list-major")["background"]["index"] == "list-major"
    assert all(record["skipped"] for record in neighbors(done, k=K).values())


def test_a_run_goes_on_with_the_index_that_it_began_with(sent, many, folder, monkeypatch):
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr(gpu, "usable_gpu_bytes", lambda: 2**32)
    twin = shutil.copytree(folder, folder.with_name("twin"))
    neighbors(twin, k=K)
    interrupted(monkeypatch, lambda: neighbors(folder, k=K), 2)
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "free_gpu_bytes", lambda: 2**30)
        with pytest.raises(DoesNotFit, match="1 GiB are free"):
            neighbors(folder, k=K)
    assert neighbors(folder, k=K)["background"]["resumed"]
    assert published_bytes(Store(folder)) == published_bytes(Store(twin))


def test_an_addition_that_no_gpu_holds_is_refused(sent, many, folder, monkeypatch):
    neighbors(folder, k=K)
    np.save(folder.parent / "more.npy", np.asarray(Store(folder).array("tests/descriptors")) + np.float32(0.25))
    import_descriptors(folder.parent / "more.npy", store=folder, role="added")
    reduce(folder, dim=16)
    least = needed_bytes(4200 + 1100, 16, "IVFFlat", sent[0])
    monkeypatch.setattr(gpu, "usable_gpu_bytes", lambda: least - 1)
    for dry_run in (True, False):
        with pytest.raises(
            DoesNotFit, match="searching 5300 vectors takes .* anew with `index` list-major and --overwrite, then"
        ):
            add_images(folder, settings=Settings(dry_run=dry_run))
    monkeypatch.setattr(gpu, "usable_gpu_bytes", lambda: least)
    assert add_images(folder)["images"] == 5300


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
