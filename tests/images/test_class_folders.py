from pathlib import Path

import numpy as np
from PIL import Image

from ooc_diffusion.images import ClassFolders, scan_folder
from ooc_diffusion.stages.listing import class_counts, list_images
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store, Strings

NAMES = [
    "root.png",
    "b/2.png",
    "b/10.png",
    "b/below/1.png",
    "a b/é/1.png",
    "a b/é/2.png",
    "a/only/deep/1.png",
    "c-1/1.png",
]


def write(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(root / name)


def test_the_class_of_an_image_is_its_folder_whatever_the_batches(tmp_path):
    write(tmp_path, NAMES)
    for batch_paths in (1, 3, 100):
        classes, found = ClassFolders(), {}
        for batch in scan_folder(tmp_path, batch_paths=batch_paths):
            numbers = classes.number(batch)
            ends = np.cumsum(batch.lengths)
            for end, length, number in zip(ends, batch.lengths, numbers, strict=True):
                found[batch.paths[end - length : end].tobytes().decode()] = int(number)
        assert sorted(classes.names) == sorted({str(Path(name).parent) for name in NAMES[1:]})
        assert found.pop("root.png") == -1
        assert {name: classes.names[number] for name, number in found.items()} == {n: str(Path(n).parent) for n in NAMES[1:]}


def test_lists_of_folders_and_archives_have_the_same_classes(tmp_path):
    import shutil

    write(tmp_path / "images", NAMES)
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "images")
    lists = []
    for spec in ("images", "packed.zip"):
        store = Store(tmp_path / f"{spec}.store", create=True)
        options = {"root": None, "split": None, "settings": Settings(), "class_folders": True}
        list_images(str(tmp_path / spec), store=store, role="background", **options)
        names, paths = store.record("list.background")["class_names"], Strings.open(store, "background/path")
        truth = store.array("background/truth").tolist()
        lists.append([(paths[i], names[c] if c >= 0 else None, c) for i, c in enumerate(truth)])
        counts, counted = class_counts(str(tmp_path / spec), root=None, split=None, settings=Settings())
        assert counted == names
        np.testing.assert_array_equal(counts, np.bincount([c for c in truth if c >= 0]))
    assert lists[0] == lists[1]
    assert all(name == (str(Path(path).parent) if "/" in path else None) for path, name, _ in lists[0])


def test_class_folders_of_two_roles_that_differ_are_warned_of(tmp_path, caplog):
    store = Store(tmp_path / "s", create=True)
    options = {"store": store, "root": None, "split": None, "settings": Settings(), "class_folders": True}
    write(tmp_path / "train", ["a/1.png", "b/1.png"])
    write(tmp_path / "test", ["a/2.png", "c/2.png"])
    list_images(str(tmp_path / "train"), role="background", **options)
    assert caplog.messages == []
    list_images(str(tmp_path / "test"), role="tests", **options)
    assert caplog.messages == [
        "tests and background have other classes (c in tests alone; b in background alone), so that the same number is not the "
        "same class; give both the same classes"
    ]
