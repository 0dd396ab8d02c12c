import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.errors import BadInput
from ooc_diffusion.features import Preprocessing, Recipe, make_network, measure_training, read_training
from ooc_diffusion.images import DigitsSource, folder, read_image
from ooc_diffusion.stages import train as stage
from ooc_diffusion.stages import training_forecast
from ooc_diffusion.stages.base_classes import choose_images, read_base_classes
from ooc_diffusion.stages.extract import extract
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.stages.train import train
from ooc_diffusion.store import Store, clean

torch = pytest.importorskip("torch")

BASE = ["greek/alpha", "greek/beta", "latin/a", "latin/b"]
NOVEL = ["greek/gamma", "latin/c"]
SETTINGS = Settings(threads=1, device="cpu", seed=2)
SMALL = Settings(threads=1, device="cpu", seed=2, memory_budget="64MiB")
QUICK = {"image_size": 8, "epochs": 2, "batch_size": 8, "settings": SETTINGS}


def write_classes(root, names, *, color=False, n=10):
    """Each class has a pattern of its own, under noise."""
    random = np.random.default_rng(0)
    for name in names:
        pattern = random.integers(0, 200, (12, 12, 3) if color else (12, 12))
        (root / name).mkdir(parents=True)
        for i in range(n):
            noise = random.integers(0, 56, pattern.shape)
            Image.fromarray((pattern + noise).astype(np.uint8)).save(root / name / f"{i}.png")


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    root = tmp_path_factory.mktemp("characters")
    write_classes(root / "images", sorted(BASE + NOVEL))
    (root / "base.txt").write_text("".join(f"{name}\n" for name in BASE))
    return root


def run(characters, where, **options):
    where.mkdir(exist_ok=True)
    given = {"store": where / "s", "output": where / "n.safetensors", "classes": characters / "base.txt", **QUICK, **options}
    return train(str(characters / "images"), **given)


@pytest.fixture(scope="module")
def uninterrupted(characters, tmp_path_factory):
    where = tmp_path_factory.mktemp("uninterrupted")
    record = run(characters, where)
    return where, record, (where / "n.safetensors").read_bytes()


def test_it_learns(characters, tmp_path):
    record = run(characters, tmp_path, epochs=20, balanced=True, held_out=0.3)
    curve = record["curve"]
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert curve[-1]["held_out_accuracy"] > 0.7  # chance is 0.25
    assert (record["images"], record["held_out"], record["classes"]) == (28, 12, 4)
    assert record["peak_memory_bytes"] <= record["plan"]["memory_bytes"]
    lines = (tmp_path / "n.curve.csv").read_text().splitlines()
    assert lines[0] == "epoch,learning_rate,loss,accuracy,held_out_loss,held_out_accuracy"
    assert [float(value) for value in lines[-1].split(",")] == list(curve[-1].values())
    with Image.open(tmp_path / "n.curve.png") as picture:
        assert picture.size[0] > 500


def test_no_image_of_another_class_is_opened(characters, tmp_path, monkeypatch):
    opened = []
    read = folder.read_image
    monkeypatch.setattr(folder, "read_image", lambda path: opened.append(os.fsdecode(path)) or read(path))
    run(characters, tmp_path, image_size=None, augmentation="affine")
    classes = {str(Path(path).parent.relative_to(characters / "images")) for path in opened}
    assert classes == set(BASE)
    store = Store(tmp_path / "s")
    rows, held = store.arrays("network/rows", "network/held_out_rows")
    assert not set(rows) & set(held)
    names = store.record("list.training")["class_names"]
    assert {names[c] for c in store.array("training/truth")[np.concatenate([rows, held])]} == set(BASE)
    opened.clear()
    plan = run(characters, tmp_path, image_size=None, settings=Settings(device="cpu", dry_run=True))
    assert plan["images"] == len(rows)
    assert opened == []


def test_same_seed_same_bytes_kept_in_memory_or_not(characters, uninterrupted, tmp_path, monkeypatch):
    run(characters, tmp_path / "again")
    assert (tmp_path / "again" / "n.safetensors").read_bytes() == uninterrupted[2]
    images = stage.TrainingImages
    monkeypatch.setattr(stage, "TrainingImages", lambda *args, **options: images(*args, **{**options, "keep": False}))
    run(characters, tmp_path / "read")
    assert (tmp_path / "read" / "n.safetensors").read_bytes() == uninterrupted[2]
    run(characters, tmp_path / "seed", settings=Settings(threads=1, device="cpu", seed=3))
    assert (tmp_path / "seed" / "n.safetensors").read_bytes() != uninterrupted[2]


@pytest.mark.parametrize("stop", [1, 3, 5, 6])
def test_a_stopped_training_goes_on_and_ends_with_the_same_bytes(characters, uninterrupted, tmp_path, monkeypatch, stop):
    where, record, expected = uninterrupted
    monkeypatch.setattr(stage, "SECONDS_BETWEEN_STATES", 0)
    write, count = stage._write_state, [0]

    def stopping(job, *state):
        write(job, *state)
        count[0] += 1
        if count[0] == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_write_state", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(characters, tmp_path, augmentation="shift")
    assert not (tmp_path / "n.safetensors").exists()
    monkeypatch.setattr(stage, "_write_state", write)
    seen = []

    @contextmanager
    def progress(name, total, unit):
        yield lambda done: seen.append((done, total))

    again = run(characters, tmp_path, augmentation="shift", settings=replace(SETTINGS, progress=progress))
    assert again["resumed"]
    assert sum(done for done, _ in seen) == seen[0][1] == 2 * record["images"]
    assert seen[0][0] > 0  # what was done before comes first
    assert (tmp_path / "n.safetensors").read_bytes() == expected
    assert again["curve"] == record["curve"]
    for curve in ("n.curve.csv", "n.curve.png"):
        assert (tmp_path / curve).read_bytes() == (where / curve).read_bytes()
    assert list((tmp_path / "s" / "jobs").iterdir()) == []


KILLED = """
import os, signal, sys
from ooc_diffusion.stages import train as stage
from ooc_diffusion.stages import training_forecast
from ooc_diffusion.stages.settings import Settings
stage.SECONDS_BETWEEN_STATES = 0
write, count = stage._write_state, [0]
def killing(job, *state):
    count[0] += 1
    if count[0] == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    write(job, *state)
stage._write_state = killing
images, store, classes, output = sys.argv[1:]
settings = Settings(threads=1, device="cpu", seed=2)
stage.train(images, store=store, classes=classes, output=output, image_size=8, epochs=2, batch_size=8, settings=settings)
"""


@pytest.mark.faults
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(characters, uninterrupted, tmp_path):
    paths = [characters / "images", tmp_path / "s", characters / "base.txt", tmp_path / "n.safetensors"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, paths)], check=False, timeout=120)
    assert killed.returncode == -9
    state = tmp_path / "s" / "jobs" / "train.state"
    assert state.exists()
    assert "jobs/train.state" not in clean(Store(tmp_path / "s")).files
    record = run(characters, tmp_path)
    assert record["resumed"]
    assert (tmp_path / "n.safetensors").read_bytes() == uninterrupted[2]


def test_a_damaged_state_and_other_options(characters, uninterrupted, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(stage, "SECONDS_BETWEEN_STATES", 0)
    write = stage._write_state

    def stopping(job, *state):
        write(job, *state)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_write_state", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(characters, tmp_path)
    monkeypatch.setattr(stage, "_write_state", write)
    with pytest.raises(BadInput, match=r"learning_rate = 0.1 \(now 0.2\)"):
        run(characters, tmp_path, learning_rate=0.2)
    (tmp_path / "fewer.txt").write_text("greek/alpha\nlatin/a\n")
    with pytest.raises(
        BadInput, match=r"classes = \['greek/alpha', .*'latin/b'\] \(now \['greek/alpha', 'latin/a'\]\), other weights;"
    ):
        run(characters, tmp_path, classes=tmp_path / "fewer.txt")
    with pytest.raises(BadInput, match=r"with other weights, seed = 2 \(now 3\)|with seed = 2 \(now 3\), other weights"):
        run(characters, tmp_path, settings=replace(SETTINGS, seed=3))
    state = tmp_path / "s" / "jobs" / "train.state"
    state.write_bytes(state.read_bytes()[:-1] + b"x")
    run(characters, tmp_path)
    assert "train.state is damaged; the training starts anew" in caplog.text
    assert (tmp_path / "n.safetensors").read_bytes() == uninterrupted[2]
    monkeypatch.setattr(stage, "_write_state", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(characters, tmp_path / "other")
    assert "jobs/train.state" in clean(Store(tmp_path / "other" / "s"), unfinished=True).files


@pytest.mark.parametrize(("balanced", "shown"), [(False, 35), (True, 36)])
def test_seconds_are_those_of_some_steps_times_the_images(characters, tmp_path, monkeypatch, balanced, shown):
    (characters / "images" / BASE[0] / "0.png").rename(tmp_path / "0.png")
    asked = []

    def measured(network, preprocessing, recipe, *, n_classes, images):
        asked.append((n_classes, images, recipe.batch_size))
        return 0.5

    monkeypatch.setattr(training_forecast, "measure_training", measured)
    options = {"epochs": 3, "held_out": 0.05, "balanced": balanced, "settings": replace(SETTINGS, dry_run=True)}
    try:
        record = run(characters, tmp_path, **options)
        assert "planned_seconds" not in run(characters, tmp_path, **{**options, "settings": replace(SMALL, dry_run=True)})
    finally:
        (tmp_path / "0.png").rename(characters / "images" / BASE[0] / "0.png")
    assert (record["images"], record["held_out"]) == (35, 4)
    assert record["planned_seconds"] == {"training": pytest.approx(0.5 * 3 * (shown + 4 / 3))}
    assert asked == [(4, 8, 8)]


def test_measuring_leaves_the_generator_of_torch_as_it_was():
    recipe = Recipe(1, 8, 0.1, 0.0, False, "shift", False, 0)
    shown = Preprocessing(8, 8, "bilinear", [0.5], [0.5], True)
    network = make_network("resnet10-small", 3, gray=True, seed=0)
    before = torch.random.get_rng_state()
    assert measure_training(network, shown, recipe, n_classes=3, images=4) > 0
    assert torch.equal(before, torch.random.get_rng_state())


def test_done_before_and_output_of_others(characters, uninterrupted, tmp_path):
    where, _, expected = uninterrupted
    record = run(characters, where, output=where / "second.safetensors")
    assert record["skipped"]
    assert (where / "second.safetensors").read_bytes() == expected
    (tmp_path / "n.safetensors").write_bytes(b"mine")
    with pytest.raises(BadInput, match="n.safetensors exists; give another --output"):
        run(characters, tmp_path)
    assert (tmp_path / "n.safetensors").read_bytes() == b"mine"
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("color", [False, True])
def test_descriptors_are_what_the_network_gives_its_last_layer(tmp_path, color):
    write_classes(tmp_path / "images", BASE, color=color)
    (tmp_path / "base.txt").write_text("0\n1\n3\n")
    weights = tmp_path / "n.safetensors"
    train(str(tmp_path / "images"), store=tmp_path / "t", classes=tmp_path / "base.txt", output=weights, **QUICK)
    extract(str(tmp_path / "images"), store=tmp_path / "s", weights=str(weights), class_folders=True, settings=SETTINGS)
    store = Store(tmp_path / "s")
    trained = read_training(weights)
    shown = trained["preprocessing"]
    assert trained["model"] == "resnet10-small"
    assert trained["classes"] == ["greek/alpha", "greek/beta", "latin/b"]
    assert shown.gray is not color
    assert len(shown.mean) == (3 if color else 1)
    names = store.record("list.background")["class_names"]
    assert names == BASE
    assert store.record("extract.background")["trained_on"] == trained["classes"]
    np.testing.assert_array_equal(store.array("background/truth"), np.repeat(np.arange(4), 10))

    from safetensors.torch import load_file

    from ooc_diffusion.features.small_networks import make_small_network

    network = make_small_network("resnet10-small", 3, gray=not color)
    network.load_state_dict(load_file(weights))
    network.eval()
    paths = [path for name in BASE for path in sorted((tmp_path / "images" / name).iterdir())]
    small = [read_image(path).resize((8, 8), Image.Resampling.BILINEAR) for path in paths]
    values = np.stack([np.asarray(each).reshape(8, 8, -1) for each in small]).transpose(0, 3, 1, 2) / 255
    mean, deviation = (np.array(part).reshape(-1, 1, 1) for part in (shown.mean, shown.std))
    with torch.inference_mode():
        features = network[:-1](torch.from_numpy((values - mean) / deviation).float())
        logits = network.fc(features)
    np.testing.assert_allclose(store.array("background/descriptors"), features, rtol=1e-4, atol=1e-5)
    found = network.fc(torch.from_numpy(np.array(store.array("background/descriptors"))))
    np.testing.assert_allclose(found.detach(), logits, rtol=1e-3, atol=1e-4)


def test_a_network_of_torchvision_and_going_on_from_its_weights(characters, tmp_path):
    options = {"model": "mobilenet_v3_small", "image_size": 32, "epochs": 1, "augmentation": "crop", "flip": True}
    run(characters, tmp_path, **options)
    first = tmp_path / "n.safetensors"
    shown = read_training(first)["preprocessing"]
    assert (shown.resize, shown.crop, shown.gray) == (37, 32, False)
    extract(str(characters / "images"), store=tmp_path / "d", weights=str(first), settings=SETTINGS)
    assert Store(tmp_path / "d").entry("background/descriptors").shape == (60, 1024)
    further = {"model": "mobilenet_v3_small", "image_size": None, "epochs": 1, "weights": str(first), "learning_rate": 1e-9}
    run(characters, tmp_path / "more", **further)
    from safetensors.torch import load_file

    before, after = load_file(first), load_file(tmp_path / "more" / "n.safetensors")
    assert torch.allclose(before["classifier.3.weight"], after["classifier.3.weight"], atol=1e-6)
    (tmp_path / "two.txt").write_text("0\n1\n")
    run(characters, tmp_path / "two", **further, classes=tmp_path / "two.txt")
    fewer = load_file(tmp_path / "two" / "n.safetensors")
    assert fewer["classifier.3.weight"].shape == (2, 1024)
    assert torch.allclose(before["features.0.0.weight"], fewer["features.0.0.weight"], atol=1e-6)
    with pytest.raises(BadInput, match="says size and color of its images"):
        run(characters, tmp_path / "size", **{**further, "image_size": 32})
    with pytest.raises(BadInput, match="holds weights of mobilenet_v3_small, not of resnet18"):
        run(characters, tmp_path / "other", **{**further, "model": "resnet18"})


def split(**lists):
    return json.dumps(lists)


def test_base_classes_by_list_and_split(tmp_path):
    names = ["a", "b", "10", "d", "e"]
    file = tmp_path / "classes"

    def read(text):
        file.write_text(text)
        return read_base_classes(file, n_classes=5, class_names=names).tolist()

    assert read("d\n\na\r\n") == [0, 3]
    assert read("10\n4\n") == [2, 4]  # a name before a number
    assert read(split(base_classes=[3, 0], novel_classes=[1], val=[0])) == [0, 3]
    both = {"base_classes_1": [1], "base_classes_2": ["e", 0], "novel_classes_1": [2], "novel_classes_2": [3]}
    assert read(split(**both)) == [0, 1, 4]
    assert read(split(label_names=["e", "d", "10", "b", "a"], base_classes=[1, 2], novel_classes_1=[5])) == [3, 4]
    for text, reason in (
        ("a\nz\n", r"classes line 2: 'z' is none of the 5 classes; give names, such as 'a'"),
        ("5\n", "'5' is none of the 5 classes"),
        ("a\n0\n", "line 2: class '0' is given twice"),
        ("a\n", "gives 1 base classes"),
        ("", "gives 0 base classes"),
        ("{", "is no JSON"),
        (split(novel_classes=[1]), "has no list base_classes"),
        (split(base_classes_1=[1, 2]), "has no list base_classes"),
        (split(base_classes=3), "has no list base_classes"),
        (split(base_classes=[0, 1], novel_classes=[1]), "class 'b' is a base class and in novel_classes"),
        (split(base_classes=[0, 10]), "'10' is none of the 5 classes"),
        (split(base_classes=[0, True]), "True in base_classes is no class"),
    ):
        with pytest.raises(BadInput, match=reason) as caught:
            read(text)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="cannot be read"):
        read_base_classes(tmp_path / "none", n_classes=5, class_names=names)


def test_some_of_each_class_are_held_out():
    truth = np.repeat(np.array([0, 1, 2, -1, 3], np.int32), [20, 3, 5, 4, 1])
    truth = np.random.default_rng(0).permutation(truth)
    base = np.array([0, 1, 2])
    chosen = choose_images(truth, base, 0.1, 7, "f", None)
    np.testing.assert_array_equal(np.bincount(chosen.held_classes), [2, 1, 1])
    np.testing.assert_array_equal(np.bincount(chosen.classes), [18, 2, 4])
    np.testing.assert_array_equal(truth[chosen.rows], base[chosen.classes])
    np.testing.assert_array_equal(np.sort(np.concatenate([chosen.rows, chosen.held_rows])), np.flatnonzero(np.isin(truth, base)))
    other = choose_images(truth, base, 0.1, 8, "f", None)
    assert not np.array_equal(other.held_rows, chosen.held_rows)
    assert len(choose_images(truth, np.array([1, 3]), 0, 7, "f", None).held_rows) == 0
    with pytest.raises(BadInput, match=r"f: class 'x' has 1 image; .* one to hold out \(or give --held-out 0\)"):
        choose_images(truth, np.array([1, 3]), 0.1, 7, "f", ["a", "b", "c", "x"])
    with pytest.raises(BadInput, match="class 4 has 0 images; a base class needs one to train on$"):
        choose_images(truth, np.array([1, 4]), 0, 7, "f", None)


def test_bad_input_is_named_before_any_work(characters, tmp_path, monkeypatch):
    for options, reason in (
        ({"output": tmp_path / "n.pth"}, "has not the ending .safetensors"),
        ({"model": "resnet11"}, "unknown model 'resnet11'"),
        ({"model": "resnet18", "color": "gray"}, "takes colors"),
        ({"model": "vit_b_16", "image_size": 20}, "does not take images of 20 pixels"),
        ({"weights": "DEFAULT"}, "resnet10-small has no weights 'DEFAULT'"),
        ({"weights": str(tmp_path / "no.safetensors")}, "does not exist"),
    ):
        with pytest.raises(BadInput, match=reason) as caught:
            run(characters, tmp_path, **options)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr("ooc_diffusion.stages.listing.open_source", lambda *_, **__: unlabelled())
    with pytest.raises(BadInput, match="does not know the classes of its images"):
        train("digits", store=tmp_path / "u", classes=characters / "base.txt", output=tmp_path / "u.safetensors", **QUICK)


def unlabelled():
    source = DigitsSource()
    source.truth = None
    return source


def test_the_loss_that_grows_without_end_is_named(characters, tmp_path):
    with pytest.raises(BadInput, match="no longer a number in step .*; lower --learning-rate"):
        run(characters, tmp_path, learning_rate=1e30)
