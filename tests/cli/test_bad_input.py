"""Bad input: one line that says what, where and what to do, the right exit code, and nothing of the user's touched."""

import io
import json
import os
import pickle
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pytest

import ooc_diffusion
from ooc_diffusion.cli.main import COMMANDS, cli
from ooc_diffusion.errors import BadInput, StorageFailure
from ooc_diffusion.store import Store
from ooc_diffusion.store.files import require_writable

from .conftest import PIXELS
from .helpers import COMMAND, digit_images, done, files_below, run, spawn, write_images


def label(root, *more, labels="few.csv", images="images", output="out.csv"):
    return run("label", root / images, "--labels", root / labels, "--output", root / output, *PIXELS, *more)


LABEL = label


@pytest.fixture
def folder(digit_folder, tmp_path):
    """A copy of the 60 digits that a test may spoil."""
    return shutil.copytree(digit_folder, tmp_path / "d")


LABELS = {
    "unknown path": (
        "path,label\n00.png,a\nno such.png,b\n",
        r"few.csv line 3: no image has the path 'no such.png'; .* '00.png'",
    ),
    "unknown bytes": ("path,label\n00.png,a\n\udcff.png,b\n", r"few.csv line 3: no image has the path '\\\\xff.png'; "),
    "row too large": ("row,label\n0,a\n60,b\n", r"line 3: '60' is not a row of the 60 images; rows go from 0 to 59"),
    "row negative": ("row,label\n-1,a\n", r"line 2: '-1' is not a row of the 60 images"),
    "row no number": ("row,label\n٣,a\n", r"line 2: '٣' is not a row of the 60 images"),
    "two labels": ("path,label\n00.png,a\n01.png,b\n./00.png,c\n", r"line 4: './00.png' is labelled 'c', but 'a' in line 2"),
    "two labels after a gap": ("path,label\n00.png,a\n\n00.png,c\n", r"line 4: '00.png' is labelled 'c', but 'a' in line 2"),
    "unlabelled": ("path,label\n00.png,\n01.png,-1\n", r"few.csv labels no image; label at least one"),
    "header alone": ("path,label\n", r"few.csv labels no image; label at least one"),
    "empty": ("", r"few.csv has the columns none; give path,label \(or row,label\) in its first line"),
    "no header": ("00.png,a\n01.png,b\n", r"few.csv has the columns 00.png, a; give path,label \(or row,label\)"),
    "other columns": ("file,class\n00.png,a\n", r"few.csv has the columns file, class; give path,label \(or row,label\)"),
    "ragged": ("path,label\n00.png,a\n01.png,b,c\n", r"few.csv line 3 has 3 fields, the header 2; quote fields that hold commas"),
    "binary": ("\x00\x01\x02", r"few.csv has the columns \\x00\\x01\\x02; give path,label"),
    "UTF-16": ("path,label\n00.png,a\n".encode("utf-16").decode(errors="surrogateescape"), "few.csv is UTF-16; save it as UTF-8"),
    "column twice": ("path,label,label\n00.png,a,b\n", "few.csv has a column twice: path, label, label; keep one path and one"),
    "label of bytes": (
        "path,label\n00.png,caf\udce9\n",
        r"few.csv line 2: label 'caf\\\\xe9' is not UTF-8; save the file as UTF-8",
    ),
    "open quote": ('path,label\n00.png,a\n01.png,"b\n', r"few.csv line 3 is no CSV: unexpected end of data; mend that line"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels(folder, case):
    text, told = LABELS[case]
    (folder / "few.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    ran = label(folder)
    assert ran.code == 3
    assert re.search(told, ran.error), ran.error
    assert ran.error.startswith(f"error: {folder}/few.csv")
    assert not (folder / "out.csv").exists()
    assert not (folder / "out.html").exists()


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (
            "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\nten\n",
            r"few.csv labels no image of class 'ten'; label one, or take it out of .*names.txt",
        ),
        ("0\n1\n2\n3\n4\n5\n6\n7\n8\n", r"few.csv line 11: '9' is not among the classes of .*names.txt"),
        ("0\n1\n1\n", r"names.txt names no class, or one twice; give one class per line"),
        ("", r"names.txt names no class, or one twice; give one class per line"),
        (b"\xff\xfe", r"names.txt cannot be read: .*"),
        (None, r"names.txt cannot be read: .*No such file"),
    ],
)
def test_classes(folder, classes, told):
    if classes is not None:
        (folder / "names.txt").write_bytes(classes if isinstance(classes, bytes) else classes.encode())
    ran = label(folder, "--classes", folder / "names.txt")
    assert ran.code == 3
    assert re.search(told, ran.error), ran.error


def test_a_labels_file_that_is_not_there(folder):
    ran = label(folder, labels="none.csv")
    assert (ran.code, ran.error) == (3, f"error: {folder}/none.csv does not exist; give a CSV with the columns path,label")
    assert not (folder / "out.csv.store").exists()


class Bomb:
    """An object whose unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def npy(header, data=b""):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


FLOATS = np.arange(40, dtype=np.float32).reshape(10, 4)


def spoiled(row, column, value, dtype=np.float32):
    array = FLOATS.astype(dtype)
    array[row, column] = value
    return saved(array)


DESCRIPTORS = {
    "NaN": (spoiled(7, 2, np.nan), r"x.npy: row 7 holds nan at column 2; descriptors must be finite, remove or recompute"),
    "infinity": (spoiled(3, 0, -np.inf), r"x.npy: row 3 holds -inf at column 0; "),
    "too large for float32": (spoiled(4, 1, 1e39, np.float64), r"x.npy, as float32,: row 4 holds inf at column 1"),
    "one axis": (saved(FLOATS[0]), r"x.npy holds float32 \(4,\); descriptors are .* \(images, dimensions\): save values\[None\]"),
    "three axes": (saved(FLOATS.reshape(10, 2, 2)), r"x.npy holds float32 \(10, 2, 2\); descriptors are numbers"),
    "no rows": (saved(FLOATS[:0]), r"x.npy holds float32 \(0, 4\)"),
    "no columns": (saved(FLOATS[:, :0]), r"x.npy holds float32 \(10, 0\)"),
    "text": (saved(FLOATS.astype(str)), r"x.npy holds <U32 \(10, 4\); .*: save them as floats or integers"),
    "complex": (saved(FLOATS.astype(complex)), r"x.npy holds complex128 \(10, 4\)"),
    "truncated": (
        saved(FLOATS)[:-8],
        r"x.npy cannot be read as an .npy array \(it is cut off: it has 280 bytes of the 288 that its header tells of\)",
    ),
    "cut in its header": (saved(FLOATS)[:60], r"x.npy cannot be read as an .npy array \(its header is cut off or damaged\)"),
    "empty": (b"", r"x.npy cannot be read as an .npy array \(it is empty\); save plain numbers with numpy.save"),
    "no npy": (b"hello, world" * 20, r"x.npy cannot be read as an .npy array \(it is text\); save plain"),
    "text of many bytes": ("ü".encode() * 200, r"x.npy cannot be read as an .npy array \(it is text\)"),
    "noise": (bytes(range(255, 0, -1)), r"x.npy cannot be read as an .npy array \(it begins as no such file does\)"),
    "half a zip": (b"PK\x03\x04garbage", r"x.npy cannot be read as an .npy array \(it is a zip archive of arrays or files\)"),
    "8 TB": (
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 2048), }", bytes(64)),
        r"x.npy cannot be read as an .npy array \(it is cut off: it has 192 bytes of the 8,192,000,000,128 ",
    ),
    "overflowing shape": (
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 16), }", bytes(64)),
        r"x.npy cannot be read as an .npy array",
    ),
    "code in the header": (
        npy("{'descr': __import__('os').mkdir('hit'), 'fortran_order': False, 'shape': (1, 1)}"),
        r"x.npy cannot be",
    ),
}


@pytest.mark.parametrize("case", DESCRIPTORS)
def test_descriptors(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    data, told = DESCRIPTORS[case]
    (tmp_path / "x.npy").write_bytes(data)
    ran = run("import", "x.npy", "--store", "s")
    assert ran.code == 3
    assert re.search("^error: " + told, ran.error), ran.error
    assert not (tmp_path / "hit").exists()


def test_integers_beyond_float32_are_told_by_row(tmp_path):
    """2**24 + 1 has no float32; as a descriptor it is rounded like any number, and never wraps around."""
    array = np.array([[2**63, 1], [2**64 - 1, 2]], np.uint64)
    np.save(tmp_path / "x.npy", array)
    done("import", tmp_path / "x.npy", "--store", tmp_path / "s")
    from ooc_diffusion.store import Store

    assert Store(tmp_path / "s").array("background/descriptors").tolist() == [[2.0**63, 1.0], [2.0**64, 2.0]]


def test_pickled_objects_are_refused_and_their_code_is_not_run(tmp_path):
    array = np.empty(2, object)
    array[:] = [Bomb(tmp_path / "hit"), 1]
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    ran = run("import", tmp_path / "x.npy", "--store", tmp_path / "s")
    assert ran.code == 3
    assert "x.npy cannot be read as an .npy array (it holds Python objects, which are never loaded)" in ran.error
    (tmp_path / "x.npy").write_bytes(pickle.dumps(Bomb(tmp_path / "hit")))  # numpy.load takes a bare pickle, too
    ran = run("import", tmp_path / "x.npy", "--store", tmp_path / "s")
    assert ran.code == 3
    assert "save plain numbers with numpy.save" in ran.error
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize(
    ("option", "content", "told"),
    [
        ("--truth", saved(np.zeros(9, int)), r"t holds int64 \(9,\); give the classes as integers of shape \(10,\)"),
        ("--truth", saved(np.zeros(10)), r"t holds float64 \(10,\); give the classes as integers"),
        ("--truth", saved(np.arange(10) - 5), r"t row 0 is -5; classes are 0, 1, ..., and -1 for unknown"),
        ("--truth", saved(np.full(10, 2**40)), r"t row 0 is 1099511627776; classes are .*"),
        ("--names", b"a\nb\n", r"t has 2 names for 10 descriptors; give one name per line and row"),
        ("--names", b"a\na\n", r"t line 2: 'a' is the name of the row before, too; give each row a name of its own"),
        ("--names", b"b\na\n", r"t line 2: 'a' stands behind 'b', but sorts before it; sort names and descriptors together"),
        ("--names", saved(FLOATS), r"t is no text in UTF-8; give one name per line"),
        ("--names", None, r"t cannot be read: No such file or directory; check the path"),
        ("--truth", None, r"t cannot be read: No such file or directory; check the path"),
    ],
)
def test_what_comes_with_descriptors(tmp_path, option, content, told):
    np.save(tmp_path / "x.npy", FLOATS)
    if content is not None:
        (tmp_path / "t").write_bytes(content)
    ran = run("import", tmp_path / "x.npy", "--store", tmp_path / "s", option, tmp_path / "t")
    assert ran.code == 3
    assert re.search(f"^error: {re.escape(str(tmp_path))}/{told}", ran.error), ran.error


def test_a_descriptor_file_that_is_not_there(tmp_path):
    ran = run("import", tmp_path / "x.npy", "--store", tmp_path / "s")
    assert (ran.code, ran.error) == (3, f"error: {tmp_path}/x.npy does not exist; check the path")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (np.array([[0, 1], [1, 7]]), r"7"),
        (np.array([[0, 1], [1, -2]]), r"-2"),
        (np.array([[0, 1], [1, 2**32]]), str(2**32)),
        (np.array([[0, 1], [1, 0]], float), r"float64"),
        (np.array([0, 1]), r"\(2,\)"),
        (np.array([[np.nan, 1]]), r"float64"),
    ],
)
def test_neighbor_ids_that_are_none(table, told):
    with pytest.raises(BadInput, match=told) as raised:
        ooc_diffusion.build_graph(table)
    assert raised.value.exit_code == 3
    assert isinstance(raised.value, ValueError)
    assert "\n" not in str(raised.value)


def test_more_neighbors_than_images(vectors, folder):
    ran = run("neighbors", "--store", vectors, "--k", "61", "--overwrite")
    assert (ran.code, ran.error) == (3, "error: --k is 61, but there are only 60 background images; give a --k of at most 60")
    ran = run(
        "label",
        folder / "images",
        "--labels",
        folder / "few.csv",
        "--output",
        folder / "out.csv",
        "--model",
        "pixels",
        "--k",
        "61",
    )
    assert (ran.code, ran.error) == (3, "error: --k is 61, but there are only 60 images; give a --k of at most 60")
    ran = run("graph", "--store", vectors, "--k", "9")
    assert ran.code == 3
    assert "9" in ran.error


def test_one_corrupt_image_costs_one_row(folder):
    (folder / "images" / "40.png").write_bytes(b"no image")
    record = json.loads(label(folder, "--max-failures", "0.02", "--json").out)
    assert (record["images"], record["unreadable"]) == (60, 1)
    assert record["stages"]["extract.background"]["first_unreadable"] == [[40, "40.png", "no image format that Pillow knows"]]
    text = (folder / "out.csv").read_text().splitlines()
    assert len(text) == 61
    assert text[41].startswith("40.png,")
    assert "40.png" in (folder / "out.html").read_text()


def test_a_class_whose_images_are_all_broken_is_told_before_the_search(folder):
    (folder / "images" / "40.png").write_bytes(b"no image")
    few = (folder / "few.csv").read_text()
    (folder / "few.csv").write_text(few.rstrip("\n") + "\n40.png,lost\n")
    ran = label(folder, "--max-failures", "0.02")
    assert (ran.code, ran.error) == (
        3,
        f"error: {folder}/few.csv: no labelled image of class 'lost' could be read (40.png); label another one, or leave the "
        "class out",
    )
    made = Store(folder / "out.csv.store").manifest.stages
    assert sorted(made) == ["extract.background", "list.background"]


def test_labels_of_one_class_are_warned_of_once(folder):
    (folder / "few.csv").write_text("path,label\n00.png,x\n01.png,x\n")
    words = ["label", folder / "images", "--labels", folder / "few.csv", "--output", folder / "out.csv", *PIXELS]
    ran = run(*words, quiet=False)
    assert ran.code == 0
    told = [line for line in ran.err.splitlines() if "names one class only" in line]
    assert told == [
        f"{folder}/few.csv names one class only, 'x': every image that labels reach is given it; "
        "label images of another class, too"
    ]


def test_a_folder_that_is_not_writable():
    with tempfile.TemporaryDirectory(dir="/tmp") as made:  # nobody may enter the folders of pytest
        folder = Path(made)
        folder.chmod(0o555)
        if os.getuid() == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(StorageFailure, match=f"creating {folder}/new failed: {folder} is not writable"):
                require_writable(folder / "new")
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            folder.chmod(0o755)
        require_writable(folder / "new")


def test_corrupt_images_above_the_limit_stop_the_run(folder):
    for name in ("40.png", "41.png", "42.png"):
        (folder / "images" / name).write_bytes(b"")
    ran = label(folder, "--max-failures", "0.04")
    assert ran.code == 3
    assert ran.error == (
        "error: 3 of the first 60 images are unreadable, more than --max-failures 0.04 of 60 allows (40.png: empty file; "
        "41.png: empty file; 42.png: empty file); mend them, or raise --max-failures to go on"
    )
    assert not (folder / "out.csv").exists()
    assert label(folder, "--max-failures", "0.05").code == 0
    assert len((folder / "out.csv").read_text().splitlines()) == 61


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.mkdir(), r"folder .*/x holds no image \(0 other files\); looked for the endings png, jpg"),
        (lambda path: path.write_text("x"), r"/x is a file, but no zip or tar archive; give a folder or archive of images"),
        (lambda path: None, r"there is no file or folder .*/x; check the path"),
        (lambda path: [path.mkdir(), (path / "a.txt").touch()], r"folder .*/x holds no image \(1 other files\)"),
        (lambda path: [path.mkdir(), (path / "\udcff\n.txt").mkdir()], r"folder .*/x holds no image \(0 other files\)"),
    ],
)
@pytest.mark.parametrize("command", ["label", "extract"])
def test_folders_that_hold_no_images(tmp_path, folder, make, told, command):
    make(tmp_path / "x")
    if command == "label":
        ran = run("label", tmp_path / "x", "--labels", folder / "few.csv", "--output", tmp_path / "o.csv", *PIXELS)
    else:
        ran = run("extract", tmp_path / "x", "--store", tmp_path / "s", "--model", "pixels")
    assert ran.code == 3
    assert re.search(told, ran.error), ran.error
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize("name", ["out.csv", "out.html"])
def test_an_output_of_others_is_refused_before_the_work_and_left_alone(folder, name):
    (folder / name).write_text("my thesis")
    assert label(folder, "--dry-run").error == label(folder).error
    ran = label(folder)
    option = {"out.csv": "output", "out.html": "report"}[name]
    assert (ran.code, ran.error) == (
        3,
        f"error: {folder}/{name} exists; give another --{option}, or --overwrite to replace it",
    )
    assert (folder / name).read_text() == "my thesis"
    assert not [file for file in files_below(folder / "out.csv.store") if file.startswith("data/")]
    assert label(folder, "--overwrite").code == 0
    assert (folder / "out.csv").read_text().startswith("path,label,confidence,origin\n")
    assert (folder / "out.html").read_text().startswith("<!")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_an_output_that_cannot_be(folder, dry):
    def label(*words, **options):
        return LABEL(*words, *dry, **options)

    ran = label(folder, output="no/out.csv")
    assert (ran.code, ran.error) == (3, f"error: {folder}/no is no folder; make it, or give another output")
    assert not (folder / "no").exists()
    ran = label(folder, output="images")
    assert (ran.code, ran.error) == (3, f"error: {folder}/images is a folder; give the name of a file to write")
    ran = label(folder, "--report", folder / "no" / "page.html")
    assert (ran.code, ran.error) == (3, f"error: {folder}/no is no folder; make it, or give another output")
    ran = label(folder, "--report", folder / "out.csv")
    assert ran.code == 3
    assert "the report and the output would both be" in ran.error
    assert sorted(path.name for path in folder.iterdir()) == ["few.csv", "images"]


def float_parameters():
    """All options of all commands that take a number with a fraction."""
    commands = (cli.get_command(click.Context(cli), name) for name in COMMANDS)
    return [
        pytest.param(parameter, id=f"{command.name} {parameter.opts[-1]}")
        for command in commands
        for parameter in command.params
        if isinstance(parameter.type, click.types.FloatParamType)
    ]


@pytest.mark.parametrize("parameter", float_parameters())
@pytest.mark.parametrize("given", ["nan", "inf"])
def test_numbers_that_are_none(parameter, given):
    with pytest.raises(click.BadParameter, match=rf"{given} is not (a finite number|in the range)"):
        parameter.type.convert(given, parameter, None)


@pytest.mark.parametrize("size", ["4", "-1G", "4 bananas", "", "0", "120%", "1e3GiB", "4GiB4", "63MiB", "nan", "4,5GiB"])
def test_sizes_that_are_none(folder, size):
    ran = label(folder, "--memory-budget", size)
    assert ran.code == 2
    assert run("plan", "1000", "--memory-budget", size).code == 2
    assert repr(size) in ran.error
    assert ";" in ran.error or "such as 8GiB" in ran.error or "smallest" in ran.error
    if size == "4":
        assert ran.error.endswith("; did you mean 4GiB?")
    assert not (folder / "out.csv.store").exists()


def test_a_budget_too_small_names_the_smallest_that_works(digit_folder, tmp_path):
    words = ["label", digit_folder / "images", "--labels", digit_folder / "few.csv", "--output", tmp_path / "o.csv", *PIXELS]
    ran = spawn(*words, "--memory-budget", "100MiB", "-q")
    assert ran.code == 7
    least = re.search(
        r"the memory budget of 100MiB is too small: stage \w+ needs (\d+MiB); give --memory-budget \1 or more", ran.error
    )
    assert least, ran.error
    assert not [file for file in files_below(tmp_path / "o.csv.store") if "descriptors" in file]
    below = f"{int(least[1][:-3]) - 1}MiB"
    assert spawn(*words, "--memory-budget", below, "-q").code == 7
    works = spawn(*words, "--memory-budget", least[1], "-q", "--json")
    record = json.loads(works.out)
    assert record["peak_memory_bytes"] <= int(least[1][:-3]) * 2**20
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 61


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small tmpfs is not allowed here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.faults
def test_no_space(digit_folder, tiny_disk, tmp_path):
    images = digit_folder / "images"
    ran = run("extract", images, "--store", tiny_disk / "s", "--model", "pixels", "--image-size", "32")
    assert ran.code == 6
    assert re.search(rf"{tiny_disk}/s needs 240 KiB of disk but has [\d.]+ KiB free; free some space, run .*clean", ran.error)
    ran = label(digit_folder, "--store", tiny_disk / "t", output=os.path.relpath(tmp_path / "o.csv", digit_folder))
    assert ran.code == 6
    assert "free" in ran.error
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.faults
def test_no_space_for_the_output(digit_folder, tiny_disk, tmp_path):
    (tiny_disk / "ballast").write_bytes(bytes(64 * 1024 - 3 * 4096))
    ran = label(digit_folder, "--store", tmp_path / "s", output=os.path.relpath(tiny_disk / "o.csv", digit_folder))
    assert ran.code == 6
    assert "o." in ran.error
    assert [path.name for path in tiny_disk.iterdir() if path.name not in ("ballast", "o.csv")] == []


HOLD = (
    "import sys; from ooc_diffusion.store import Store\nwith Store(sys.argv[1]).lock: print('held', flush=True); sys.stdin.read()"
)


@pytest.mark.faults
def test_a_store_that_a_living_process_writes(digit_folder, tmp_path):
    store = tmp_path / "s"
    done("extract", digit_folder / "images", "--store", store, "--model", "pixels")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "held\n"
        for words in (["reduce", "--store", store], ["extract", digit_folder / "images", "--store", store, "--model", "pixels"]):
            ran = run(*words)
            assert ran.code == 5
            assert f'"pid": {holder.pid},' in ran.error
            assert ran.error.endswith("; wait for it or end it")
        assert run("status", "--store", store).code == 0  # readers are welcome
        holder.kill()
    assert run("reduce", "--store", store).code == 0  # the lock ends with its process


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["truncated", "missing", "grown", "manifest", "manifest gone"])
def test_a_damaged_store(vectors, tmp_path, fault):
    store = shutil.copytree(vectors, tmp_path / "s")
    (file,) = store.glob("data/background.vectors.*.npy")
    before = file.stat().st_size
    if fault == "truncated":
        os.truncate(file, before - 5)
    elif fault == "grown":
        os.truncate(file, before + 5)
    elif fault == "missing":
        file.unlink()
    elif fault == "manifest":
        (store / "manifest.json").write_text((store / "manifest.json").read_text().replace("60", "61", 1))
    else:
        (store / "manifest.json").unlink()
    names = "manifest.json" if fault.startswith("manifest") else file.name
    ran = run("neighbors", "--store", store, "--k", "7", "--overwrite")
    assert ran.code == 4
    assert names in ran.error
    ran = run("verify", "--store", store)
    assert ran.code == 4
    assert names in ran.error
    if fault in ("truncated", "grown"):
        assert file.stat().st_size == before + {"truncated": -5, "grown": 5}[fault]


@pytest.mark.faults
def test_a_flipped_bit_is_found_by_reading_the_data(vectors, tmp_path):
    store = shutil.copytree(vectors, tmp_path / "s")
    (file,) = store.glob("data/background.vectors.*.npy")
    data = bytearray(file.read_bytes())
    data[500] ^= 4
    file.write_bytes(data)
    assert run("verify", "--store", store).code == 0
    ran = run("verify", "--store", store, "--data", "--json")
    assert ran.code == 4
    assert json.loads(ran.out)["problems"] == [
        {
            "array": "background/vectors",
            "file": f"data/{file.name}",
            "what": "chunk 0 (from byte 128) has changed",
            "stage": "reduce.background",
        }
    ]
    assert ran.error.endswith("; run stage reduce.background again with --overwrite")
    assert f"background/vectors (data/{file.name})" in ran.error


def test_a_stage_whose_array_is_missing_is_not_done(vectors, tmp_path):
    store = shutil.copytree(vectors, tmp_path / "s")
    (file,) = store.glob("data/background.vectors.*.npy")
    before = file.read_bytes()
    file.unlink()
    ran = run("reduce", "--store", store, "--dim", "4")
    assert ran.code == 4
    assert ran.error == f"error: {file} is missing; run stage reduce.background again with --overwrite"
    done("reduce", "--store", store, "--dim", "4", "--overwrite")
    (file,) = store.glob("data/background.vectors.*.npy")
    assert file.read_bytes() == before


@pytest.mark.parametrize("option", ["--output", "--report"])
def test_what_is_read_is_not_written_over(folder, option):
    before = (folder / "few.csv").read_bytes()
    words = (
        ["--output", folder / "few.csv"] if option == "--output" else ["--output", folder / "o.csv", option, folder / "few.csv"]
    )
    ran = run("label", folder / "images", "--labels", folder / "few.csv", *words, "--model", "pixels", "--overwrite")
    assert (ran.code, ran.error) == (
        3,
        f"error: {folder}/few.csv is read by this run and would be replaced; give another file to write",
    )
    assert (folder / "few.csv").read_bytes() == before


def test_a_store_folder_with_files_of_others(folder):
    (folder / "s").mkdir()
    (folder / "s" / "thesis.tex").write_text("mine")
    for ran in (label(folder, "--store", folder / "s"), run("import", folder / "few.csv", "--store", folder / "s")):
        assert ran.code == 3
    ran = label(folder, "--store", folder / "s")
    assert ran.error == f"error: {folder}/s is a folder with other files in it; give an empty or new folder as --store"
    assert files_below(folder / "s") == {"thesis.tex": b"mine"}
    assert label(folder, "--store", folder / "s", "--dry-run").error == ran.error
    assert files_below(folder / "s") == {"thesis.tex": b"mine"}
    ran = label(folder, "--store", folder / "few.csv")
    assert label(folder, "--store", folder / "few.csv", "--dry-run").error == ran.error
    assert (ran.code, ran.error) == (3, f"error: {folder}/few.csv is a file, but a store is a folder; give another --store")


def model(folder, *words):
    return run("extract", folder / "images", "--store", folder / "s", *words)


def test_models_and_weights(folder):
    ran = model(folder, "--model", "resnet51")
    assert ran.code == 2
    assert re.match(r"error: unknown model 'resnet51'; did you mean .*resnet50.*\?", ran.error)
    ran = model(folder, "--model", "resnet18", "--weights", folder / "none.pth")
    assert (ran.code, ran.error) == (3, f"error: weights file {folder}/none.pth does not exist; check the path")
    ran = model(folder, "--model", "pixels", "--weights", "w.pth")
    assert (ran.code, ran.error) == (
        3,
        "error: --weights are for networks; leave w.pth out with --model pixels, or name its --model",
    )
    ran = model(folder, "--model", "resnet18", "--weights", "MAGIC")
    assert ran.code == 3
    assert "resnet18 has no weights 'MAGIC'; give IMAGENET1K_V1, DEFAULT, none, or a file" in ran.error
    (folder / "hostile.pth").write_bytes(pickle.dumps(Bomb(folder / "hit")))
    ran = model(folder, "--model", "resnet18", "--weights", folder / "hostile.pth")
    assert ran.code == 3
    assert "hostile.pth" in ran.error
    import torch

    torch.save({"fc.weight": Bomb(folder / "hit")}, folder / "hostile2.pth")
    ran = model(folder, "--model", "resnet18", "--weights", folder / "hostile2.pth")
    assert ran.code == 3
    assert (
        "holds more than tensors and was not loaded, since that could run code; save its state dict as .safetensors" in ran.error
    )
    assert not (folder / "hit").exists()
    (folder / "w.safetensors").write_bytes(b"\xff" * 100)
    ran = model(folder, "--model", "resnet18", "--weights", folder / "w.safetensors")
    assert ran.code == 3
    assert "w.safetensors cannot be read" in ran.error


def test_a_gpu_that_is_not_there(folder):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    ran = model(folder, "--model", "resnet18", "--weights", "none", "--device", "cuda")
    assert (ran.code, ran.error) == (3, "error: device cuda is not there (0 GPUs found); give --device cpu")
    ran = label(folder, "--device", "cuda")
    assert ran.code == 3
    assert "--device cpu" in ran.error
    ran = label(folder, "--device", "tpu")
    assert (ran.code, ran.error) == (2, "error: --device 'tpu' is not one of auto, cpu, cuda")


def test_published_weights_without_network_name_the_ways_out(folder, tmp_path):
    """The proxy is a closed port: whatever network this machine has, the weights cannot be had."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        started = time.monotonic()
        ran = spawn(
            *("label", folder / "images", "--labels", folder / "few.csv", "--output", folder / "o.csv", "-q"),
            TORCH_HOME=str(tmp_path / "torch"),
            https_proxy=proxy,
            HTTPS_PROXY=proxy,
        )
    assert ran.code == 3
    assert re.search(r"weights ResNet50_Weights\.\w+ cannot be had from https://\S+ \(.*\); fetch that file elsewhere", ran.error)
    assert "--weights FILE, or take --model pixels" in ran.error
    assert time.monotonic() - started < 30
    assert not (folder / "o.csv").exists()


def test_other_parameters_on_the_way_are_shown(folder):
    assert label(folder).code == 0
    before = (folder / "out.csv").read_bytes()
    ran = label(folder, "--dim", "5")
    assert ran.code == 3
    assert ran.error == (
        f"error: stage reduce.background in {folder}/out.csv.store was finished with dim = 60 (now 5); "
        "give the same again, or --overwrite to start it anew"
    )
    ran = label(folder, "--image-size", "4", "--color", "rgb")
    assert ran.code == 3
    assert "color = gray (now rgb), " in ran.error
    assert "image_size = 16 (now 4)" in ran.error
    assert (folder / "out.csv").read_bytes() == before
    images, _ = digit_images(1)
    write_images(folder / "images", images, [b"new.png"])
    ran = label(folder)
    assert ran.code == 3
    assert "stage list.background" in ran.error
    assert "other fingerprint" in ran.error
    assert (folder / "out.csv").read_bytes() == before


def test_data_sets_that_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--store", "s", "--model", "pixels"]
    ran = run("extract", "digits", "--split", "dev", *words)
    assert (ran.code, ran.error) == (3, "error: digits have no split 'dev'; use train or test, or leave it out for all")
    ran = run("extract", "fashion-minst", *words)
    assert ran.code == 3
    assert re.match(
        r"error: 'fashion-minst' is neither a folder nor a known data set; did you mean .*FashionMNIST.*\?", ran.error
    )
    ran = run("extract", "cifar11", *words)
    assert re.match(r"error: 'cifar11' is neither .*did you mean .*CIFAR10.*\?", ran.error)
    ran = run("extract", "zzzzzz", *words)
    assert ran.code == 3
    assert ran.error.endswith("known data set; give a folder, digits, fashion-mnist or a data set of torchvision")
    for path in ("photos.zip", "./photos", "few.store"):
        ran = run("extract", path, "--split", "test", *words)
        assert (ran.code, ran.error) == (3, f"error: there is no file or folder {path}; check the path")
    ran = run("extract", "digits", "--root", "x", *words)
    assert ran.code == 3
    assert "--root and --split are for downloaded data sets" in ran.error
    ran = run("demo", "--dataset", "digitz")
    assert ran.code == 3
    assert "did you mean digits" in ran.error
    assert list(tmp_path.iterdir()) == []


def test_stages_out_of_turn(tmp_path, folder):
    store = tmp_path / "s"
    done("extract", folder / "images", "--store", store, "--model", "pixels")
    for words, told in (
        (["neighbors"], "has no array 'background/vectors'"),
        (["graph"], "has no "),
        (["diffuse", "--labels", folder / "few.csv"], "holds no graph; run `ooc-diffusion graph`"),
        (["classify"], "has no stage 'diffuse'; run it first"),
        (["evaluate"], "holds no graph; run `ooc-diffusion graph`"),
    ):
        ran = run(words[0], "--store", store, *words[1:])
        assert ran.code == 3
        assert told in ran.error, ran.error
    ran = run("evaluate", "--store", store, "--n-per-class", "1,two")
    assert (ran.code, ran.error) == (2, "error: --n-per-class '1,two' is no list of numbers such as 1,2,5")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["import", "VECTORS", "--dim", "8"], "--dim is for raw files"),
        (["import", "VECTORS", "--names-field", "path"], "--names-field 'path': a file of format npy has none"),
        (["import", "VECTORS", "--truth", "t.npy", "--truth-field", "c"], "give either --truth or --truth-field, not both"),
        (
            ["neighbors", "--probes", "3", "--target-recall", "0.9"],
            "leave out --probes and --target-recall, or",
        ),
        (["neighbors", "--table-width", "3"], "--table-width is that of a table; give --table as well"),
        (["extract", "digits", "--model", "resnet18", "--image-size", "8"], "--image-size and --color are for --model pixels"),
    ],
)
def test_errors_name_options_not_parameters_of_python(vectors, tmp_path, words, told):
    np.save(tmp_path / "v.npy", np.zeros((3, 8), np.float32))
    store = vectors if words[0] == "neighbors" else tmp_path / "s"
    ran = run(*(tmp_path / "v.npy" if word == "VECTORS" else word for word in words), "--store", store)
    assert ran.code == 3
    assert told in ran.error
    assert "`" not in ran.error


def test_every_command_that_needs_a_store_says_so(tmp_path):
    (tmp_path / "l.csv").write_text("path,label\na,b\n")
    for words in (["reduce"], ["neighbors"], ["graph"], ["diffuse", "--labels", tmp_path / "l.csv"], ["classify"], ["evaluate"]):
        ran = run(words[0], "--store", tmp_path / "none", *words[1:])
        assert ran.code == 3
        assert f"{tmp_path}/none holds no store; run `ooc-diffusion extract` or `import` first" in ran.error
    for name in ("status", "verify", "clean"):
        assert run(name, "--store", tmp_path / "none").code == 3
    assert not (tmp_path / "none").exists()


def test_the_command_itself_ends_with_the_code(tmp_path):
    words = [*COMMAND, "import", tmp_path / "x.npy", "--store", tmp_path / "s"]
    ran = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "", f"error: {tmp_path}/x.npy does not exist; check the path\n")
