"""What a stage is made from may not change under it: files of the user, arrays made anew, bytes of a store altered in place."""

import os
import shutil

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput, CorruptStore
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store, verify
from ooc_diffusion.store.npy import HEADER_BYTES
from ooc_diffusion.store.writer import ArrayWriter
from tests.stages.chain import published_bytes
from tests.stages.test_same_bytes import interrupted
from tests.store.helpers import use_small_chunks

AGAIN = Settings(overwrite=True)
X = np.random.default_rng(0).normal(size=(4200, 8)).astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
        for module in ("import_descriptors", "reduce", "neighbors", "ordered_search", "graph"):
            patch.setattr(f"ooc_diffusion.stages.{module}.BLOCK_ROWS", 500)
        use_small_chunks(patch.setattr, 2**15)
        yield


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def copy(file, store, **options):
    return import_descriptors(file, store=store, **options)


def search(store, **options):
    return neighbors(store, k=5, index="list-major", probes=20, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with vectors, and one with their neighbors."""
    root = tmp_path_factory.mktemp("made")
    np.save(root / "x.npy", X)
    copy(root / "x.npy", root / "reduced")
    reduce(root / "reduced", dim=6)
    shutil.copytree(root / "reduced", root / "searched")
    search(root / "searched")
    return root


def touch(file):
    """Give a file another time of change, however fast this goes."""
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


@pytest.mark.parametrize("change", ["size", "time"])
def test_descriptors_that_change_before_an_import_goes_on(file, tmp_path, monkeypatch, change):
    store = tmp_path / "store"
    interrupted(monkeypatch, lambda: copy(file, store), 4)
    other = X[:4000] if change == "size" else X + 1
    np.save(file, other)
    touch(file)
    with pytest.raises(
        BadInput, match=r"stage import.background in .* was interrupted with file = .*--overwrite to start it anew"
    ):
        copy(file, store)
    assert Store(store).manifest.arrays == {}
    copy(file, store, settings=AGAIN)
    np.testing.assert_array_equal(Store(store).array("background/descriptors"), other)


def test_descriptors_that_change_while_they_are_copied(file, tmp_path, monkeypatch):
    store, append = tmp_path / "store", ArrayWriter.append

    def changing_append(writer, block):
        append(writer, block)
        touch(file)

    with monkeypatch.context() as patch:
        patch.setattr(ArrayWriter, "append", changing_append)
        with pytest.raises(BadInput, match=r"x.npy has changed while it was copied; run the command again"):
            copy(file, store)
    assert Store(store).manifest.arrays == {}
    assert list((store / "data").iterdir()) == list((store / "jobs").iterdir()) == []
    copy(file, store)
    np.testing.assert_array_equal(Store(store).array("background/descriptors"), X)


def test_arrays_that_are_made_anew_before_a_stage_goes_on(file, tmp_path, monkeypatch):
    store, other = tmp_path / "store", tmp_path / "other.npy"
    np.save(other, X[::-1])
    copy(file, store)
    interrupted(monkeypatch, lambda: reduce(store, dim=6), 4)
    copy(other, store, settings=AGAIN)
    with pytest.raises(BadInput, match=r"reduce.background in .* was interrupted with another background/descriptors; give"):
        reduce(store, dim=6)
    reduce(store, dim=6, settings=AGAIN)

    interrupted(monkeypatch, lambda: search(store), 15)
    copy(file, store, settings=AGAIN)
    with pytest.raises(
        BadInput, match=r"background/vectors in .* was made from an earlier background/descriptors; run stage reduce"
    ):
        search(store)
    reduce(store, dim=6, settings=AGAIN)
    with pytest.raises(BadInput, match=r"neighbors.background in .* was interrupted with another background/vectors; give"):
        search(store)
    search(store, settings=AGAIN)

    interrupted(monkeypatch, lambda: graph(store), 2)
    neighbors(store, k=5, index="list-major", probes=1, settings=AGAIN)
    with pytest.raises(BadInput, match=r"stage graph in .* was interrupted with .*another background/neighbor_ids"):
        graph(store)
    graph(store, settings=AGAIN)
    assert verify(Store(store), data=True)[0] == []


def alter(store, name, place):
    """Flip a bit of an array in place; return what undoes it."""
    path = store / Store(store).entry(name).file
    data = path.read_bytes()
    changed = bytearray(data)
    changed[place] ^= 1
    path.write_bytes(changed)
    return lambda: path.write_bytes(data)


FIRST, LAST = HEADER_BYTES, -1


@pytest.mark.parametrize(
    ("name", "stage", "begin", "place"),
    [
        ("background/descriptors", lambda store: reduce(store, dim=6, settings=AGAIN), "reduced", FIRST),
        ("background/vectors", search, "reduced", FIRST),
        ("background/vectors", search, "reduced", LAST),
        ("background/vectors", lambda store: neighbors(store, k=5), "reduced", 70_000),
        ("background/neighbor_ids", graph, "searched", 50_000),
        ("background/similarities", lambda store: graph(store, weighting="gaussian"), "searched", LAST),
    ],
)
def test_bytes_that_are_altered_in_place(made, tmp_path, name, stage, begin, place):
    store = shutil.copytree(made / begin, tmp_path / "store")
    if "descriptors" in name:  # which else would have been reduced already
        shutil.rmtree(store)
        copy(made / "x.npy", store)
    undo = alter(store, name, place)
    with pytest.raises(
        CorruptStore, match=r"chunk \d+ \(from byte \d+\) has changed; run `ooc-diffusion verify --data`, then stage"
    ):
        stage(store)
    assert list((store / "jobs").iterdir()) == []
    assert [problem.array for problem in verify(Store(store), data=True)[0]] == [name]
    undo()
    stage(store)
    assert verify(Store(store), data=True)[0] == []


@pytest.mark.parametrize("change", ["header", "size"])
def test_a_header_or_size_that_has_changed(made, tmp_path, change):
    for name, stage, begin in (("background/vectors", search, "reduced"), ("background/neighbor_ids", graph, "searched")):
        store = shutil.copytree(made / begin, tmp_path / begin)
        path = store / Store(store).entry(name).file
        if change == "header":
            alter(store, name, 20)
        else:
            os.truncate(path, path.stat().st_size - 4)
        with pytest.raises(CorruptStore, match=r"(has a damaged header|bytes instead of \d+); run `ooc-diffusion verify`"):
            stage(store)
        assert [problem.array for problem in verify(Store(store))[0]] == [name]


@pytest.mark.parametrize("at", [5, 14, 20, 30])
def test_vectors_that_are_altered_before_a_search_goes_on(made, tmp_path, monkeypatch, at):
    """Those that have been assigned already, too."""
    store = shutil.copytree(made / "reduced", tmp_path / "store")
    interrupted(monkeypatch, lambda: search(store), at)
    undo = alter(store, "background/vectors", FIRST)
    with pytest.raises(CorruptStore, match=r"chunk 0 \(from byte 128\) has changed"):
        search(store)
    undo()
    search(store)
    assert published_bytes(Store(store)) == published_bytes(Store(made / "searched"))


def test_rows_of_an_interrupted_stage_that_are_altered(made, tmp_path, monkeypatch):
    store = shutil.copytree(made / "reduced", tmp_path / "store")
    interrupted(monkeypatch, lambda: search(store), 5)
    (path,) = (store / "data").glob("background.lists.*")
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        CorruptStore, match=r"interrupted stage had begun, has changed in its last rows; start the stage anew with"
    ):
        search(store)
    search(store, settings=AGAIN)
    assert published_bytes(Store(store)) == published_bytes(Store(made / "searched"))
