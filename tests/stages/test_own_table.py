"""A neighbor table that is there already: what it may hold, and that it goes the way of one that was searched."""

import os
import shutil

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.neighbors import best_first, distinct
from ooc_diffusion.stages import own_table
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from tests.stages.chain import import_roles, published_bytes, write_labels
from tests.stages.test_same_bytes import interrupted, mixture

K = 7


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "store"
    import_roles(folder, mixture())
    reduce(folder, dim=16)
    return folder


@pytest.fixture
def folder(reduced, tmp_path):
    return shutil.copytree(reduced, tmp_path / "store")


@pytest.fixture(scope="module")
def searched(reduced, tmp_path_factory):
    """A store whose table was searched exactly, and its table as files."""
    folder = shutil.copytree(reduced, tmp_path_factory.mktemp("searched") / "store")
    neighbors(folder, k=K)
    store = Store(folder)
    for name, array in (("ids", "background/neighbor_ids"), ("similarities", "background/similarities")):
        np.save(folder.parent / f"{name}.npy", store.array(array))
    return folder


def files(searched, given):
    options = {"table": searched.parent / "ids.npy"}
    return options | ({"similarities": searched.parent / "similarities.npy"} if given else {})


@pytest.mark.parametrize("given", [True, False], ids=["similarities", "ids alone"])
def test_the_same_table_gives_the_same_graph(searched, folder, given):
    records = neighbors(folder, k=K, **files(searched, given))
    assert records["background"]["recall"]["recall"] == 1
    assert records["background"]["short"] == 0
    twin = shutil.copytree(searched, folder.with_name("searched"))
    for one in (folder, twin):
        graph(one)
        diffuse(one, labels=write_labels(one, range(20), [row % 5 for row in range(20)]), n_iter=2)
    ours, theirs = published_bytes(Store(folder)), published_bytes(Store(twin))
    assert ours.keys() == theirs.keys()
    differ = {name for name in theirs if ours[name] != theirs[name]}
    # other sums than those of a matrix product, by which those that are equally near may change places
    rounded = (
        [] if given else [f"{stage}/{name}" for stage in ("background", "graph") for name in ("similarities", "neighbor_ids")]
    )
    assert differ <= set(rounded)
    for name in rounded:
        mine, other = (np.sort(Store(one).array(name), axis=1) for one in (folder, twin))
        np.testing.assert_allclose(mine, other, atol=1e-6)


def test_seeds_are_searched_by_lists_on_disk(searched, folder):
    neighbors(folder, k=K, index="list-major", probes=9, **files(searched, True))
    twin = shutil.copytree(folder, folder.with_name("twin"))
    store, expected = Store(folder), Store(twin)
    neighbors(twin, k=K, index="list-major", probes=9, settings=Settings(overwrite=True))
    searched_table = expected.array("background/neighbor_ids")
    ours, theirs = published_bytes(store), published_bytes(expected)
    assert ours["background/neighbor_ids"] == Store(searched).array("background/neighbor_ids").tobytes()
    assert (searched_table != Store(searched).array("background/neighbor_ids")).any()
    own = {"background/neighbor_ids", "background/similarities"}
    assert [name for name in theirs if name not in own and ours[name] != theirs[name]] == []
    graph(folder)


def awkward():
    """Rows with repetitions, without themselves, with few or no ids, and as ids of another library (int64)."""
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 4200, (4200, K + 5))
    ids[::3, 4] = ids[::3, 1]
    ids[::5, 7:] = ids[::5, :5]
    ids[1] = 17
    ids[2, 1:] = -1
    ids[5] = -1
    return ids


def naive_row(x, ids, vectors, similarities=None):
    """Ids of a row, best first, each once."""
    ids = [i for i in ids if i >= 0]
    if similarities is None:
        products = {i: float(vectors[i].astype(np.float64) @ x.astype(np.float64)) for i in ids}
        ids = sorted(ids, key=lambda i: -products[i])
    return list(dict.fromkeys(ids))


@pytest.mark.parametrize("entries", [2**19, 1000])
def test_awkward_rows(folder, tmp_path, monkeypatch, entries):
    monkeypatch.setattr(own_table, "_ENTRIES", entries)
    ids = awkward()
    np.save(tmp_path / "ids.npy", ids)
    record = neighbors(folder, k=K, table=tmp_path / "ids.npy")["background"]
    store = Store(folder)
    vectors, found, values = store.arrays("background/vectors", "background/neighbor_ids", "background/similarities")
    assert found.shape == (4200, K + 2)
    for row in range(300):
        expected = naive_row(vectors[row], ids[row].tolist(), vectors)[: K + 2]
        assert found[row].tolist() == expected + [-1] * (K + 2 - len(expected)), row
    assert (values[found < 0] == np.float32(-1e30)).all()
    np.testing.assert_allclose(np.einsum("qd,qkd->qk", vectors, vectors[found])[found >= 0], values[found >= 0], atol=1e-6)
    assert record["short"] == pytest.approx(np.mean([len(set(row[row >= 0])) < K for row in ids]), abs=1e-9)
    assert record["recall"]["recall"] < 0.1
    graph(folder)


def test_repetitions_are_left_out():
    ids = np.array([[3, 3, 2, 3, 1], [5, 4, 3, 2, 1], [7, -1, -1, -1, -1], [6, 6, 6, -1, -1]], np.int32)
    values = np.linspace(1, 0, 20, dtype=np.float32).reshape(4, 5)
    before = ids.copy()
    found, kept = distinct(ids, values)
    assert found.tolist() == [[3, 2, 1, -1, -1], [5, 4, 3, 2, 1], [7, -1, -1, -1, -1], [6, -1, -1, -1, -1]]
    assert kept[0].tolist() == [*values[0, [0, 2, 4]], np.float32(-1e30), np.float32(-1e30)]
    np.testing.assert_array_equal(ids, before)


def test_equal_products_keep_their_order():
    vectors = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    ids, products = best_first(vectors[:1], np.array([[1, 3, -1, 0, 2]], np.int32), vectors)
    assert ids.tolist() == [[3, 0, 2, 1, -1]]
    assert products[0, :4].tolist() == [1, 1, 1, 0]


BAD = {
    "too large": ("ids", 2, 4200, r"ids.npy row 4100 names 4200 in column 2; ids are the rows 0 to 4199"),
    "negative": ("ids", 2, -2, r"ids.npy row 4100 names -2 in column 2"),
    "gap": ("ids", 2, -1, r"ids.npy row 4100 names an id behind the -1 in column 2"),
    "rising": ("values", 3, 0.9999, r"values.npy row 4100 rises from 0.\d+ to 0.9999 in column 3; similarities"),
    "nan": ("values", 0, np.nan, r"values.npy row 4100 is nan in column 0; similarities are finite"),
    "infinite": ("values", 8, -np.inf, r"values.npy row 4100 is -inf in column 8"),
}


@pytest.mark.parametrize(("which", "place", "value", "message"), BAD.values(), ids=BAD)
def test_bad_rows(searched, folder, tmp_path, which, place, value, message):
    ids, values = (np.load(searched.parent / f"{name}.npy") for name in ("ids", "similarities"))
    {"ids": ids, "values": values}[which][4100, place] = value
    np.save(tmp_path / "ids.npy", ids)
    np.save(tmp_path / "values.npy", values)
    with pytest.raises(BadInput, match=message) as error:
        neighbors(folder, k=K, table=tmp_path / "ids.npy", similarities=tmp_path / "values.npy")
    assert "\n" not in str(error.value)
    assert "background/neighbor_ids" not in Store(folder)


SHAPES = {
    "floats": (lambda ids: ids.astype(np.float32), r"holds float32 \(4200, 9\); a neighbor table is integers"),
    "rows": (lambda ids: ids[:-1], r"has 4199 rows, but there are 4200 background images"),
    "one dimension": (lambda ids: ids.ravel(), r"holds int32 \(37800,\)"),
    "narrow": (lambda ids: ids[:, :6], r"has 6 neighbors in a row, fewer than `k` = 7; give a wider table, or less"),
}


@pytest.mark.parametrize(("change", "message"), SHAPES.values(), ids=SHAPES)
def test_bad_shapes(searched, folder, tmp_path, change, message):
    np.save(tmp_path / "ids.npy", change(np.load(searched.parent / "ids.npy")))
    with pytest.raises(BadInput, match=message):
        neighbors(folder, k=K, table=tmp_path / "ids.npy")


def test_bad_files(searched, folder, tmp_path):
    table, similarities = files(searched, True).values()
    with pytest.raises(BadInput, match="give `table` as well"):
        neighbors(folder, k=K, similarities=similarities)
    with pytest.raises(BadInput, match=r"give floats of shape \(4200, 9\), as the table"):
        neighbors(folder, k=K, table=table, similarities=table)
    np.save(tmp_path / "distances.npy", -np.sqrt(2.0 - 2.0 * np.minimum(np.load(similarities), 1)))
    with pytest.raises(BadInput, match=r"distances.npy differs from the inner products of the vectors in the store by \d"):
        neighbors(folder, k=K, table=table, similarities=tmp_path / "distances.npy")
    with pytest.raises(BadInput, match="does not exist|cannot be read"):
        neighbors(folder, k=K, table=tmp_path / "none.npy")


def test_a_narrow_table_and_a_recall_too_low(searched, folder, tmp_path):
    ids = np.load(searched.parent / "ids.npy")[:, :K]
    ids[:, 4:] = ids[:, :3]
    np.save(tmp_path / "ids.npy", ids)
    with pytest.raises(
        BadInput,
        match=r"recall is 0\.57\d+ ± 0.0000, below the 0\.9 that was asked for; give another table or index, with --overwrite",
    ):
        neighbors(folder, k=K, table=tmp_path / "ids.npy", min_recall=0.9)
    with pytest.raises(BadInput, match=r"was interrupted with .*--overwrite"):
        neighbors(folder, k=K, table=searched.parent / "ids.npy", min_recall=0.9)
    other = shutil.copytree(folder, tmp_path / "other")
    better = {"table": searched.parent / "ids.npy", "min_recall": 0.9, "settings": Settings(overwrite=True)}
    assert neighbors(other, k=K, **better)["background"]["recall"]["recall"] == 1
    record = neighbors(folder, k=K, table=tmp_path / "ids.npy", min_recall=0.5)["background"]
    assert record["resumed"]
    assert record["short"] == 1
    assert Store(folder).array("background/neighbor_ids").shape == (4200, K)


def test_interrupted_and_changed(searched, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr(own_table, "_ENTRIES", 9000)
    table = shutil.copy(searched.parent / "ids.npy", tmp_path / "ids.npy")
    before = shutil.copytree(folder, tmp_path / "before")
    appends = interrupted(monkeypatch, lambda: neighbors(folder, k=K, table=table), -1)
    expected = published_bytes(Store(folder))
    for at in range(2, appends - 2, 3):
        again = shutil.copytree(before, tmp_path / f"at-{at}")
        interrupted(monkeypatch, lambda again=again: neighbors(again, k=K, table=table), at)
        assert any(record.get("resumed") for record in neighbors(again, k=K, table=table).values())
        assert published_bytes(Store(again)) == expected, at
    interrupted(monkeypatch, lambda: neighbors(before, k=K, table=table), 5)
    os.utime(table, ns=(0, 0))
    with pytest.raises(BadInput, match="was interrupted with table = .* give the same again, or --overwrite"):
        neighbors(before, k=K, table=table)
    with pytest.raises(BadInput, match="was interrupted with table = .* give the same again, or --overwrite"):
        neighbors(before, k=K)


def test_the_plan_counts_wide_rows(folder, tmp_path):
    np.save(tmp_path / "ids.npy", np.zeros((4200, 9000), np.int8))
    with pytest.raises(DoesNotFit, match="stage neighbors needs a memory budget of"):
        neighbors(folder, k=K, table=tmp_path / "ids.npy", settings=Settings(memory_budget="64MiB"))
    plan = neighbors(folder, k=K, table=tmp_path / "ids.npy", settings=Settings(dry_run=True))["background"]["plan"]
    assert plan["work"] == "a table of 4,200 x 9,000 neighbors"
    record = neighbors(folder, k=K, table=tmp_path / "ids.npy")["background"]
    assert record["short"] == 1
    assert record["peak_memory_bytes"] <= record["plan"]["memory_bytes"]


def test_a_file_that_changes_while_it_is_copied_is_refused(searched, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(own_table, "_ENTRIES", 9000)
    table = tmp_path / "ids.npy"
    shutil.copy(searched.parent / "ids.npy", table)
    check, blocks = own_table.check_ids, []

    def changing(ids, **options):
        if not blocks:
            np.save(table, np.roll(np.load(table), 5, axis=0))
        blocks.append(ids)
        return check(ids, **options)

    monkeypatch.setattr(own_table, "check_ids", changing)
    with pytest.raises(BadInput, match="ids.npy has changed while it was copied; run the command again"):
        neighbors(folder, k=K, table=table)
    assert len(blocks) > 1
    assert "background/neighbor_ids" not in Store(folder)
    monkeypatch.undo()
    neighbors(folder, k=K, table=table)


def test_a_table_of_other_vectors_gets_a_warning(searched, folder, tmp_path, caplog):
    ids = np.load(searched.parent / "ids.npy")
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).permutation(ids))
    with caplog.at_level("WARNING", logger="ooc_diffusion"):
        record = neighbors(folder, k=K, table=tmp_path / "ids.npy")["background"]
    assert record["recall"]["recall"] < 0.1
    assert "% of the true nearest neighbors are in the table" in caplog.text


def test_the_plan_reads_the_table_and_searches_nothing(searched, folder):
    settings = Settings(dry_run=True)
    plan = neighbors(folder, k=K, table=searched.parent / "ids.npy", settings=settings)["background"]["plan"]
    assert "searching" not in plan["reads"]
    assert plan["reads"]["table"] == np.load(searched.parent / "ids.npy").nbytes
    assert plan["operations"] == 0
