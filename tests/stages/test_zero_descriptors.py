"""Descriptors that are all zeros are counted, told once, and refused where there is nothing else."""

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.errors import BadInput
from ooc_diffusion.stages.addition import add_images
from ooc_diffusion.stages.extract import extract
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.stages.test_same_bytes import interrupted

N, ZEROS = 1900, [517, 518, 1700]
X = np.random.default_rng(0).normal(1, 1, (N, 8)).astype(np.float32)
X[ZEROS] = 0
X[3, 1:] = 0  # one value is enough


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr("ooc_diffusion.stages.reduce.BLOCK_ROWS", 500)


def bring(folder, values, role="background", names=None, **options):
    np.save(folder / f"{role}.npy", values)
    if names is not None:
        (folder / f"{role}.txt").write_text("\n".join(names) + "\n")
        options["names"] = folder / f"{role}.txt"
    import_descriptors(folder / f"{role}.npy", store=folder / "store", role=role, **options)
    return folder / "store"


def counts(store, role="background"):
    record = Store(store).record(f"reduce.{role}")
    return record["zero_rows"], record["zero_descriptors"]


def test_a_pca_makes_them_alike(tmp_path, caplog):
    store = bring(tmp_path, X)
    reduce(store, dim=6)
    assert counts(store) == (0, 3)
    mean, components, vectors = Store(store).arrays("pca/mean", "pca/components", "background/vectors")
    expected = -mean.astype(np.float64) @ components.T
    for row in ZEROS:
        np.testing.assert_allclose(vectors[row], expected / np.linalg.norm(expected), atol=1e-6)
    assert [record.getMessage() for record in caplog.records] == [
        "3 of the 1900 descriptors of the background are all zeros (first: row 517): they look alike, whatever they show"
    ]


def test_without_a_pca_they_stay_zeros_and_the_first_has_a_name(tmp_path, caplog):
    store = bring(tmp_path, X, names=[f"{i:04}.png" for i in range(N)])
    reduce(store, dim=0)
    assert counts(store) == (3, 3)
    vectors = Store(store).array("background/vectors")
    np.testing.assert_array_equal(np.flatnonzero(~vectors.any(axis=1)), ZEROS)
    assert [record.getMessage() for record in caplog.records] == [
        "3 of the 1900 descriptors of the background are all zeros (first: row 517, 0517.png): they are near to nothing, "
        "whatever they show"
    ]


def test_without_zeros_nothing_is_said(tmp_path, caplog):
    store = bring(tmp_path, X[:500])
    reduce(store, dim=6)
    assert counts(store) == (0, 0)
    assert caplog.records == []


def test_a_resumed_run_says_the_same(tmp_path, monkeypatch, caplog):
    appends = 3 + 4  # the PCA, and blocks
    for at in range(1, appends):
        folder = tmp_path / str(at)
        folder.mkdir()
        store = bring(folder, X)
        interrupted(monkeypatch, lambda store=store: reduce(store, dim=6), at)
        assert caplog.records == []
        assert reduce(store, dim=6)["background"]["resumed"]
        assert counts(store) == (0, 3)
        assert "3 of the 1900 descriptors of the background are all zeros (first: row 517)" in caplog.text
        assert len(caplog.records) == 1
        caplog.clear()


@pytest.mark.parametrize("dim", [0, 6])
def test_nothing_but_zeros_is_refused_and_leaves_nothing(tmp_path, dim):
    store = bring(tmp_path, 0 * X)
    with pytest.raises(BadInput, match=r"all 1900 descriptors of the background are zeros.* again with --overwrite"):
        reduce(store, dim=dim)
    assert list((store / "jobs").iterdir()) == []
    assert [path.name.split(".")[:2] for path in (store / "data").iterdir()] == [["background", "descriptors"]]
    bring(tmp_path, X, settings=Settings(overwrite=True))
    reduce(store, dim=dim)
    assert counts(store) == (0 if dim else 3, 3)


def test_seeds_of_zeros_are_refused_but_not_a_black_image_alone(tmp_path, caplog):
    store = bring(tmp_path, X[:500])
    bring(tmp_path, np.zeros((1, 8)), role="seeds")
    bring(tmp_path, np.zeros((2, 8)), role="tests")
    with pytest.raises(BadInput, match="all 2 descriptors of the tests are zeros"):
        reduce(store, dim=6)
    assert "1 of the 1 descriptors of the seeds are all zeros (first: row 0): they look alike" in caplog.text
    assert counts(store, "seeds") == (0, 1)


def test_those_that_are_added_count(tmp_path):
    names = [f"{i:04}" for i in range(N)]
    store = bring(tmp_path, X[:600], names=names[:600])
    bring(tmp_path, X[1600:], role="added", names=names[1600:])
    reduce(store, dim=0)
    assert (counts(store), counts(store, "added")) == ((2, 2), (1, 1))
    neighbors(store, k=5)
    add_images(store)
    assert counts(store) == (3, 3)


def test_black_pixels_are_zeros_and_what_cannot_be_read_is_white(tmp_path, caplog):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(5):
        Image.fromarray(np.random.default_rng(i).integers(1, 255, (4, 4), np.uint8)).save(images / f"{i}.png")
    (images / "a.png").write_text("no image")
    extract(str(images), store=tmp_path / "store", model="pixels", max_failures=1)
    reduce(tmp_path / "store", dim=3)
    assert counts(tmp_path / "store") == (0, 0)
    assert "zeros" not in caplog.text
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(images / "black.png")
    again = Settings(overwrite=True)
    extract(str(images), store=tmp_path / "store", model="pixels", max_failures=1, settings=again)
    reduce(tmp_path / "store", dim=3, settings=again)
    assert counts(tmp_path / "store") == (0, 1)
    assert "1 of the 7 descriptors of the background are all zeros (first: row 6, black.png)" in caplog.text
