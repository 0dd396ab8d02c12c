"""Arrays have one maker, and tables, descriptors and outputs of different origin are never mixed."""

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation import choose_iterations
from ooc_diffusion.graph import build_graph
from ooc_diffusion.stages.extract import extract
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store

ANEW = Settings(overwrite=True)


@pytest.fixture
def vectors(tmp_path):
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(40, 64)))
    return tmp_path / "v.npy"


def test_import_does_not_take_over_extracted_images_nor_the_other_way_round(tmp_path, vectors):
    place = tmp_path / "s"
    extract("digits", store=place, split="test", model="pixels")
    with pytest.raises(BadInput, match=r"has these arrays from stage extract.background; .*--overwrite"):
        import_descriptors(vectors, store=place)
    import_descriptors(vectors, store=place, settings=ANEW)
    store = Store(place)
    assert set(store.manifest.stages) == {"import.background"}
    assert set(store.manifest.arrays) == {"background/descriptors"}
    with pytest.raises(BadInput, match=r"has these arrays from stage import.background"):
        extract("digits", store=place, split="test", model="pixels")
    extract("digits", store=place, split="test", model="pixels", settings=ANEW)
    assert set(store.manifest.stages) == {"list.background", "extract.background"}
    assert len(store.array("background/descriptors")) == len(store.array("background/truth")) == 500


def test_roles_extracted_otherwise_are_refused(tmp_path):
    for role, split, size in (("background", "train", 8), ("tests", "test", None)):
        extract("digits", store=tmp_path, role=role, split=split, model="pixels", image_size=size, color="gray")
    reduce(tmp_path, dim=8)  # the size that is left open is that of the images: the same thing
    extract("digits", store=tmp_path, role="tests", split="test", model="pixels", color="rgb", image_size=8, settings=ANEW)
    with pytest.raises(BadInput, match="have descriptors of 192 values, the background of 64"):
        reduce(tmp_path, dim=8)


def test_tables_of_different_k_are_refused(tmp_path, vectors):
    for role in ("background", "tests"):
        import_descriptors(vectors, store=tmp_path / "s", role=role)
    reduce(tmp_path / "s", dim=8)
    neighbors(tmp_path / "s", k=5)
    store = Store(tmp_path / "s")
    manifest = store.manifest
    manifest.stages["neighbors.tests"]["parameters"]["k"] = 4
    with store.lock:
        store.commit(manifest)
    with pytest.raises(BadInput, match="tests were searched otherwise than the background"):
        graph(tmp_path / "s")


def test_an_archive_is_no_array(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones((3, 2)))
    with pytest.raises(BadInput, match="archive of arrays"):
        import_descriptors(tmp_path / "x.npz", store=tmp_path / "s")


@pytest.mark.parametrize("weight", [1e300, 1e-42, 1e-30, 1e30])
def test_weights_whose_sums_leave_float32_are_refused(weight):
    with pytest.raises(BadInput, match="row 1 of the weights"):
        build_graph(np.array([[0, 1], [1, 0]]), weights=np.array([[1.0, 1.0], [1.0, weight]]))


def test_one_class_is_diffused_until_it_arrives():
    scores = np.zeros((3, 4, 1), np.float32)
    scores[1, :2] = scores[2] = 0.5
    assert choose_iterations(scores, np.zeros(4, int)) == 2
