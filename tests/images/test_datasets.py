import gzip
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.images import DigitsSource, MnistSource, TorchvisionSource, collect, open_source, white_image


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def small_mnist(tmp_path):
    random = np.random.default_rng(0)
    arrays = {}
    for prefix, n in (("train", 7), ("t10k", 3)):
        images = random.integers(0, 256, (n, 5, 4), np.uint8)
        labels = random.integers(0, 10, n, np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
        arrays[prefix] = images, labels
    return tmp_path, arrays


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits, source = load_digits(), DigitsSource()
    assert len(source) == 1797
    np.testing.assert_array_equal(source.truth, digits.target)
    assert source.truth.dtype == np.int32
    assert source.class_names == list("0123456789")
    for row in (0, 1, 1796):
        np.testing.assert_array_equal(source.read(row), digits.images[row] * 15)
    assert source.name(12) == "digits/00012"
    with pytest.raises(IndexError):
        source.read(-1)


def test_mnist_reads_both_parts(small_mnist):
    root, arrays = small_mnist
    source = open_source("MNIST", root=root)
    images, labels = (np.concatenate(pair) for pair in zip(*arrays.values(), strict=True))
    assert len(source) == 10
    np.testing.assert_array_equal(source.truth, labels)
    for row in range(10):
        np.testing.assert_array_equal(source.read(row), images[row])
    assert [source.name(row) for row in (0, 6, 7, 9)] == ["train/00000", "train/00006", "test/00000", "test/00002"]
    test = open_source("mnist", root=root, split="test")
    np.testing.assert_array_equal(test.truth, arrays["t10k"][1])
    assert test.fingerprint != source.fingerprint
    assert open_source(**source.description).fingerprint == source.fingerprint
    assert open_source(**test.description).fingerprint == test.fingerprint


def test_mnist_in_the_layout_of_torchvision(small_mnist):
    root, arrays = small_mnist
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, (images, labels) in arrays.items():
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx(255 - images))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    np.testing.assert_array_equal(MnistSource("fashion-mnist", root).read(0), 255 - arrays["train"][0][0])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda whole: gzip.compress(whole[:-1]), "has not the 140 values"),
        (lambda whole: gzip.compress(whole + b"x"), "has not the 140 values"),
        (lambda whole: gzip.compress(whole)[:-20], "cannot be read"),
        (lambda whole: b"not gzip", "cannot be read"),
        (lambda whole: gzip.compress(b"\0\0\x08\x01" + whole[4:]), "not an idx file"),
        (lambda whole: gzip.compress(whole[:9]), "not an idx file"),
    ],
)
def test_corrupt_idx_files(small_mnist, content, reason):
    root, arrays = small_mnist
    (root / "train-images-idx3-ubyte.gz").write_bytes(content(idx(arrays["train"][0])))
    with pytest.raises(BadInput, match=reason):
        MnistSource("mnist", root)


def test_labels_of_another_length(small_mnist):
    root, _ = small_mnist
    (root / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(4))))
    with pytest.raises(BadInput, match=r"\(4,\) values where \(3,\)"):
        MnistSource("mnist", root)


@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").exists(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_without_torch():
    program = (
        "import sys; from ooc_diffusion.images import open_source; s = open_source('fashion-mnist');"
        "assert len(s) == 70000 and 'torch' not in sys.modules;"
        "print(s.truth[:3].tolist(), s.truth[60000:60003].tolist(), s.class_names[9], s.name(60000), s.images[0].sum())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[9, 0, 0] [9, 2, 1] Ankle boot test/00000 76247\n"


def test_a_failing_download_names_the_ways_out(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10, FashionMNIST

    def offline(self):
        raise RuntimeError("Error downloading:\nname or service not known")

    monkeypatch.setattr(FashionMNIST, "download", offline)
    monkeypatch.setattr(CIFAR10, "download", offline)
    with pytest.raises(BadInput, match="apt-get install dataset-fashion-mnist, or give --root") as caught:
        open_source("fashion-mnist", root=tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="CIFAR10 cannot be opened.*give --root"):
        open_source("cifar-10", root=tmp_path)


def test_cifar_through_torchvision(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    random = np.random.default_rng(0)
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    files = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    pixels = {name: random.integers(0, 256, (2, 3, 32, 32), np.uint8) for name in files}
    for name in files:
        (folder / name).write_bytes(pickle.dumps({"data": pixels[name].reshape(2, -1), "labels": [3, len(name) % 10]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    source = open_source("cifar10", root=tmp_path)
    assert len(source) == 12
    assert (source.name(9), source.name(10)) == ("train/00009", "test/00000")
    np.testing.assert_array_equal(source.read(11), pixels["test_batch"][1].transpose(1, 2, 0))
    np.testing.assert_array_equal(source.truth, [3, 2] * 5 + [3, 0])
    assert source.class_names[3] == "class 3"
    assert open_source(**source.description).fingerprint == source.fingerprint
    assert TorchvisionSource("CIFAR10", tmp_path, "test").fingerprint != source.fingerprint
    with pytest.raises(BadInput, match="no split 'val'; give train or test"):
        open_source("cifar10", root=tmp_path, split="val")


def test_omniglot_has_classes_of_its_own_in_each_part(tmp_path, monkeypatch):
    from torchvision.datasets import Omniglot, omniglot

    parts = {"images_background": ["Latin/character01", "Greek/character02"], "images_evaluation": ["Tengwar/character01"]}
    value = {}
    for part, characters in parts.items():
        for character in characters:
            folder = tmp_path / "omniglot-py" / part / character
            folder.mkdir(parents=True)
            for i in (2, 1):
                value[character, i] = len(value) + 1
                white_image((5, 5), "L").point([value[character, i]] * 256).save(folder / f"000{i}.png")
    monkeypatch.setattr(omniglot, "check_integrity", lambda *_: True)
    monkeypatch.setattr(omniglot, "list_dir", lambda root: sorted((p.name for p in Path(root).iterdir()), reverse=True))
    source = open_source("omniglot", root=tmp_path)
    assert source.class_names == ["Greek/character02", "Latin/character01", "Tengwar/character01"]
    np.testing.assert_array_equal(source.truth, [0, 0, 1, 1, 2, 2])
    assert source.truth.dtype == np.int32
    names = [(source.class_names[c], i) for c in range(3) for i in (1, 2)]
    assert [source.read(row).getpixel((0, 0)) for row in range(6)] == [value[name] for name in names]
    evaluation = open_source("Omniglot", root=tmp_path, split="evaluation")
    assert (evaluation.class_names, evaluation.truth.tolist()) == (["Tengwar/character01"], [0, 0])
    monkeypatch.setattr(Omniglot, "download", lambda self: None)
    monkeypatch.setattr(omniglot, "check_integrity", lambda *_: False)
    with pytest.raises(BadInput, match="Omniglot cannot be opened.*give --root"):
        open_source("omniglot", root=tmp_path)


def test_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "Kitti"):
        (tmp_path / name).mkdir()
        white_image().save(tmp_path / name / "1.png")
    assert len(open_source("digits")) == 1797
    assert len(open_source("./digits")) == len(open_source("Kitti")) == len(open_source(tmp_path / "digits")) == 1
    assert open_source(**collect("digits").description).name(0) == "1.png"
    with pytest.raises(BadInput, match="did you mean"):
        open_source("fashion-mnits")
    with pytest.raises(BadInput, match="did you mean digits"):
        open_source("digit")
    with pytest.raises(BadInput, match="there is no file or folder"):
        open_source("./digit")
    train, test = (open_source("digits", split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1297, 500)
    assert np.array_equal(np.concatenate([train.truth, test.truth]), open_source("digits").truth)
    assert np.array_equal(np.asarray(test.read(0)), np.asarray(open_source("digits").read(1297)))
    with pytest.raises(BadInput, match="no split 'validation'; use train or test"):
        open_source("digits", split="validation")
