"""More images in a collection that is labelled already."""

import json
import shutil

import numpy as np
import pytest

from ooc_diffusion.stages.collection import Collection
from ooc_diffusion.store import Store

from .conftest import PIXELS
from .helpers import digit_images, done, read_csv, run, write_csv, write_images


@pytest.fixture
def root(tmp_path):
    """60 digits, the classes of 30 of them, and 20 more digits in another folder, one of them broken."""
    images, truth = digit_images(80)
    write_images(tmp_path / "images", images[:60], [b"m/%02d.png" % i for i in range(60)])
    write_images(tmp_path / "more", images[60:], [b"b/%02d.png" % i for i in range(20)])
    (tmp_path / "more" / "b" / "07.png").write_bytes(b"no image")
    write_csv(tmp_path / "few.csv", [(f"m/{i:02d}.png", str(truth[i])) for i in range(30)])
    return tmp_path


def label(root, *more):
    words = ["label", root / "images", "--labels", root / "few.csv", "--output", root / "out.csv", *PIXELS]
    return json.loads(done(*words, "--json", *more))


def extract_more(root, *more):
    words = ["extract", root / "more", "--store", root / "out.csv.store", "--role", "added", "--model", "pixels"]
    done(*words, "--max-failures", "0.1", *more)


def test_three_commands_add_images_and_label_labels_them(root):
    before = label(root)
    assert before["images"] == 60
    store = root / "out.csv.store"
    extract_more(root)
    done("reduce", "--store", store)
    planned = json.loads(done("neighbors", "--store", store, "--add", "--dry-run", "--json"))
    assert planned["plan"]["work"] == "Flat, 20 vectors added to 60"
    shown = done("neighbors", "--store", store, "--add", "--min-recall", "0.9")
    assert shown.startswith("neighbors.background: images 80, k 10, index Flat, added 20, added in all 20, changed ")
    assert "graph       " in done("status", "--store", store)
    assert "outdated, run again" in done("status", "--store", store)
    record = label(root, "--overwrite")
    assert (record["images"], record["unreadable"]) == (80, 1)
    assert record["stages"]["extract.background"]["first_unreadable"] == [[67, "b/07.png", "no image format that Pillow knows"]]
    rows = read_csv(root / "out.csv")
    truth = digit_images(80)[1]
    assert [row["path"] for row in rows] == [f"m/{i:02d}.png" for i in range(60)] + [f"b/{i:02d}.png" for i in range(20)]
    assert [row["origin"] for row in rows[60:]] == ["unreadable" if i == 7 else "diffusion" for i in range(20)]
    assert np.mean([row["label"] == str(truth[60 + i]) for i, row in enumerate(rows[60:])]) > 0.7
    page = (root / "out.html").read_text()
    assert "Labels for 80 images" in page
    assert "b/07.png" in page
    write_csv(root / "few.csv", [(f"b/{i:02d}.png", str(truth[60 + i])) for i in range(20)])
    assert label(root, "--overwrite")["seeds"] == 19
    assert [row["label"] for row in read_csv(root / "out.csv")[60:] if row["path"] != "b/07.png"] == [
        str(c) for i, c in enumerate(truth[60:]) if i != 7
    ]


def test_pictures_come_from_where_they_are(root):
    label(root)
    store = root / "out.csv.store"
    extract_more(root)
    shutil.copytree(root / "more" / "b", root / "third" / "c")
    done("reduce", "--store", store)
    done("neighbors", "--store", store, "--add")
    words = ["extract", root / "third", "--store", store, "--role", "added", "--model", "pixels", "--max-failures", "0.1"]
    done(*words)
    done("reduce", "--store", store)
    done("neighbors", "--store", store, "--add")
    images, collection = digit_images(80)[0], Collection(Store(store), "nodes")
    for row, expected in ((59, 59), (60, 60), (79, 79), (80, 60), (99, 79)):
        np.testing.assert_array_equal(np.asarray(collection.image(row)), images[expected])
    assert collection.image(67) is None
    assert collection.unreadable.tolist() == [67, 87]


def test_another_network_describes_all_and_another_folder_is_refused(root):
    label(root)
    store = root / "out.csv.store"
    extract_more(root)
    done("reduce", "--store", store)
    done("neighbors", "--store", store, "--add")
    record = label(root, "--image-size", "8", "--max-failures", "0.1", "--overwrite")
    assert (record["images"], record["unreadable"]) == (80, 1)
    images, found = digit_images(80)[0], Store(store).array("background/descriptors")
    assert found.shape == (80, 64)
    small = images[:, ::2, ::2].reshape(80, 64) / 255
    assert min(np.corrcoef(found[row], small[row])[0, 1] for row in range(80) if row != 67) > 0.9
    shutil.copy(root / "images" / "m" / "00.png", root / "images" / "new.png")
    words = ["label", root / "images", "--labels", root / "few.csv", "--output", root / "out.csv", *PIXELS, "--overwrite"]
    np.save(root / "x.npy", found)
    for refused in (words, ["import", root / "x.npy", "--store", store, "--overwrite"]):
        ran = run(*refused)
        assert ran.code == 3
        assert ran.error == (
            f"error: {store} holds images that `neighbors --add` took into the background, which would be lost; "
            "give another --store"
        )
        assert list((store / "jobs").iterdir()) == []
    assert len(Store(store).array("background/path_offsets")) == 81


def test_descriptors_added_to_images_have_no_pictures(root):
    label(root)
    store = root / "out.csv.store"
    np.save(root / "x.npy", np.random.default_rng(0).uniform(0, 1, (3, 256)).astype(np.float32))
    (root / "names").write_text("x0\nx1\nx2\n")
    done("import", root / "x.npy", "--store", store, "--role", "added", "--names", root / "names")
    done("reduce", "--store", store)
    done("neighbors", "--store", store, "--add")
    assert label(root, "--overwrite")["images"] == 63
    collection = Collection(Store(store), "nodes")
    assert (collection.name(61), collection.image(61), collection.image(59).size) == ("x1", None, (16, 16))


def test_data_sets_are_added_with_their_classes(tmp_path):
    words = ["--store", tmp_path / "s", "--model", "pixels"]
    done("extract", "digits", "--split", "test", *words)
    done("extract", "digits", "--split", "train", "--role", "added", *words)
    done("reduce", *words[:2])
    done("neighbors", *words[:2], "--k", "5")
    done("neighbors", *words[:2], "--add")
    collection = Collection(Store(tmp_path / "s"), "nodes")
    assert (collection.name(499), collection.name(500), len(collection)) == ("test/00499", "train/00000", 1797)
    assert collection.image(500).size == collection.image(0).size == (8, 8)
    assert collection.truth is not None
    assert (collection.truth >= 0).all()
    ran = run("extract", "digits", "--split", "train", "--role", "added", *words)
    assert ran.code == 3
    assert ran.error.startswith("error: 'train/00000' is the name of an image of the background and of an added one; ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--k", "4"], "--k is 4, but the background was searched with 5; leave it out with --add"),
        (["--index", "IVFFlat"], "--index is IVFFlat, but the background was searched with Flat; leave it out with --add"),
        (["--probes", "3"], "--probes is 3, but the background was searched with None; leave it out with --add"),
        (["--table-width", "3"], "--table-width is 3, but the background was searched with None; leave it out with --add"),
        (["--seed", "3"], "--seed is 3, but the background was searched with 0; leave it out with --add"),
        (
            ["--precision", "float16"],
            "--precision is float16, but the background was searched with float32; leave it out with --add",
        ),
    ],
)
def test_options_that_contradict_the_search_are_refused(vectors, tmp_path, words, told):
    store = shutil.copytree(vectors, tmp_path / "s")
    ran = run("neighbors", "--store", store, "--add")
    assert ran.code == 3
    assert ran.error == (
        f"error: {store} has nothing to add; extract (or import) images with --role added and run reduce first, "
        "the background has 60 images"
    )
    np.save(tmp_path / "more.npy", np.random.default_rng(1).normal(size=(9, 8)).astype(np.float32))
    done("import", tmp_path / "more.npy", "--store", store, "--role", "added")
    done("reduce", "--store", store, "--dim", "4")
    ran = run("neighbors", "--store", store, "--add", *words)
    assert (ran.code, ran.error[: len(told) + 7]) == (3, f"error: {told}")
    assert run("neighbors", "--store", store, "--add", "--k", "5", "--index", "auto", "--seed", "0").code == 0


def test_added_images_without_a_searched_background(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(9, 8)).astype(np.float32))
    done("import", tmp_path / "x.npy", "--store", tmp_path / "s", "--role", "added")
    ran = run("reduce", "--store", tmp_path / "s")
    assert ran.code == 3
    assert "has no background descriptors" in ran.error
    ran = run("neighbors", "--store", tmp_path / "s", "--add")
    assert (ran.code, "has no stage 'neighbors.background'; run it first" in ran.error) == (3, True)


def test_names_that_the_background_has_are_refused_before_anything_is_described(root):
    label(root)
    store = root / "out.csv.store"
    shutil.copy(root / "images" / "m" / "05.png", root / "more" / "new.png")
    (root / "more" / "m").mkdir()
    shutil.copy(root / "images" / "m" / "07.png", root / "more" / "m" / "07.png")
    names = [f"n{i}" for i in range(8)]
    (root / "names").write_text("\n".join([*names, "m/33.png"]) + "\n")
    np.save(root / "x.npy", np.random.default_rng(0).uniform(0, 1, (9, 256)).astype(np.float32))
    for words, twice in (
        (["extract", root / "more", "--model", "pixels"], "m/07.png"),
        (["import", root / "x.npy", "--names", root / "names"], "m/33.png"),
    ):
        ran = run(*words, "--store", store, "--role", "added")
        assert (ran.code, ran.error) == (
            3,
            f"error: '{twice}' is the name of an image of the background and of an added one; leave out what is there "
            "already, and give new images new paths or names",
        )
        assert list((store / "jobs").iterdir()) == []
        assert not [name for name in Store(store).manifest.arrays if name.startswith("added/")]
    (root / "more" / "m" / "07.png").unlink()
    extract_more(root)


def test_a_background_that_came_after_the_images_to_add_is_compared_too(root):
    store, pixels = root / "s", ("--model", "pixels", "--max-failures", "0.1")
    shutil.copy(root / "more" / "b" / "03.png", root / "images" / "m" / "x.png")
    (root / "images" / "b").mkdir()
    shutil.copy(root / "more" / "b" / "03.png", root / "images" / "b" / "03.png")
    done("extract", root / "more", "--store", store, "--role", "added", *pixels)
    done("extract", root / "images", "--store", store, *pixels)
    done("reduce", "--store", store)
    done("neighbors", "--store", store, "--k", "5")
    ran = run("neighbors", "--store", store, "--add")
    assert (ran.code, ran.error.partition(";")[0]) == (
        3,
        "error: 'b/03.png' is the name of an image of the background and of an added one",
    )


def test_the_same_descriptors_without_names_are_not_added_twice(vectors, tmp_path):
    store = shutil.copytree(vectors, tmp_path / "s")
    rng = np.random.default_rng(1)
    for name in ("more", "others"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(9, 8)).astype(np.float32))
    shutil.copy(vectors.parent / "x.npy", tmp_path / "copy.npy")
    words = ["--store", store, "--role", "added"]
    remedy = "is part of the background already, as it stands; import other images, or tell these apart by --names"

    def add(file):
        done("import", tmp_path / file, *words, "--overwrite")
        done("reduce", *words[:2], "--dim", "4", "--overwrite")
        return run("neighbors", *words[:2], "--add")

    def refused(file):
        ran = run("import", file, *words)
        assert (ran.code, ran.error) == (3, f"error: {file} {remedy}")
        assert list((store / "jobs").iterdir()) == []

    refused(vectors.parent / "x.npy")
    assert add("more.npy").code == 0
    refused(tmp_path / "more.npy")
    refused(vectors.parent / "x.npy")
    assert add("others.npy").code == 0
    shutil.copy(tmp_path / "more.npy", tmp_path / "again.npy")  # another path and time: only the content is the same
    for file in ("copy.npy", "again.npy"):
        ran = add(file)
        assert ran.code == 3
        assert ran.error.endswith(f"the added descriptors are part of the background already,{remedy.partition(',')[2]}")
        assert len(Store(store).array("background/vectors")) == 78
