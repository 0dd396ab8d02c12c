"""From small files of the published layout to a table of the paper's form, by commands alone."""

import json

import faiss
import numpy as np
import pytest

from ooc_diffusion.stages import low_shot_background, low_shot_logistic
from ooc_diffusion.store import Store
from tests.features.test_descriptor_files import write_hdf5

from .helpers import done

CLASSES, D, DIM = 12, 24, 8


@pytest.fixture
def files(tmp_path):
    """Features of training and validation images with their classes, a reduced background, the transform, the split."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(CLASSES, D)) * 1.5
    truth, test_truth = (rng.permutation(np.repeat(np.arange(CLASSES), n)) for n in (12, 5))
    train, tests = (centers[c] + rng.normal(size=(len(c), D)) + 1 for c in (truth, test_truth))
    others = rng.normal(size=(300, D)).astype(np.float32) * 2
    pca = faiss.PCAMatrix(D, DIM, 0, True)
    pca.train(others)
    faiss.write_VectorTransform(pca, str(tmp_path / "PCAR256.vt"))
    pca.apply(others).tofile(tmp_path / "concatenated_PCAR256.raw")
    for name, values, classes in (("train", train, truth), ("val", tests, test_truth)):
        write_hdf5(tmp_path / f"{name}.hdf5", values=values.astype(np.float32), classes=classes, count=len(classes), capacity=256)
    # the public file counts from 1, the labels of the descriptors from 0
    split = {
        "label_names": [f"n{c:08}" for c in rng.permutation(CLASSES)],
        "base_classes": [1, 6, 7],
        "novel_classes_1": [2, 3, 4, 5],
        "novel_classes_2": [8, 9, 10, 11, 12],
        "base_classes_1": [1, 6],
        "base_classes_2": [7],
    }
    (tmp_path / "label_idx.json").write_text(json.dumps(split))
    return tmp_path


def write_table(folder, X, which):
    """Write neighbors and inner products as the published files, best first; return their paths."""
    products = X @ X.T
    order = np.argsort(-products, axis=1, kind="stable")
    ids = order[:, :32] if which == "nearest" else order[:, -32:]
    folder.mkdir()
    paths = folder / "ndis300_k32_I_11.int32", folder / "ndis300_k32_D_11.float32"
    ids.astype(np.int32).tofile(paths[0])
    np.take_along_axis(products, ids, axis=1).astype(np.float32).tofile(paths[1])
    return paths


def test_published_files_go_through_to_the_table(files, monkeypatch):
    monkeypatch.setattr(low_shot_logistic, "STEPS", (200,))
    images, others = files / "imagenet", files / "yfcc"
    done("import", files / "train.hdf5", "--store", images)
    done("import", files / "val.hdf5", "--store", images, "--role", "tests")
    done("reduce", "--store", images, "--transform", files / "PCAR256.vt")
    done("import", files / "concatenated_PCAR256.raw", "--dim", DIM, "--store", others)
    done("reduce", "--store", others, "--dim", 0)
    paper = ["--protocol", "paper", "--split", files / "label_idx.json", "--k", 6, "--n-per-class", "1,5", "--draws", 2]
    for options in (["--setting", "in-domain"], ["--setting", "out-of-domain", "--background", others, "--size", 200]):
        table = done("evaluate", "--store", images, *paper, *options)
        assert "group 2, tests of novel classes alone" in table
        record = json.loads(done("evaluate", "--store", images, *paper, *options, "--json"))
        found = record["accuracy"]["group 2"]
        assert np.mean([draw[0] for draw in found["fusion"]["5"]]) > 0.6
        assert all(len(draws) == 2 for method in found.values() for draws in method.values())
    # tables of all images, as they are published: the nearest neighbors, and the farthest
    whole = ["evaluate", "--store", images, *paper, "--setting", "out-of-domain", "--background", others]
    found = {"searched": json.loads(done(*whole, "--json"))}
    monkeypatch.setattr(low_shot_background, "neighbors", None)  # nothing more is searched among the others
    for name in ("nearest", "farthest"):
        ids, similarities = write_table(files / name, np.array(Store(others).array("background/vectors")), name)
        table = ["--table", ids, "--similarities", similarities]
        done("neighbors", "--store", others, "--k", 30, *table, *["--overwrite"] * (name == "farthest"))
        found[name] = json.loads(done(*whole, "--json"))
        assert found[name]["neighbors"]["table"] == str(ids)
        assert "low-shot-out-of-domain" not in " ".join(found[name]["done_before"])  # it is another table
        assert f"background: 30 neighbors, those it has, from {ids.name}, {similarities.name}, recall" in done(*whole)
    assert found["nearest"]["accuracy"] == found["searched"]["accuracy"] != found["farthest"]["accuracy"]
    assert (found["searched"]["neighbors"]["own"], found["nearest"]["neighbors"]["recall"]["recall"]) == (False, 1)
    stored = Store(images)
    assert stored.entry("background/descriptors").shape == (12 * CLASSES, D)
    assert stored.entry("background/vectors").shape == (12 * CLASSES, DIM)
