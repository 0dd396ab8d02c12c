"""Importing from files of any format gives what importing the same numbers from an .npy gives."""

import shutil

import h5py
import numpy as np
import pytest

from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store, Strings
from tests.features.test_descriptor_files import CLASSES, N, X, write_hdf5, write_parquet, write_vecs
from tests.stages.chain import published_bytes
from tests.stages.test_same_bytes import interrupted

NAMES = [f"{row:04d}.jpg" for row in range(N)]


def npy(folder):
    np.save(folder / "whole.npy", X)
    np.save(folder / "truth.npy", CLASSES)
    (folder / "all.txt").write_text("\n".join(NAMES))
    return {"file": folder / "whole.npy", "truth": folder / "truth.npy", "names": folder / "all.txt"}


def hdf5(folder):
    write_hdf5(folder / "x.hdf5", chunks=(8, 6))
    return {"file": folder / "x.hdf5"}


def raw(folder):
    X.tofile(folder / "x.raw")
    np.save(folder / "truth.npy", CLASSES)
    return {"file": folder / "x.raw", "dim": X.shape[1], "truth": folder / "truth.npy"}


def fvecs(folder):
    write_vecs(folder / "x.fvecs", X, np.float32)
    return {"file": folder / "x.fvecs"}


def parquet(folder):
    write_parquet(folder / "x.parquet", row_group_size=11)
    return {"file": folder / "x.parquet", "truth_field": "label", "names_field": "path"}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr("ooc_diffusion.stages.import_descriptors.BLOCK_ROWS", 9)
    monkeypatch.setattr("ooc_diffusion.stages.import_descriptors._NAMES", 10)


@pytest.mark.parametrize("size", [None, 29])
@pytest.mark.parametrize("write", [npy, hdf5, raw, fvecs, parquet])
def test_any_format_is_imported_like_npy(tmp_path, monkeypatch, write, size):
    """And its first rows like an .npy that has no more, though names and classes are those of all."""
    given = {**write(tmp_path), **({} if size is None else {"size": size})}
    np.save(tmp_path / "x.npy", X[:size])
    np.save(tmp_path / "c.npy", CLASSES[:size])
    (tmp_path / "names.txt").write_text("\n".join(NAMES[:size]) + "\n")
    others = {} if write is fvecs else {"truth": tmp_path / "c.npy"}
    others |= {"names": tmp_path / "names.txt"} if write in (npy, parquet) else {}
    import_descriptors(tmp_path / "x.npy", store=tmp_path / "plain", **others)
    expected = published_bytes(Store(tmp_path / "plain"))
    appends = interrupted(monkeypatch, lambda: import_descriptors(**given, store=tmp_path / "s"), -1)
    assert published_bytes(Store(tmp_path / "s")) == expected
    assert import_descriptors(**given, store=tmp_path / "s")["skipped"]
    for at in range(2, appends - 1):
        interrupted(monkeypatch, lambda at=at: import_descriptors(**given, store=tmp_path / f"{at}"), at)
        import_descriptors(**given, store=tmp_path / f"{at}")
        assert published_bytes(Store(tmp_path / f"{at}")) == expected, at


def test_what_is_read_of_a_file_is_a_parameter(tmp_path):
    X.tofile(tmp_path / "x.raw")
    import_descriptors(tmp_path / "x.raw", dim=6, store=tmp_path / "s")
    with pytest.raises(BadInput, match=r"was finished with dim = 6 \(now 3\)"):
        import_descriptors(tmp_path / "x.raw", dim=3, store=tmp_path / "s")
    import_descriptors(tmp_path / "x.raw", dim=3, store=tmp_path / "s", settings=Settings(overwrite=True))
    assert Store(tmp_path / "s").array("background/descriptors").shape == (2 * N, 3)


def test_another_number_of_rows_is_another_import(tmp_path):
    given = {**raw(tmp_path), "store": tmp_path / "s"}
    import_descriptors(**given, size=40)
    assert import_descriptors(**given, size=40)["skipped"]
    for size, message in ((50, r"was finished with size = 40 \(now 50\)"), (None, r"was finished with size = 40")):
        with pytest.raises(BadInput, match=message):
            import_descriptors(**given, size=size)
    import_descriptors(**given, settings=Settings(overwrite=True))
    assert Store(tmp_path / "s").array("background/descriptors").shape == X.shape
    assert "size" not in Store(tmp_path / "s").parameters("import.background")


@pytest.mark.parametrize("write", [npy, hdf5, raw, fvecs, parquet])
def test_more_rows_than_there_are(tmp_path, write):
    given = write(tmp_path)
    for size in (0, N + 1):
        message = rf"`size` is {size}, but {given['file']} has {N} rows; give from 1 to {N}"
        with pytest.raises(BadInput, match=message):
            import_descriptors(**given, size=size, store=tmp_path / "s")
    assert not (tmp_path / "s").exists()
    import_descriptors(**given, size=N, store=tmp_path / "s")
    np.testing.assert_array_equal(Store(tmp_path / "s").array("background/descriptors"), X)


def test_names_and_classes_are_those_of_the_first_rows_or_of_all(tmp_path):
    X.tofile(tmp_path / "x.raw")
    given = {"file": tmp_path / "x.raw", "dim": X.shape[1], "size": 40, "settings": Settings(overwrite=True)}
    for n in (40, N, 39, 41, N + 1):
        (tmp_path / "names.txt").write_text("\n".join(f"{row:04d}.jpg" for row in range(n)))
        np.save(tmp_path / "c.npy", np.arange(n))
        for more, message in (
            ({"names": tmp_path / "names.txt"}, f"names.txt has {n} names for 40 descriptors, of {N} in the file; give one name"),
            ({"truth": tmp_path / "c.npy"}, rf"\({n},\); give the classes as integers of shape \(40,\), or \({N},\) for all"),
        ):
            if n not in (40, N):
                with pytest.raises(BadInput, match=message):
                    import_descriptors(**given, **more, store=tmp_path / "s")
                continue
            import_descriptors(**given, **more, store=tmp_path / "s")
            found = Store(tmp_path / "s")
            if "names" in more:
                assert list(Strings.open(found, "background/path")) == NAMES[:40]
            else:
                np.testing.assert_array_equal(found.array("background/truth"), np.arange(40))


def test_rows_behind_the_first_are_not_looked_at(tmp_path):
    """Each row behind is broken in the way of its format; the plan counts the first alone."""
    broken = X.copy()
    broken[40:] = np.nan
    write_hdf5(tmp_path / "x.h5", values=broken, chunks=(8, 6))
    with (tmp_path / "x.fvecs").open("wb") as file:
        for row in range(N):
            np.int32(X.shape[1] if row < 40 else 3).tofile(file)
            X[row].tofile(file)
    import pyarrow as pa
    from pyarrow import parquet as pq

    lists = [values.tolist() if row < 40 else None for row, values in enumerate(X)]
    words = [f"class {row % 3}" if row < 40 else f"other {row}" for row in range(N)]
    pq.write_table(pa.table({"x": pa.array(lists, pa.list_(pa.float32())), "word": words}), tmp_path / "x.parquet")
    for name, options in (("x.h5", {}), ("x.fvecs", {}), ("x.parquet", {"truth_field": "word"})):
        with pytest.raises(BadInput, match="row 40"):
            import_descriptors(tmp_path / name, **options, store=tmp_path / f"whole {name}")
        given = {"file": tmp_path / name, **options, "size": 40, "store": tmp_path / name[2:]}
        plan = import_descriptors(**given, settings=Settings(dry_run=True))["plan"]
        assert plan["disk_bytes"] == 4 * 40 * (X.shape[1] + 1)
        record = import_descriptors(**given)
        np.testing.assert_array_equal(Store(tmp_path / name[2:]).array("background/descriptors"), X[:40])
        assert record.get("class_names") == (["class 0", "class 1", "class 2"] if options else None)


@pytest.mark.parametrize("bad", [-5, 2**31])
def test_classes_of_no_class(tmp_path, bad):
    write_hdf5(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "r+") as f:
        labels = f["all_labels"][:].astype(np.int64)
        labels[30] = bad
        del f["all_labels"]
        f["all_labels"] = labels
    with pytest.raises(BadInput, match=rf"x.h5 row 30 is {bad}; classes are 0, 1, ..., and -1 for unknown"):
        import_descriptors(tmp_path / "x.h5", store=tmp_path / "s")
    assert list((tmp_path / "s" / "jobs").iterdir()) == []
    np.save(tmp_path / "c.npy", CLASSES)
    import_descriptors(tmp_path / "x.h5", truth=tmp_path / "c.npy", store=tmp_path / "s")
    np.testing.assert_array_equal(Store(tmp_path / "s").array("background/truth"), CLASSES)


@pytest.mark.parametrize("write", [hdf5, raw, fvecs, parquet])
def test_numbers_that_are_not_finite(tmp_path, monkeypatch, write):
    broken = X.copy()
    broken[40, 3] = np.nan
    monkeypatch.setitem(globals(), "X", broken)
    given = {} if write in (raw, fvecs) else {"values": broken}
    file = {hdf5: write_hdf5, parquet: write_parquet}.get(write)
    made = write(tmp_path)
    if file:
        file(made["file"], **given)
    with pytest.raises(BadInput, match=r"row 40 holds nan at column 3"):
        import_descriptors(**made, store=tmp_path / "s")


def test_names_out_of_order(tmp_path):
    write_parquet(tmp_path / "x.parquet")
    import pyarrow as pa
    from pyarrow import parquet as pq

    table = pq.read_table(tmp_path / "x.parquet")
    for name, told in (("0029.jpg", "is the name of the row before, too"), ("0007.jpg", "stands behind '0029.jpg', but sorts")):
        names = [*NAMES[:30], name, *NAMES[31:]]
        pq.write_table(table.set_column(0, "path", pa.array(names)), tmp_path / "x.parquet")
        with pytest.raises(BadInput, match=f"x.parquet row 30: '{name}' {told}"):
            import_descriptors(tmp_path / "x.parquet", names_field="path", store=tmp_path / "s")
    write_parquet(tmp_path / "x.parquet")  # mended: nothing of the runs before is in the way
    import_descriptors(tmp_path / "x.parquet", names_field="path", store=tmp_path / "s")
    assert Strings.open(Store(tmp_path / "s"), "background/path")[30] == NAMES[30]


def test_either_a_file_or_a_field(tmp_path):
    write_parquet(tmp_path / "x.parquet")
    with pytest.raises(BadInput, match="give either `truth` or `truth_field`, not both"):
        import_descriptors(tmp_path / "x.parquet", truth="c.npy", truth_field="label", store=tmp_path / "s")


def test_a_file_that_changed_is_not_gone_on_with(tmp_path, monkeypatch):
    given = hdf5(tmp_path)
    interrupted(monkeypatch, lambda: import_descriptors(**given, store=tmp_path / "s"), 9)
    write_hdf5(given["file"], values=X + 1)
    with pytest.raises(BadInput, match=r"was interrupted with file = .*--overwrite"):
        import_descriptors(**given, store=tmp_path / "s")


@pytest.mark.parametrize("kind", ["hdf5", "hdf5 in large chunks", "parquet", "parquet in one group", "wide parquet"])
def test_memory_stays_under_the_plan(tmp_path, monkeypatch, kind):
    monkeypatch.undo()
    wide = kind == "wide parquet"
    values = np.random.default_rng(0).normal(size=(9000 if wide else 150_000, 2048 if wide else 128)).astype(np.float32)
    if kind.startswith("hdf5"):
        chunks = {"chunks": (70_000, 128), "compression": "lzf"} if "large" in kind else {}
        write_hdf5(tmp_path / "x.h5", values=values, classes=0, count=len(values), capacity=len(values), **chunks)
        file = tmp_path / "x.h5"
    else:
        file = tmp_path / "x.parquet"
        rows = len(values)
        monkeypatch.setitem(write_parquet.__globals__, "CLASSES", np.zeros(rows, int))
        write_parquet(file, values=values, row_group_size=rows if "one" in kind else 20_000)
    del values
    plan = import_descriptors(file, store=tmp_path / "s", settings=Settings(dry_run=True))["plan"]
    with pytest.raises(DoesNotFit):
        import_descriptors(file, store=tmp_path / "s", settings=Settings(memory_budget=plan["least_bytes"] - 1))
    record = import_descriptors(file, store=tmp_path / "s", settings=Settings(memory_budget=plan["least_bytes"]))
    assert record["peak_memory_bytes"] <= plan["least_bytes"]
    shutil.rmtree(tmp_path / "s")


TEXTS = [None if c < 0 else "éclair" if c == 0 else f"class {c}" for c in CLASSES]


def hdf5_texts(file, dtype):
    with h5py.File(file, "w") as f:
        f["all_feats"] = X
        # bytes of a fixed length are what NumPy writes
        texts = [text or "" for text in TEXTS]
        f.create_dataset("word", data=[text.encode() for text in texts] if dtype == "S12" else texts, dtype=dtype)


def parquet_texts(file, kind):
    import pyarrow as pa
    from pyarrow import parquet as pq

    columns = {"feature": pa.array(X.tolist(), pa.list_(pa.float32())), "word": pa.array(TEXTS).cast(kind)}
    pq.write_table(pa.table(columns), file, row_group_size=11)


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary", "varying", "fixed"])
def test_classes_by_name(tmp_path, kind):
    import pyarrow as pa

    file = tmp_path / ("x.h5" if kind in ("varying", "fixed") else "x.parquet")
    if kind in ("varying", "fixed"):
        hdf5_texts(file, h5py.string_dtype() if kind == "varying" else "S12")
    else:
        parquet_texts(file, pa.dictionary(pa.int32(), pa.string()) if kind == "dictionary" else getattr(pa, kind)())
    record = import_descriptors(file, store=tmp_path / "s", truth_field="word")
    names = sorted({text for text in TEXTS if text})
    assert record["class_names"] == names
    assert names[-1] == "éclair"
    found = Store(tmp_path / "s").array("background/truth")
    assert [None if c < 0 else names[c] for c in found] == TEXTS


def test_names_of_images_are_no_classes(tmp_path, monkeypatch):
    monkeypatch.setattr("ooc_diffusion.features.class_texts._MOST_CLASSES", 50)
    write_parquet(tmp_path / "x.parquet")
    with pytest.raises(BadInput, match=r"x.parquet: path has more than 50 different names; give a column of classes"):
        import_descriptors(tmp_path / "x.parquet", store=tmp_path / "s", truth_field="path")


def test_texts_that_are_not_utf8(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f["all_feats"], f["word"] = X, np.array([b"\xff"] * N)
    with pytest.raises(BadInput, match=r"x.h5: /word cannot be read from row 0 on"):
        import_descriptors(tmp_path / "x.h5", store=tmp_path / "s", truth_field="word")


def test_other_classes_of_two_roles_are_warned_of(tmp_path, caplog):
    import pyarrow as pa
    from pyarrow import parquet as pq

    def give(role, texts):
        columns = {"feature": pa.array(X[: len(texts)].tolist(), pa.list_(pa.float32())), "word": pa.array(texts)}
        pq.write_table(pa.table(columns), tmp_path / f"{role}.parquet")
        import_descriptors(tmp_path / f"{role}.parquet", store=tmp_path / "s", role=role, truth_field="word")

    give("background", ["a", "c", "d", "e", "f", "g"])
    give("seeds", ["g", "f", "e", "d", "c", "a"])
    assert caplog.messages == []
    give("tests", ["a", "b", "g"])
    about = "other classes (b in tests alone; c, d, e, 1 more in background alone)"
    assert [message for message in caplog.messages if "background" in message] == [
        f"tests and background have {about}, so that the same number is not the same class; give both the same classes"
    ]
