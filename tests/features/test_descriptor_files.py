"""Files of descriptors, each against the plain way of reading it."""

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ooc_diffusion.errors import BadInput
from ooc_diffusion.features import open_descriptors

N, D = 53, 6
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
CLASSES = np.random.default_rng(1).integers(-1, 9, N)


def write_hdf5(file, values=X, classes=CLASSES, count=N, capacity=70, **options):
    """Write features as the code of low-shot-shrink-hallucinate does: more room than rows, the rest left as it is."""
    with h5py.File(file, "w") as f:
        feats = f.create_dataset("all_feats", (capacity, *values.shape[1:]), dtype=values.dtype, **options)
        feats[: len(values)] = values
        feats[len(values) :] = np.nan
        labels = f.create_dataset("all_labels", (capacity,), dtype="i")
        labels[: len(values)] = classes
        labels[len(values) :] = -77
        f.create_dataset("count", (1,), dtype="i")[0] = count


def write_vecs(file, values, kind):
    with file.open("wb") as f:
        for row in values:
            np.int32(len(row)).tofile(f)
            row.astype(kind).tofile(f)


def lists(values, kind):
    """An arrow array of lists; ``kind`` is "fixed", "list" or "large"."""
    flat = pa.array(values.ravel())
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    offsets = np.arange(0, values.size + 1, values.shape[1])
    return (pa.ListArray if kind == "list" else pa.LargeListArray).from_arrays(
        pa.array(offsets, pa.int32() if kind == "list" else pa.int64()), flat
    )


def write_parquet(file, kind="list", values=X, **options):
    names = [f"{row:04d}.jpg" for row in range(len(values))]
    labels = pa.array([None if c < 0 else int(c) for c in CLASSES[: len(values)]], pa.int64())
    parquet.write_table(pa.table({"path": names, "feature": lists(values, kind), "label": labels}), file, **options)


def read(source, start=0, rows=7):
    return np.concatenate(list(source.blocks(start, rows)))


@pytest.mark.parametrize("start", [0, 1, 7, 20, 52])
@pytest.mark.parametrize("options", [{}, {"chunks": (5, 2)}, {"chunks": (40, 6), "compression": "gzip"}], ids=str)
def test_hdf5(tmp_path, start, options):
    write_hdf5(tmp_path / "train.hdf5", **options)
    source = open_descriptors(tmp_path / "train.hdf5")
    assert source.shape == (N, D)
    np.testing.assert_array_equal(read(source, start), X[start:])
    np.testing.assert_array_equal(np.concatenate(list(source.classes(10))), CLASSES)
    assert source.names(10) is None
    assert source.held_bytes(1000) >= X.nbytes + (2 * 40 * 6 * 4 if "compression" in options else 0)


def test_hdf5_with_dimensions_of_one_and_other_data_sets(tmp_path):
    write_hdf5(tmp_path / "a.h5", values=X.reshape(N, D, 1, 1).astype(np.float64))
    np.testing.assert_array_equal(read(open_descriptors(tmp_path / "a.h5")), X)
    with h5py.File(tmp_path / "b", "w") as f:
        f["group/train"] = X
    source = open_descriptors(tmp_path / "b", format="hdf5", field="group/train")
    np.testing.assert_array_equal(read(source), X)
    assert source.classes(10) is None


def changed(change):
    def write(folder):
        write_hdf5(folder / "x.h5")
        with h5py.File(folder / "x.h5", "r+") as f:
            change(f)

    return write


def replaced(name, values):
    def change(f):
        del f[name]
        f[name] = values

    return changed(change)


def linked(f):
    write_hdf5(f.filename + ".other")
    del f["all_feats"]
    f["all_feats"] = h5py.ExternalLink(f.filename + ".other", "all_feats")


def outside(f):
    del f["all_feats"]
    f.create_dataset("all_feats", (N, D), "f4", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


HDF5 = {
    "none": (lambda folder: (folder / "x.h5").write_bytes(b"hello" * 100), r"x.h5 cannot be read as an HDF5 file \(it is text\)"),
    "empty": (lambda folder: (folder / "x.h5").write_bytes(b""), r"x.h5 cannot be read as an HDF5 file \(it is empty\)"),
    "no features": (changed(lambda f: f.pop("all_feats")), "has no data set 'all_feats'; it has all_labels, count: name one"),
    "one dimension": (replaced("all_feats", np.ones(5)), r"/all_feats holds float64 \(5,\); descriptors are numbers of shape"),
    "three dimensions": (replaced("all_feats", np.ones((N, 2, 3))), r"holds float64 \(53, 2, 3\)"),
    "words": (replaced("all_feats", np.full((N, 2), b"a")), r"holds \|S1 \(53, 2\)"),
    "a count too large": (replaced("count", [71]), "has room for 70 rows, of which count says that 71 are valid"),
    "no rows": (replaced("count", 0), "of which count says that 0 are valid"),
    "two counts": (replaced("count", [3, 4]), r"count holds int64 \(2,\); it is the number of rows"),
    "few classes": (replaced("all_labels", np.ones(52, int)), r"all_labels holds int64 \(52,\); .* one for each of 53 rows"),
    "class names": (replaced("all_labels", np.ones(70)), r"all_labels holds float64 \(70,\); classes are integers"),
    "a link": (changed(linked), "x.h5: all_feats is kept in another file"),
    "external": (changed(outside), "x.h5: all_feats is kept in another file"),
}


@pytest.mark.parametrize(("write", "message"), HDF5.values(), ids=HDF5)
def test_bad_hdf5(tmp_path, write, message):
    write(tmp_path)
    with pytest.raises(BadInput, match=message) as error:
        open_descriptors(tmp_path / "x.h5")
    assert "\n" not in str(error.value)


def test_hdf5_with_a_broken_structure(tmp_path):
    write_hdf5(tmp_path / "x.h5")
    data = (tmp_path / "x.h5").read_bytes()
    for signature in (b"TREE", b"HEAP", b"SNOD"):
        (tmp_path / "x.h5").write_bytes(data.replace(signature, b"xxxx"))
        with pytest.raises(BadInput, match="x.h5 cannot be read as an HDF5 file|has no data set"):
            read(open_descriptors(tmp_path / "x.h5"))


def test_hdf5_that_is_cut_off(tmp_path):
    write_hdf5(tmp_path / "x.h5")
    data = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "x.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=r"x.h5 cannot be read as an HDF5 file \(it is cut off\); give a whole one"):
        open_descriptors(tmp_path / "x.h5")


def test_hdf5_that_is_damaged_inside(tmp_path):
    write_hdf5(tmp_path / "x.h5", values=np.tile(X, (1, 500)), chunks=(10, 3000), compression="gzip")
    with h5py.File(tmp_path / "x.h5") as f:
        place = f["all_feats"].id.get_chunk_info(2).byte_offset
    with (tmp_path / "x.h5").open("r+b") as f:
        f.seek(place)
        f.write(bytes(50))
    source = open_descriptors(tmp_path / "x.h5")
    np.testing.assert_array_equal(next(source.blocks(0, 20)), np.tile(X, (1, 500))[:20])
    with pytest.raises(BadInput, match=r"x.h5: /all_feats cannot be read from row 20 on"):
        read(source, rows=10)


@pytest.mark.parametrize("start", [0, 1, 52])
def test_raw_and_vectors(tmp_path, start):
    X.tofile(tmp_path / "concatenated_PCAR256.raw")
    source = open_descriptors(tmp_path / "concatenated_PCAR256.raw", dim=D)
    assert source.shape == (N, D)
    expected = np.fromfile(tmp_path / "concatenated_PCAR256.raw", np.float32).reshape(-1, D)[start:]
    np.testing.assert_array_equal(read(source, start), expected)
    write_vecs(tmp_path / "x.fvecs", X, np.float32)
    np.testing.assert_array_equal(read(open_descriptors(tmp_path / "x.fvecs"), start), X[start:])
    small = np.random.default_rng(2).integers(0, 256, (N, D))
    write_vecs(tmp_path / "x.bvecs", small, np.uint8)
    np.testing.assert_array_equal(read(open_descriptors(tmp_path / "x.bvecs"), start), small[start:])


@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
@pytest.mark.parametrize("row_group_size", [1000, 11, 7])
def test_parquet(tmp_path, kind, row_group_size):
    write_parquet(tmp_path / "x.parquet", kind, row_group_size=row_group_size)
    source = open_descriptors(tmp_path / "x.parquet", truth_field="label", names_field="path")
    assert source.shape == (N, D)
    for start in (0, 1, 6, 7, 11, 12, 40, 52):
        np.testing.assert_array_equal(read(source, start), X[start:])
        np.testing.assert_array_equal(read(source, start, rows=1000), X[start:])
    np.testing.assert_array_equal(np.concatenate(list(source.classes(10))), CLASSES)
    assert [name for batch in source.names(10) for name in batch] == [f"{row:04d}.jpg" for row in range(N)]
    bare = open_descriptors(tmp_path / "x.parquet")
    assert bare.classes(10) is None
    assert bare.names(10) is None


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_numbers_of_parquet(tmp_path, dtype):
    write_parquet(tmp_path / "x.pq", values=(10 * X).astype(dtype))
    np.testing.assert_array_equal(read(open_descriptors(tmp_path / "x.pq")), (10 * X).astype(dtype))


def column(values, kind=None):
    def write(folder):
        parquet.write_table(
            pa.table({"a": pa.array(values, kind or pa.list_(pa.float32()))}), folder / "x.parquet", row_group_size=2
        )

    return write


PARQUET = {
    "none": (lambda folder: (folder / "x.parquet").write_bytes(b"PAR1" * 10), {}, r"x.parquet cannot be read as parquet \(.*\)"),
    "text": (
        lambda folder: (folder / "x.parquet").write_bytes(b"a,b\n1,2\n"),
        {},
        r"read as parquet \(it is text\); give a whole",
    ),
    "nothing": (lambda folder: (folder / "x.parquet").write_bytes(b""), {}, r"read as parquet \(it is empty\)"),
    "cut": (
        lambda folder: (folder / "x.parquet").write_bytes(b"PAR1" + bytes(9)),
        {},
        r"\(it is cut off: a parquet file ends with",
    ),
    "no lists": (column([1.0], pa.float32()), {}, r"say with `field` which column it is; it has a \(float\)"),
    "no column": (column([[1.0]]), {"field": "b"}, "'b' is no column of lists of numbers; say with `field`"),
    "no rows": (column([]), {}, "x.parquet has no rows"),
    "empty": (column([[], [1.0]]), {}, "row 0: a is empty"),
    "missing": (column([[1.0], [2.0], [3.0], None]), {}, "x.parquet row 3: a is missing"),
    "longer": (column([[1.0], [2.0], [3.0, 1.0]]), {}, "x.parquet row 2: a has 2 values, the first has 1"),
    "a gap": (column([[1.0, 2.0], [2.0, 3.0], [3.0, 1.0], [2.0, None]]), {}, "x.parquet row 3: a has no number at 1"),
    "no classes": (
        column([[1.0]]),
        {"truth_field": "c"},
        "c is to be a column of integers or strings, but there is no such",
    ),
    "no names": (column([[1.0]]), {"names_field": "a"}, r"a is to be a column of strings, but there is list<.*>"),
}


@pytest.mark.parametrize(("write", "options", "message"), PARQUET.values(), ids=PARQUET)
def test_bad_parquet(tmp_path, write, options, message):
    write(tmp_path)
    with pytest.raises(BadInput, match=message) as error:
        read(open_descriptors(tmp_path / "x.parquet", **options))
    assert "\n" not in str(error.value)


def test_names_that_are_missing(tmp_path):
    parquet.write_table(pa.table({"x": lists(X[:3], "list"), "path": ["a", None, "b"]}), tmp_path / "x.parquet")
    with pytest.raises(BadInput, match=r"x.parquet row 1: path is missing"):
        list(open_descriptors(tmp_path / "x.parquet", names_field="path").names(10))


def vectors(*lengths):
    return b"".join(np.int32(d).tobytes() + bytes(4 * d) for d in lengths)


PLAIN = {
    "raw, no whole rows": (
        "x.raw",
        bytes(130),
        {"dim": 6},
        r"x.raw has 130 bytes, which are 5 rows of 6 float32 \(6 x 4 = 24 bytes\) and 10 more; .* `dim`",
    ),
    "raw, empty": ("x.raw", b"", {"dim": 6}, "x.raw is empty; give a file of rows of 6 float32"),
    "raw, no width": ("x.raw", bytes(24), {}, "x.raw is a raw file of float32, .*; give `dim`"),
    "width of others": ("x.fvecs", vectors(2), {"dim": 6}, "`dim` is for raw files, .*; leave it out with fvecs"),
    "column of raw": ("x.raw", bytes(24), {"field": "a"}, "`field` 'a': a file of format raw has none"),
    "names of hdf5": ("x.h5", b"", {"names_field": "a"}, "`names_field` 'a': a file of format hdf5 has none"),
    "format": ("x", b"", {"format": "csv"}, "format 'csv' is not one of npy, hdf5, raw, fvecs, bvecs, parquet"),
    "fvecs, cut": (
        "x.fvecs",
        vectors(2, 2)[:-1],
        {},
        r"x.fvecs has 23 bytes, which are 1 vectors of 2 values \(12 bytes each\) and 11 bytes more",
    ),
    "fvecs, empty": ("x.fvecs", b"", {}, "x.fvecs has 0 bytes, not even the length of a vector"),
    "fvecs, negative": ("x.fvecs", np.int32(-4).tobytes() * 5, {}, "does not begin with the length of a vector but with -4"),
    "fvecs, two lengths": (
        "x.fvecs",
        vectors(2, 2, 2)[:24] + vectors(1) + bytes(4),
        {},
        "x.fvecs row 2 says that it has 1 values, the first has 2",
    ),
}


@pytest.mark.parametrize(("name", "content", "options", "message"), PLAIN.values(), ids=PLAIN)
def test_bad_plain_files(tmp_path, name, content, options, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message) as error:
        read(open_descriptors(tmp_path / name, **options))
    assert "\n" not in str(error.value)


def test_a_folder_is_no_file(tmp_path):
    for name in ("x.h5", "x.raw", "x.npy", "x.parquet"):
        (tmp_path / name).mkdir()
        with pytest.raises(BadInput, match="is no file"):
            open_descriptors(tmp_path / name, **({"dim": 2} if name == "x.raw" else {}))


@pytest.mark.parametrize("start", [0, 7, 20, 28])
@pytest.mark.parametrize("format", ["npy", "hdf5", "raw", "fvecs", "bvecs", "parquet"])
def test_the_first_rows_of_any_format(tmp_path, format, start):
    values = np.random.default_rng(2).integers(0, 256, (N, D)).astype(np.uint8) if format == "bvecs" else X
    file, options = tmp_path / f"x.{format}", {"dim": D} if format == "raw" else {}
    write = {
        "npy": lambda: np.save(file, values),
        "hdf5": lambda: write_hdf5(file, chunks=(5, 6)),
        "raw": lambda: values.tofile(file),
        "parquet": lambda: write_parquet(file, row_group_size=11),
    }
    write.get(format, lambda: write_vecs(file, values, values.dtype))()
    source = open_descriptors(file, **options, size=29)
    assert (source.shape, source.whole, source.parameters["size"]) == ((29, D), N, 29)
    np.testing.assert_array_equal(read(source, start), values[start:29])
    assert "size" not in open_descriptors(file, **options).parameters
