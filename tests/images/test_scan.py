import inspect
import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput, StorageFailure
from ooc_diffusion.images import IMAGE_ENDINGS, ScanFingerprint, UnreadableImage, collect, printable, scan_folder

ENDINGS = tuple("." + ending for ending in IMAGE_ENDINGS)


def listed(root, **options):
    names = []
    for batch in scan_folder(root, **options):
        ends = np.cumsum(batch.lengths)
        names += [batch.paths[e - n : e].tobytes() for e, n in zip(ends, batch.lengths, strict=True)]
    return names


def naive_walk(root, prefix=b""):
    """Oracle: the files of a folder sorted by bytes, then its folders."""
    _, folders, files = next(os.walk(os.fsencode(root) + b"/" + prefix))
    images = [name for name in sorted(files) if os.fsdecode(name).lower().endswith(ENDINGS)]
    found = [prefix + name for name in images]
    for name in sorted(folders):
        found += naive_walk(root, prefix + name + b"/")
    return found


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "images"
    for name in [
        "b.png",
        "a.JPG",
        "B.jpeg",
        "a/z.gif",
        "a/é.png",
        "a/b/c/x.tif",
        "a.b/q.webp",
        "line\nbreak.png",
        "n.txt",
        "a/no",
    ]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe.png")).write_bytes(b"x")
    (root / ("l" * 251 + ".png")).write_bytes(b"x")
    (root / "empty").mkdir()
    return root


def test_order_equals_a_naive_walk(tree):
    expected = naive_walk(tree)
    assert len(expected) == 10
    assert listed(tree) == expected
    for batch_paths in (1, 3, 9, 10):
        assert listed(tree, batch_paths=batch_paths) == expected


def test_order_is_by_bytes_not_by_creation(tmp_path):
    names = [f"{value:x}.png" for value in np.random.default_rng(0).permutation(500)]
    for name in names:
        (tmp_path / name).touch()
    assert listed(tmp_path) == sorted(os.fsencode(name) for name in names)


def test_links_and_special_files(tree):
    expected = sorted([*listed(tree), b"broken.png", b"self.png", b"toa.png"])
    (tree / "broken.png").symlink_to("nowhere")
    (tree / "self.png").symlink_to("self.png")
    (tree / "toa.png").symlink_to("a.JPG")
    (tree / "loop").symlink_to(tree)
    (tree / "loop.png").symlink_to(tree)
    os.mkfifo(tree / "pipe.jpg")
    (tree / "linked_pipe.jpg").symlink_to("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "s.png"))
    assert sorted(listed(tree)) == expected
    (batch,) = scan_folder(tree)
    assert batch.skipped.linked_folders == 2
    assert batch.skipped.special_files == 3
    assert batch.skipped.other_endings == 2
    source = collect(tree)
    for name in ("broken.png", "self.png"):
        row = [source.name(i) for i in range(len(source))].index(name)
        assert batch.sizes[row] == batch.mtimes_ns[row] == -1
        with pytest.raises(UnreadableImage):
            source.read(row)


def test_sizes_and_times_belong_to_their_files(tree):
    (tree / "b.png").write_bytes(b"12345")
    os.utime(tree / "b.png", ns=(7, 1234567891))
    (batch,) = scan_folder(tree)
    row = listed(tree).index(b"b.png")
    assert (batch.sizes[row], batch.mtimes_ns[row]) == (5, 1234567891)
    assert batch.sizes.sum() == 14


def fingerprint(root, **options):
    hashed = ScanFingerprint()
    for batch in scan_folder(root, **options):
        hashed.update(batch)
    return hashed.hexdigest()


def test_fingerprint_sees_every_change_but_not_the_batches(tree):
    first = fingerprint(tree)
    assert len(first) == 32
    assert collect(tree).fingerprint == first
    assert fingerprint(tree, batch_paths=2) == first
    (tree / "n.txt").write_text("not an image")
    assert fingerprint(tree) == first
    seen = {first}
    status = (tree / "b.png").stat()
    (tree / "b.png").write_bytes(b"xx")
    os.utime(tree / "b.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    seen.add(fingerprint(tree))
    os.utime(tree / "b.png", ns=(1, 1))
    seen.add(fingerprint(tree))
    (tree / "b.png").rename(tree / "c.png")
    seen.add(fingerprint(tree))
    assert len(seen) == 4


def test_names_survive(tree):
    source = collect(tree)
    names = [source.name(i) for i in range(len(source))]
    assert "\udcff\udcfe.png" in names
    assert [os.fsencode(name) for name in names] == listed(tree)
    assert printable("\udcff\udcfe.png") == r"\xff\xfe.png"
    assert printable("line\nbreak.png") == r"line\nbreak.png"
    assert printable("a/é.png") == "a/é.png"
    with pytest.raises(IndexError):
        source.name(-1)
    with pytest.raises(IndexError):
        source.name(len(source))


def test_deeper_than_the_recursion_limit(tmp_path):
    depth = 150
    deepest = tmp_path.joinpath(*["d"] * depth)
    deepest.mkdir(parents=True)
    (deepest / "x.png").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + depth - 20)
    try:
        assert listed(tmp_path) == [b"d/" * depth + b"x.png"]
    finally:
        sys.setrecursionlimit(limit)


def test_refusals(tmp_path):
    (tmp_path / "n.txt").touch()
    with pytest.raises(BadInput, match="holds no image.*1 other files"):
        listed(tmp_path)
    with pytest.raises(BadInput, match="is a file, not a folder"):
        listed(tmp_path / "n.txt")
    with pytest.raises(BadInput, match=r"there is no file or folder .*no\\nway"):
        listed(tmp_path / "no\nway")


def test_a_folder_that_cannot_be_listed_is_an_error(tree, monkeypatch):
    real = os.scandir

    def refusing(path):
        if path.endswith(b"a/b/"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(StorageFailure, match="a/b/ cannot be listed: Permission denied"):
        listed(tree)
