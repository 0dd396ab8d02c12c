"""Files of others through the commands: those that go with the paper, and archives of images."""

import csv
import json

import numpy as np
import pytest

from ooc_diffusion.store import Store
from tests.cli.helpers import done, run
from tests.images.test_archives import picture, write_zip
from tests.stages.test_published_files import DIM, N, files  # noqa: F401 - a fixture


def test_the_published_files(files, tmp_path):  # noqa: F811
    folder, store = files[0], tmp_path / "s"
    raw = ["import", folder / "concatenated_PCAR256.raw", "--store", store]
    assert f"{N} descriptors of {DIM} values" in done(*raw, "--dim", DIM, "--dry-run")
    ran = run(*raw, "--dim", 7)
    assert (ran.code, ran.error) == (
        3,
        f"error: {raw[1]} has {4 * N * DIM} bytes, which are {4 * N * DIM // 28} rows of 7 float32 (7 x 4 = 28 bytes) and "
        f"{4 * N * DIM % 28} more; give a whole file, or another --dim",
    )
    record = json.loads(done(*raw, "--dim", DIM, "--json"))
    assert (record["images"], record["dim"]) == (N, DIM)
    done("import", folder / "train.hdf5", "--store", store, "--role", "seeds")
    done("import", folder / "val.hdf5", "--store", store, "--role", "tests")
    assert run("reduce", "--store", store).code == 3
    ran = run("reduce", "--store", store, "--transform", folder / "PCAR256.vt", "--dim", 256)
    assert (ran.code, "gives 8 values; leave --dim out" in ran.error) == (3, True)
    done("reduce", "--store", store, "--transform", folder / "PCAR256.vt")
    table = ["--table", folder / "ndis600_k32_I_11.int32", "--similarities", folder / "ndis600_k32_D_11.float32"]
    ran = run("neighbors", "--store", store, *table, "--table-width", 16)
    assert (ran.code, "--table-width 32 would fit" in ran.error) == (3, True)
    done("neighbors", "--store", store, *table)
    done("graph", "--store", store)
    assert Store(store).array("graph/order").shape == (N + 50,)


def test_labels_for_the_images_of_a_zip(tmp_path):
    images = {f"{'ab'[i % 2]}/{i:02d}.png": picture(i % 2 + 10 * (i % 5)) for i in range(30)}
    for name, content in images.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(content)
    write_zip(tmp_path / "tree.zip", images)
    (tmp_path / "few.csv").write_text("path,label\na/00.png,one\nb/01.png,two\n")
    rows = []
    for name in ("tree", "tree.zip"):
        out = tmp_path / f"{name}.csv"
        done("label", tmp_path / name, "--labels", tmp_path / "few.csv", "--output", out, "--model", "pixels", "--k", 5)
        with out.open() as file:
            rows.append(list(csv.reader(file)))
        assert "data:image" in (tmp_path / f"{name}.html").read_text()
    assert rows[0] == rows[1]
    assert len(rows[0]) == 31


@pytest.mark.parametrize("name", ["photos.tgz", "photos.rar"])
def test_archives_that_are_not_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b" + bytes(600))
    ran = run("extract", tmp_path / name, "--store", tmp_path / "s", "--model", "pixels")
    assert ran.code == 3
    assert ran.error.startswith(f"error: {tmp_path / name} is packed as a whole by gzip")


def test_yfcc(tmp_path):
    (tmp_path / "y" / "00").mkdir(parents=True)
    write_zip(tmp_path / "y" / "00" / "000.zip", {"002.jpg": picture(2, form="JPEG")})
    command = ["extract", tmp_path / "y", "--layout", "yfcc", "--store", tmp_path / "s", "--model", "pixels"]
    assert len(run(*command, "--max-failures", 1, "--dry-run").out) > 0
    record = json.loads(done(*command, "--number", 5, "--max-failures", 1, "--json"))
    assert (record["images"], record["unreadable"]) == (5, 4)
    assert np.load(next((tmp_path / "s" / "data").glob("background.failed_rows*"))).tolist() == [0, 1, 3, 4]
