"""The files that go with the paper, small: descriptors in HDF5 and raw, faiss's transform, neighbor tables without a header."""

import faiss
import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.stages.classify import classify
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.features.test_descriptor_files import write_hdf5
from tests.stages.chain import published_bytes, write_labels
from tests.stages.test_same_bytes import interrupted

N, D, DIM, WIDTH = 600, 24, 8, 32


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A background reduced already, seeds and tests that are not, the transform, and the table of the background."""
    folder = tmp_path_factory.mktemp("published")
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(9, D)) * 2
    images = (centers[rng.integers(0, 9, N + 90)] + rng.normal(size=(N + 90, D)) + 1).astype(np.float32)
    pca = faiss.PCAMatrix(D, DIM, 0, True)
    pca.train(images)
    faiss.write_VectorTransform(pca, str(folder / "PCAR256.vt"))
    background = pca.apply(images[:N])
    background.tofile(folder / "concatenated_PCAR256.raw")
    for name, rows in (("train", images[N : N + 50]), ("val", images[N + 50 :])):
        write_hdf5(folder / f"{name}.hdf5", values=rows, classes=rng.integers(0, 9, len(rows)), count=len(rows), capacity=64)
    unit = background / np.linalg.norm(background, axis=1, keepdims=True)
    index = faiss.IndexFlatIP(DIM)
    index.add(unit)
    similarities, ids = index.search(unit, WIDTH)
    ids.astype(np.int32).tofile(folder / "ndis600_k32_I_11.int32")
    similarities.tofile(folder / "ndis600_k32_D_11.float32")
    return folder, images, pca, ids, similarities


def imported(files, store, *roles):
    folder = files[0]
    import_descriptors(folder / "concatenated_PCAR256.raw", dim=DIM, store=store)
    for role, name in (("seeds", "train"), ("tests", "val")):
        if role in roles:
            import_descriptors(folder / f"{name}.hdf5", role=role, store=store)
    return store


def test_from_published_files_to_a_graph(files, tmp_path):
    folder, images, pca, ids, similarities = files
    store = imported(files, tmp_path / "s", "seeds", "tests")
    reduce(store, transform=folder / "PCAR256.vt")
    record = neighbors(store, k=30, table=folder / "ndis600_k32_I_11.int32", similarities=folder / "ndis600_k32_D_11.float32")[
        "background"
    ]
    assert record["recall"]["recall"] > 0.99
    graph(store)
    found = Store(store)
    for role, rows in (("background", slice(0, N)), ("seeds", slice(N, N + 50)), ("tests", slice(N + 50, None))):
        expected = pca.apply(images[rows]).astype(np.float64)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(found.array(f"{role}/vectors"), expected, atol=2e-6)
    np.testing.assert_array_equal(found.array("background/neighbor_ids"), ids)
    np.testing.assert_array_equal(found.array("background/similarities"), similarities)
    A = faiss.vector_to_array(pca.A).reshape(DIM, D)
    np.testing.assert_array_equal(found.array("pca/components"), A)
    np.testing.assert_array_equal(found.array("pca/bias"), faiss.vector_to_array(pca.b))


def test_logistic_regression_takes_the_descriptors_of_seeds_and_tests(files, tmp_path):
    """As in the paper: whole descriptors for logistic regression, reduced ones for the graph; the background has no others."""
    store = imported(files, tmp_path / "s", "seeds", "tests")
    reduce(store, transform=files[0] / "PCAR256.vt")
    neighbors(store, k=10)
    graph(store)
    labels = write_labels(store, range(50), Store(store).array("seeds/truth"))
    diffuse(store, labels=labels, n_iter=2)
    classify(store, method="logistic")
    assert Store(store).array("predictions/labels").shape == (40,)
    classify(store, method="fusion", coefficient=0.5, settings=Settings(overwrite=True))
    diffuse(store, labels=labels, n_iter=2, rows="nodes", settings=Settings(overwrite=True))
    with pytest.raises(BadInput, match=r"background have descriptors of 8 values, the seeds of 24, .* --method diffusion or knn"):
        classify(store, method="logistic", settings=Settings(overwrite=True))
    classify(store, method="diffusion", settings=Settings(overwrite=True))


def test_all_roles_transformed_alike(files, tmp_path):
    folder, images, pca, *_ = files
    np.save(tmp_path / "x.npy", images)
    import_descriptors(tmp_path / "x.npy", store=tmp_path / "s")
    record = reduce(tmp_path / "s", transform=folder / "PCAR256.vt")["background"]
    assert record["dim"] == DIM
    expected = pca.apply(images).astype(np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(Store(tmp_path / "s").array("background/vectors"), expected, atol=2e-6)
    with pytest.raises(BadInput, match=r"was finished with .*transform = .*--overwrite"):
        reduce(tmp_path / "s", dim=DIM)
    reduce(tmp_path / "s", dim=DIM, settings=Settings(overwrite=True))
    assert "pca/bias" not in Store(tmp_path / "s")


def test_a_transform_goes_on_where_it_was_stopped(files, tmp_path, monkeypatch):
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr("ooc_diffusion.stages.reduce.BLOCK_ROWS", 100)
    transform = files[0] / "PCAR256.vt"
    np.save(tmp_path / "x.npy", files[1])
    for name in ("s", "t"):
        import_descriptors(tmp_path / "x.npy", store=tmp_path / name)
    reduce(tmp_path / "s", transform=transform)
    interrupted(monkeypatch, lambda: reduce(tmp_path / "t", transform=transform), 7)
    assert reduce(tmp_path / "t", transform=transform)["background"]["resumed"]
    assert published_bytes(Store(tmp_path / "t")) == published_bytes(Store(tmp_path / "s"))


def test_a_transform_of_others(files, tmp_path):
    transform = files[0] / "PCAR256.vt"
    np.save(tmp_path / "x.npy", files[1][:, :20])
    import_descriptors(tmp_path / "x.npy", store=tmp_path / "s")
    with pytest.raises(BadInput, match="background have descriptors of 20 values, but .*PCAR256.vt takes 24 to 8"):
        reduce(tmp_path / "s", transform=transform)
    with pytest.raises(BadInput, match="`dim` is 9, but .*PCAR256.vt gives 8 values; leave `dim` out"):
        reduce(tmp_path / "s", dim=9, transform=transform)
    with pytest.raises(BadInput, match="cannot be read|does not exist"):
        reduce(tmp_path / "s", transform=tmp_path / "none.vt")


def test_the_number_in_a_name_is_the_width_and_not_the_type(files, tmp_path):
    _, _, _, ids, similarities = files
    store = imported(files, tmp_path / "s")
    reduce(store, dim=0)
    ids[:, :16].astype(np.int32).tofile(tmp_path / "I.int16")
    similarities[:, :16].tofile(tmp_path / "D.float16")
    neighbors(store, k=10, table=tmp_path / "I.int16", similarities=tmp_path / "D.float16")
    np.testing.assert_array_equal(Store(store).array("background/neighbor_ids"), ids[:, :12])
    ids[:, :16].astype(np.int32).tofile(tmp_path / "I.bin")
    again = Settings(overwrite=True)
    neighbors(store, k=10, table=tmp_path / "I.bin", table_width=16, settings=again)
    np.testing.assert_array_equal(np.sort(Store(store).array("background/neighbor_ids")), np.sort(ids[:, :12]))


BAD = {
    "int64": (
        np.int64,
        32,
        {},
        r"I.int32 has 153600 bytes, which are 1200 rows of 32 int32, but there are 600 .*; `table_width` 64",
    ),
    "a row too few": (np.int32, 32, {"rows": 599}, r"76672 bytes, which are 599 rows of 32 int32, but there are 600 background"),
    "cut": (
        np.int32,
        32,
        {"cut": 4},
        r"76796 bytes, which are 599 rows of 32 int32 \(32 x 4 = 128 bytes\) and 124 more; .*`table_width`",
    ),
    "another width": (np.int32, 16, {}, r"38400 bytes, which are 300 rows of 32 int32, .*`table_width` 16 would fit"),
}


@pytest.mark.parametrize(("dtype", "width", "change", "message"), BAD.values(), ids=BAD)
def test_tables_of_another_size(files, tmp_path, dtype, width, change, message):
    store = imported(files, tmp_path / "s")
    reduce(store, dim=0)
    data = files[3][: change.get("rows"), :width].astype(dtype).tobytes()
    (tmp_path / "I.int32").write_bytes(data[: len(data) - change.get("cut", 0)])
    with pytest.raises(BadInput, match=message) as error:
        neighbors(store, k=10, table=tmp_path / "I.int32")
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="`table_width` is that of a table"):
        neighbors(store, k=10, table_width=32)


def test_rows_of_a_raw_table_are_checked(files, tmp_path):
    store = imported(files, tmp_path / "s")
    reduce(store, dim=0)
    ids = files[3].astype(np.int32)
    ids[77, 5] = 600
    ids.tofile(tmp_path / "I.int32")
    with pytest.raises(BadInput, match="I.int32 row 77 names 600 in column 5; ids are the rows 0 to 599"):
        neighbors(store, k=10, table=tmp_path / "I.int32")
