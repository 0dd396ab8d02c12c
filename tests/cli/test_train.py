import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.store import Store, Strings

from .helpers import digit_images, done, run, write_images

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def classes_of_digits(tmp_path_factory):
    """120 digits, each in the folder of its class, and a list of base classes."""
    root = tmp_path_factory.mktemp("classes")
    images, truth = digit_images(120)
    write_images(root / "images", images, [b"%d/%03d.png" % (c, i) for i, c in enumerate(truth)])
    (root / "base.txt").write_text("0\n1\n5\n7\n")
    return root


def words(root, where):
    return ["train", root / "images", "--store", where / "s", "--classes", root / "base.txt", "--output", where / "n.safetensors"]


QUICK = ["--epochs", "2", "--batch-size", "16", "--image-size", "8", "--threads", "1", "--device", "cpu"]


def test_train_and_extract(classes_of_digits, tmp_path):
    plan = json.loads(done(*words(classes_of_digits, tmp_path), *QUICK, "--dry-run", "--json"))
    assert not (tmp_path / "s").exists()
    record = json.loads(done(*words(classes_of_digits, tmp_path), *QUICK, "--json"))
    assert record["images"] == plan["images"]
    assert plan["planned_seconds"]["training"] > 0
    assert record["step_seconds"]["training"] > 0
    assert "train about" in done(*words(classes_of_digits, tmp_path), *QUICK, "--dry-run")
    assert [row["epoch"] for row in record["curve"]] == [1, 2]
    assert record["plan"]["least_bytes"] <= plan["plans"][1]["least_bytes"]  # which takes colors: no image is opened for it
    shown = done(*words(classes_of_digits, tmp_path), *QUICK)
    assert "kept in memory yes" in shown
    assert "done before" in shown
    weights = ["--weights", tmp_path / "n.safetensors"]
    done("extract", classes_of_digits / "images", "--store", tmp_path / "x", *weights, "--class-folders")
    store = Store(tmp_path / "x")
    assert store.entry("background/descriptors").shape == (120, 256)
    truth = [int(Path(name).parent.name) for name in Strings.open(store, "background/path")]
    np.testing.assert_array_equal(store.array("background/truth"), truth)
    assert "train" in done("status", "--store", tmp_path / "s")


def test_a_budget_too_small_names_one_that_is_enough(classes_of_digits, tmp_path):
    given = words(classes_of_digits, tmp_path)
    ran = run(*given, *QUICK, "--memory-budget", "64MiB")
    assert ran.code == 7
    assert "stage train needs a memory budget of" in ran.error
    assert not (tmp_path / "s").exists()
    enough = re.search(r"give --memory-budget (\d+MiB) or more$", ran.error)[1]
    done(*given, *QUICK, "--memory-budget", enough)


def test_errors_are_one_line(classes_of_digits, tmp_path):
    given = words(classes_of_digits, tmp_path)
    Image.new("L", (4, 4)).save(classes_of_digits / "one.png")
    for options, reason in (
        (["--classes", tmp_path / "none.txt"], "none.txt cannot be read"),
        (["--model", "resnet-10-small"], "did you mean resnet10-small"),
        (["--memory-budget", "300MiB"], "needs a memory budget of"),
        (["--output", tmp_path / "no" / "n.safetensors"], "is no folder"),
    ):
        ran = run(*given, *QUICK, *options)
        assert reason in ran.error
        assert ran.code in (2, 3, 7)
    ran = run("extract", classes_of_digits / "images", "--store", tmp_path / "y", "--model", "resnet10-small")
    assert "resnet10-small has no weights 'DEFAULT'; give none, or a file" in ran.error
    ran = run("extract", "digits", "--store", tmp_path / "z", "--class-folders", "--model", "pixels")
    assert "--class-folders is for folders and archives" in ran.error
    assert run(*given, "--batch-size", "1").code == 2
