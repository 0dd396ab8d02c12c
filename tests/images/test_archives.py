"""Archives of images against the folders they unpack to, and against zipfile and tarfile."""

import gzip
import io
import os
import random
import struct
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.images import UnreadableImage, YfccSource, archive, collect, held_bytes, open_source
from ooc_diffusion.images.members import archive_members

NAMES = [
    "b.png",
    "a/z.png",
    "a/b/1.png",
    "a.png",
    "a/b.png",
    "a!/x.png",
    "c/é.png",
    "B.PNG",
    "c/zz/y.bmp",
    "notes.txt",
    "a/readme",
]


def picture(seed, size=(9, 7), form="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


@pytest.fixture(scope="module")
def files():
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    return {name: picture(seed) if "." in name and "txt" not in name else b"words" for seed, name in enumerate(shuffled)}


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    root = tmp_path_factory.mktemp("tree") / "tree"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(file, files, method=zipfile.ZIP_STORED, **options):
    with zipfile.ZipFile(file, "w", method, **options) as z:
        for name, content in files.items():
            z.writestr(name, content)
    return file


def write_tar(file, files, format=tarfile.GNU_FORMAT, prefix=""):
    with tarfile.open(file, "w", format=format) as t:
        for name, content in files.items():
            about = tarfile.TarInfo(prefix + name)
            about.size = len(content)
            t.addfile(about, io.BytesIO(content))
    return file


WRITERS = {
    "stored": lambda file, files: write_zip(file, files),
    "deflated": lambda file, files: write_zip(file, files, zipfile.ZIP_DEFLATED),
    "tar": lambda file, files: write_tar(file, files),
    "pax": lambda file, files: write_tar(file, files, tarfile.PAX_FORMAT),
    "tar with ./": lambda file, files: write_tar(file, files, prefix="./"),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_an_archive_is_read_like_its_folder(tmp_path, files, folder, write):
    source, expected = open_source(write(tmp_path / "x", files)), collect(folder)
    assert [source.name(i) for i in range(len(source))] == [expected.name(i) for i in range(len(expected))]
    for i in range(len(source)):
        np.testing.assert_array_equal(np.asarray(source.read(i)), np.asarray(expected.read(i)))
    again = open_source(**source.description)
    assert again.fingerprint == source.fingerprint
    assert held_bytes(source) > 0
    with ThreadPoolExecutor(8) as pool:
        for i, image in zip(list(range(len(source))) * 20, pool.map(source.read, list(range(len(source))) * 20), strict=True):
            np.testing.assert_array_equal(np.asarray(image), np.asarray(expected.read(i)))


def test_another_archive_has_another_fingerprint(tmp_path, files):
    one = open_source(write_zip(tmp_path / "a.zip", files)).fingerprint
    names = list(files)
    two = dict(files) | {names[0]: files[names[1]], names[1]: files[names[0]]}
    assert open_source(write_zip(tmp_path / "b.zip", two)).fingerprint != one


def test_what_stands_before_a_zip_and_a_comment_behind(tmp_path, files):
    write_zip(tmp_path / "a.zip", files)
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as z:
        z.comment = b"a comment" * 100
    (tmp_path / "b.zip").write_bytes(b"#!/bin/sh\n" * 50 + (tmp_path / "a.zip").read_bytes())
    for name in ("a.zip", "b.zip"):
        source = open_source(tmp_path / name)
        assert np.asarray(source.read(0)).shape == (9, 7, 3)


def test_large_zips(tmp_path, files, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    write_zip(tmp_path / "a.zip", files)
    monkeypatch.undo()
    assert b"PK\x06\x06" in (tmp_path / "a.zip").read_bytes()
    found = dict(archive_members(tmp_path / "a.zip"))
    with zipfile.ZipFile(tmp_path / "a.zip") as z:
        expected = {e.filename.encode(): (e.header_offset, e.compress_size, e.file_size, e.CRC) for e in z.infolist()}
    assert {name: (m.start, m.stored, m.size, m.crc) for name, m in found.items()} == expected
    assert np.asarray(open_source(tmp_path / "a.zip").read(3)).shape == (9, 7, 3)


def test_the_last_of_equal_paths_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as z:
        for seed, name in enumerate(["a.png", "b.png"]):
            z.writestr(name, picture(seed))
        with pytest.warns(UserWarning, match="Duplicate"):
            z.writestr("a.png", picture(2))
    source = open_source(tmp_path / "x.zip")
    assert [source.name(i) for i in range(len(source))] == ["a.png", "b.png"]
    np.testing.assert_array_equal(np.asarray(source.read(0)), np.asarray(Image.open(io.BytesIO(picture(2)))))


def reasons(source):
    found = {}
    for i in range(len(source)):
        try:
            source.read(i)
        except UnreadableImage as error:
            found[source.name(i)] = str(error)
    assert not any("\n" in reason for reason in found.values())
    return found


def test_members_of_a_zip_that_cannot_be_read(tmp_path):
    good = {f"{i}.png": picture(i) for i in range(6)}
    slips = {
        "../evil.png": picture(1),
        "/abs.png": picture(1),
        "a/../../b.png": picture(1),
        "text.png": b"hello",
        "empty.png": b"",
    }
    file = write_zip(tmp_path / "x.zip", good | slips, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_BZIP2) as z:
        z.writestr("bz.png", picture(3))
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as z:
        place = {e.filename: e.header_offset for e in z.infolist()}
    data[place["1.png"] + 60] ^= 255  # packed bytes
    data[place["2.png"]] ^= 255  # the header before them
    directory = data.rfind(b"3.png") - 46
    data[directory + 8] |= 1  # encrypted
    directory = data.rfind(b"4.png") - 46
    struct.pack_into("<L", data, directory + 24, 2**31)  # a bomb
    directory = data.rfind(b"5.png") - 46
    struct.pack_into("<L", data, directory + 16, 5)  # a checksum
    file.write_bytes(data)
    found = reasons(open_source(file))
    assert found.pop("1.png").startswith("broken in the archive")
    outside = "its path leads out of the archive"
    assert found == {
        "../evil.png": outside,
        "/abs.png": outside,
        "a/../../b.png": outside,
        "text.png": "no image format that Pillow knows",
        "empty.png": "empty file",
        "bz.png": "packed otherwise than by deflate",
        "2.png": "it is not where the directory of the archive says",
        "3.png": "encrypted",
        "4.png": "larger than 256 MiB",
        "5.png": "broken in the archive (its size or checksum is another)",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.zip"]


def test_members_of_a_tar_that_cannot_be_read(tmp_path):
    file = write_tar(tmp_path / "x.tar", {"a.png": picture(0), "../b.png": picture(1), "deep" * 60 + "/c.png": picture(2)})
    with tarfile.open(file, "a") as t:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE), ("pipe.png", tarfile.FIFOTYPE)):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, "/etc/passwd"
            t.addfile(about)
    source = open_source(file)
    assert len(source) == 6
    link = "a link or special file in an archive"
    assert reasons(source) == {
        "../b.png": "its path leads out of the archive",
        "link.png": link,
        "hard.png": link,
        "pipe.png": link,
    }


def cut(write, size):
    def make(file, files):
        write(file, files)
        os.truncate(file, file.stat().st_size + size if size < 0 else size)

    return make


def spoiled_tar(file, files):
    write_tar(file, files)
    data = bytearray(file.read_bytes())
    place = data.find(b"ustar", 1500) - 257
    data[place : place + 100] = b"x" * 100
    file.write_bytes(data)


def spoiled_directory(file, files):
    write_zip(file, files)
    data = bytearray(file.read_bytes())
    data[data.find(b"PK\x01\x02", data.find(b"PK\x01\x02") + 4)] = 0
    file.write_bytes(data)


def lying_end(file, files):
    write_zip(file, files)
    data = bytearray(file.read_bytes())
    struct.pack_into("<HH", data, data.rfind(b"PK\x05\x06") + 8, 60000, 60000)
    file.write_bytes(data)


BAD = {
    "cut zip": ("x.zip", cut(write_zip, -30), "x.zip is no whole zip archive: its directory at the end is missing"),
    "empty zip": ("x.zip", lambda file, files: file.write_bytes(b""), "x.zip is no whole zip archive"),
    "directory": ("x.zip", spoiled_directory, "x.zip: its directory breaks off after 1 of 11 files"),
    "count": ("x.zip", lying_end, r"says that its directory has 60000 files in \d+ bytes, which cannot be"),
    "cut tar": ("x.tar", cut(write_tar, 2000), r"x.tar is no whole tar archive: behind \d+ files, unexpected end of data"),
    "cut between": ("x.tar", spoiled_tar, r"x.tar is no whole tar archive: behind \d+ files, .*header"),
    "no tar": ("x.tar", lambda file, files: file.write_bytes(b"hello" * 500), "x.tar is no whole tar archive: behind 0 files"),
    "packed": (
        "x.tar.gz",
        lambda file, files: file.write_bytes(gzip.compress(write_tar(file, files).read_bytes())),
        "x.tar.gz is packed as a whole by gzip, .*; unpack it to a .tar or to a folder",
    ),
    "neither": ("x.rar", lambda file, files: file.write_bytes(b"Rar!" * 200), "x.rar is a file, but no zip or tar archive"),
    "no image": ("x.zip", lambda file, files: write_zip(file, {"a.txt": b""}), r"x.zip holds no image \(1 other files\)"),
    "none": ("./x.zip", lambda file, files: None, "there is no file or folder"),
}


@pytest.mark.parametrize(("name", "make", "message"), BAD.values(), ids=BAD)
def test_bad_archives(tmp_path, files, name, make, message):
    make(tmp_path / name, files)
    with pytest.raises(BadInput, match=message) as error:
        open_source(tmp_path / name)
    assert "\n" not in str(error.value)


def test_an_index_larger_than_the_memory(tmp_path, files):
    write_zip(tmp_path / "x.zip", files)
    with pytest.raises(DoesNotFit, match=r"index of the images in .*x.zip takes more than the memory budget; .* unpack it"):
        open_source(tmp_path / "x.zip", most_bytes=500)


@pytest.mark.parametrize("name", ["a/b", "a", "b.png", "a/b/c/d.png", "a!/x", "a/b!.png", "é"])
def test_the_order_of_paths(name):
    from ooc_diffusion.store import path_key

    others = [other.encode() for other in NAMES]
    ours, theirs = archive._sort_key(name.encode()), path_key(name.encode())
    assert [archive._sort_key(other) < ours for other in others] == [path_key(other) < theirs for other in others]


@pytest.fixture
def yfcc(tmp_path):
    """Images 2, 999, 1000, 1004 (broken) and 1 002 003; 00/003.zip is broken, 00/004.zip has other names."""
    root = tmp_path / "yfcc"
    for folder in ("00", "01", "other"):
        (root / folder).mkdir(parents=True)
    write_zip(root / "00" / "000.zip", {"002.jpg": picture(2, form="JPEG"), "999.jpg": picture(999, form="JPEG"), "x.txt": b""})
    write_zip(root / "00" / "001.zip", {"000.jpg": picture(1000, form="JPEG"), "004.jpg": b"broken"})
    (root / "00" / "003.zip").write_bytes(b"broken")
    write_zip(root / "00" / "004.zip", {"7.jpg": b"", "a/005.jpg": b"", "1234.jpg": b""})
    write_zip(root / "01" / "002.zip", {"003.jpg": picture(3, form="JPEG")})
    write_zip(root / "other" / "009.zip", {"003.jpg": b""})
    return root


def test_yfcc(yfcc):
    source = open_source(yfcc, layout="yfcc")
    assert len(source) == 1_002_004
    assert source.name(1_002_003) == "01/002.zip/003.jpg"
    assert source.name(999) == "00/000.zip/999.jpg"
    for row in (2, 999, 1000, 1_002_003):
        with zipfile.ZipFile(yfcc / f"{row // 10**6:02d}" / f"{row // 1000 % 1000:03d}.zip") as z:
            expected = np.asarray(Image.open(z.open(f"{row % 1000:03d}.jpg")))
        np.testing.assert_array_equal(np.asarray(source.read(row)), expected)
    for row, reason in {
        0: "missing in its archive",
        1004: "no image format that Pillow knows",
        2000: "its archive is missing",
        3007: "its archive is broken",
        4007: "missing in its archive",
        999_999: "its archive is missing",
    }.items():
        with pytest.raises(UnreadableImage, match=f"^{reason}$"):
            source.read(row)
    with pytest.raises(IndexError):
        source.read(1_002_004)
    assert open_source(**source.description).fingerprint == source.fingerprint
    shorter = open_source(yfcc, layout="yfcc", number=1000)
    assert len(shorter) == 1000
    assert shorter.fingerprint != source.fingerprint
    assert len(open_source(yfcc, layout="yfcc", number=10**8)) == 10**8
    (yfcc / "00" / "002.zip").write_bytes(b"")
    assert open_source(yfcc, layout="yfcc").fingerprint != source.fingerprint


def test_bad_yfcc(yfcc, tmp_path):
    for options, message in (
        ({"number": 5}, "--layout yfcc and its --number are for a folder of zip archives"),
        ({"layout": "yfcc", "split": "train"}, "leave out what else belongs to"),
        ({"layout": "yfcc", "number": 0}, "`number` is 0; give from 1 to 100000000 images"),
    ):
        with pytest.raises(BadInput, match=message):
            open_source(yfcc, **options)
    with pytest.raises(BadInput, match="is no folder; give the one that holds 00/000.zip"):
        YfccSource(yfcc / "00" / "000.zip")
    with pytest.raises(BadInput, match="holds no archives such as 00/000.zip"):
        YfccSource(yfcc / "00")
    (tmp_path / "e" / "00").mkdir(parents=True)
    write_zip(tmp_path / "e" / "00" / "000.zip", {"x.jpg": b""})
    with pytest.raises(BadInput, match="hold no image such as 000.jpg"):
        YfccSource(tmp_path / "e")
