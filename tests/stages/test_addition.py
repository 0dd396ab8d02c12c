"""More images in the background: its arrays grow, and its table is what a search of all of them finds."""

import re
import shutil

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput, CorruptStore, DoesNotFit
from ooc_diffusion.neighbors import list_major, permute
from ooc_diffusion.stages import addition, completion
from ooc_diffusion.stages.addition import add_images
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store, Strings, clean, status, verify
from tests.reference import naive_list_search, naive_merge, naive_neighbors
from tests.stages.chain import DIM, digits, import_roles, published_bytes, write_labels
from tests.stages.test_same_bytes import interrupted, mixture

K, PROBES, ADDED = 7, 9, 900
ANEW = Settings(overwrite=True)


def bring(folder, X, *, role="added", **files):
    """Import descriptors, and names and classes where given, and reduce them."""
    np.save(folder.parent / f"{role}.npy", X)
    paths = {name: folder.parent / f"{role}-{name}" for name in files}
    if "truth" in files:
        np.save(folder.parent / f"{role}-truth.npy", files["truth"])
        paths["truth"] = folder.parent / f"{role}-truth.npy"
    if "names" in files:
        paths["names"].write_text("".join(f"{name}\n" for name in files["names"]))
    import_descriptors(folder.parent / f"{role}.npy", store=folder, role=role, **paths)


def many(n=ADDED, seed=1):
    """More of the mixture."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).normal(size=(40, 24))
    return (centers[rng.integers(0, 40, n)] + 0.6 * rng.normal(size=(n, 24))).astype(np.float32)


def check_table(store, k, *, rows=slice(None), atol=2e-6):
    """Compare rows with exact search, where similarities are not equal but for rounding."""
    X, ids, found = store.arrays("background/vectors", "background/neighbor_ids", "background/similarities")
    expected, similarities = naive_neighbors(X, ids.shape[1], X[rows])
    np.testing.assert_allclose(found[rows], similarities, atol=atol)
    differ = ids[rows] != expected
    assert (np.abs(np.diff(similarities, axis=1)).min(axis=1)[differ.any(axis=1)] < atol).all()
    assert differ.mean() < 1e-3


@pytest.mark.parametrize(("n", "m", "k"), [(300, 60, 6), (40, 300, 39), (40, 1, 6), (300, 60, 299)])
def test_an_exact_table_is_that_of_all_images(tmp_path, n, m, k):
    sample = digits(n=n, q=m)
    folder = tmp_path / "store"
    bring(folder, sample.background, role="background")
    reduce(folder, dim=DIM)
    neighbors(folder, k=k, index="Flat")
    bring(folder, sample.tests)
    reduce(folder, dim=DIM)
    before = Store(folder).array("background/neighbor_ids")
    record = add_images(folder)
    store = Store(folder)
    assert store.array("background/neighbor_ids").shape == (n + m, min(k + 2, n + m))
    check_table(store, k)
    changed = (store.array("background/neighbor_ids")[:n, :k] != before[:, :k]).any(axis=1).sum()
    assert (record["images"], record["added"], record["changed"], record["short"]) == (n + m, m, changed, 0)
    assert changed > 0 if m > 1 else changed < n
    np.testing.assert_array_equal(store.array("background/descriptors"), np.concatenate([sample.background, sample.tests]))
    assert not [name for name in (*store.manifest.arrays, *store.manifest.stages) if "added" in name]


def test_the_whole_chain_is_that_of_all_images(tmp_path):
    sample = digits(n=250, q=80, m=70)
    folder = tmp_path / "store"
    import_roles(folder, sample, roles=["background", "tests"])
    bring(folder, sample.seeds, truth=sample.seeds_truth)
    reduce(folder, dim=DIM)
    neighbors(folder, k=6)
    graph(folder)
    labels = write_labels(folder, np.flatnonzero(sample.background_truth < 5)[:40], ["a", "b"] * 20)
    diffuse(folder, labels=labels, n_iter=3)
    add_images(folder)
    store = Store(folder)
    outdated = {made["stage"] for made in status(store)["stages"] if made["outdated"]}
    assert outdated == {"graph", "diffuse"}  # the tests were searched again
    for stage, options in ((graph, {}), (diffuse, {"labels": labels, "n_iter": 3})):
        with pytest.raises(BadInput, match="--overwrite"):
            stage(folder, **options)
    np.testing.assert_array_equal(store.array("background/truth"), [*sample.background_truth, *sample.seeds_truth])
    assert store.entry("background/truth").stage == "import.background"
    assert verify(store, data=True)[0] == []
    whole = shutil.copytree(folder, tmp_path / "whole")
    neighbors(whole, k=5, settings=ANEW)  # another k is another search, of all the same vectors
    for place in (folder, whole):
        neighbors(place, k=6, settings=ANEW)
        assert ("added" in Store(place).record("neighbors.background")) == (place == folder)
        graph(place, settings=ANEW)
        diffuse(place, labels=labels, n_iter=3, settings=ANEW)
    for name in ("graph/indices", "graph/indptr", "diffusion/scores"):
        np.testing.assert_allclose(Store(folder).array(name), Store(whole).array(name), rtol=1e-6)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Folders by kind: all lists probed or few, in float32 or float16, with faiss, or exact; vectors to add are there."""
    made = {}
    kinds = {"all": {"probes": 256}, "few": {}, "half": {"precision": "float16"}, "faiss": {"index": "IVFFlat"}}
    for kind, options in {**kinds, "exact": {"index": "Flat", "probes": None}}.items():
        folder = made[kind] = tmp_path_factory.mktemp("addition") / "store"
        bring(folder, mixture().background, role="background")
        bring(folder, many())
        reduce(folder, dim=16)
        neighbors(folder, k=K, **{"index": "list-major", "probes": PROBES} | options)
    return made


@pytest.fixture
def copy(searched, tmp_path):
    return lambda kind, name="store": shutil.copytree(searched[kind], tmp_path / name)


def test_list_after_list_with_all_lists_it_is_exact(copy):
    folder = copy("all")
    record = add_images(folder)
    store = Store(folder)
    check_table(store, K, rows=slice(None, None, 23))
    assert record["recall"]["recall"] == 1.0
    assert record["recall"]["samples"] == 1000
    order, ordered, starts, lists, vectors = store.arrays(
        *(f"background/{name}" for name in ("order", "ordered", "list_starts", "lists", "vectors"))
    )
    np.testing.assert_array_equal(ordered, vectors[order])
    np.testing.assert_array_equal(np.repeat(np.arange(len(starts) - 1), np.diff(starts)), lists[order])


def test_the_exact_table_of_a_background_with_lists(copy):
    folder = copy("exact")
    add_images(folder)
    check_table(Store(folder), K, rows=slice(None, None, 23))
    assert (Store(folder).array("background/lists")[4200:] > 0).any()


@pytest.mark.parametrize("kind", ["few", "half", "faiss"])
def test_list_after_list_all_that_must_be_found_is(copy, kind):
    folder = copy(kind)
    names = ("neighbor_ids", "similarities", "lists")
    old_ids, old, old_lists = (np.array(a) for a in Store(folder).arrays(*(f"background/{name}" for name in names)))
    record = add_images(folder)
    n, store = len(old), Store(folder)
    X, ids, similarities = store.arrays("background/vectors", "background/neighbor_ids", "background/similarities")
    searched_in = X.astype(np.float16).astype(np.float32) if kind == "half" else X
    if kind != "faiss":
        assert store.entry("background/ordered").dtype == ("<f2" if kind == "half" else "<f4")
    centroids, lists = store.arrays("background/centroids", "background/lists")
    np.testing.assert_array_equal(lists[:n], old_lists)
    assert (lists[n:] == ((X[n:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)).mean() > 0.999
    rows = np.random.default_rng(0).choice(n, 80, replace=False)
    more_ids, more = naive_neighbors(searched_in[n:], K + 2, searched_in[rows])
    expected, values = naive_merge(old_ids[rows], old[rows], more_ids + n, more, K + 2)
    assert (ids[rows] == expected).mean() > 0.995
    np.testing.assert_allclose(similarities[rows], values, atol=1e-5)
    assert (ids[:n] >= n).mean() > 0.1
    new = n + np.random.default_rng(0).choice(len(X) - n, 40, replace=False)
    expected = naive_list_search(searched_in, lists, centroids, searched_in[new], K + 2, PROBES)
    assert (ids[new] == expected).mean() > 0.99
    truth, _ = naive_neighbors(X, K, X[::20])
    found = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(truth, ids[::20, :K], strict=True)])
    assert record["recall"]["recall"] == pytest.approx(found, abs=2 * record["recall"]["uncertainty"])
    assert found > 0.8


def test_many_added_enter_by_lists(copy, monkeypatch):
    exact = copy("all", "exact")
    add_images(exact)
    monkeypatch.setattr(completion, "FEW_SEEDS", 100)
    folder = copy("all")
    record = add_images(folder)
    n = len(mixture().background)
    truth, found = (Store(place).array("background/neighbor_ids")[:n] for place in (exact, folder))
    hits = sum(len(np.intersect1d(a[a >= n], b)) for a, b in zip(truth, found, strict=True))
    assert 0.97 < hits / (truth >= n).sum() < 1
    assert 0.98 < record["recall"]["recall"] < 1


def test_seeds_are_completed_with_a_background_that_grew(copy):
    folder = copy("few")
    seeds = mixture().seeds[:500]
    bring(folder, seeds, role="seeds")
    reduce(folder, dim=16)
    neighbors(folder, k=K, index="list-major", probes=PROBES)
    add_images(folder)
    assert neighbors(folder, k=K, probes=PROBES)["seeds"]["skipped"]  # searched again with the addition
    assert Store(folder).array("seeds/neighbor_ids").max() >= 4200
    graph(folder, exact=True)
    X, ids = Store(folder).array("background/vectors"), Store(folder).array("graph/neighbor_ids")
    vectors = np.concatenate([Store(folder).array("seeds/vectors"), X])
    assert len(ids) == len(vectors) == 500 + 4200 + ADDED
    expected, _ = naive_neighbors(vectors, K, vectors[500 + 4200 :: 9])
    found = ids[500 + 4200 :: 9]
    hits = [(len(np.intersect1d(a, b)), len(np.intersect1d(a[a < 500], b))) for a, b in zip(expected, found, strict=True)]
    assert np.sum(hits, axis=0)[1] >= 0.999 * (expected < 500).sum() > 40  # the seeds exactly, others by lists
    assert np.mean(hits, axis=0)[0] > 0.8 * K


def test_two_additions_in_a_row_are_one(copy, tmp_path):
    folder, once = copy("all"), copy("all", "once")
    add_images(folder)
    bring(folder, many(300, seed=2))
    reduce(folder, dim=16)
    record = add_images(folder)
    assert (record["added"], record["added_in_all"], record["images"]) == (300, ADDED + 300, 4200 + ADDED + 300)
    import_descriptors_anew(once, np.concatenate([many(), many(300, seed=2)]))
    add_images(once)
    store, other = Store(folder), Store(once)
    assert (store.array("background/neighbor_ids") == other.array("background/neighbor_ids")).mean() > 0.999
    for name in ("descriptors", "vectors", "lists", "order", "ordered", "list_starts"):
        np.testing.assert_array_equal(store.array(f"background/{name}"), other.array(f"background/{name}"))
    check_table(store, K, rows=slice(None, None, 31))


def import_descriptors_anew(folder, X):
    np.save(folder.parent / "added.npy", X)
    import_descriptors(folder.parent / "added.npy", store=folder, role="added", settings=ANEW)
    reduce(folder, dim=16, settings=ANEW)


def test_afterwards_everything_is_done(copy):
    folder = copy("few")
    made = status(Store(folder))["stages"]
    add_images(folder)
    store = Store(folder)
    grown = published_bytes(store)
    assert [stage["outdated"] for stage in status(store)["stages"]] == [[]] * 3
    assert len(made) == 5
    with pytest.raises(BadInput, match=r"has nothing to add; .*the background has 5,100 images"):
        add_images(folder)
    for settings in (None, ANEW):  # "auto" stays the index that it was
        assert reduce(folder, dim=16, settings=settings)["background"]["skipped"]
        assert neighbors(folder, k=K, probes=PROBES, settings=settings)["background"]["skipped"]
    assert published_bytes(store) == grown
    assert verify(store, data=True)[0] == []
    removed = clean(store).files
    assert len([name for name in removed if name.startswith("data/")]) == 10  # of the background and of the added
    assert verify(store, data=True)[0] == []
    assert published_bytes(store) == grown


def test_interrupted_anywhere(copy, tmp_path, monkeypatch):
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    monkeypatch.setattr(permute, "BLOCK_ROWS", 700)
    monkeypatch.setattr(addition, "_COPY_BYTES", 2**17)
    for module in (addition, completion):
        monkeypatch.setattr(module, "BLOCK_ROWS", 512)
    monkeypatch.setattr(list_major, "query_rows", lambda q, probes: 300)
    before, folder = copy("half", "before"), copy("half")
    appends = interrupted(monkeypatch, lambda: add_images(folder), -1)
    expected = published_bytes(Store(folder))
    changed = Store(folder).record("neighbors.background")["changed"]
    resumed = 0
    for at in range(0, appends, appends // 12):
        again = shutil.copytree(before, tmp_path / f"at-{at}")
        interrupted(monkeypatch, lambda again=again: add_images(again), at)
        with pytest.raises(BadInput, match=r"neighbors.background .* was interrupted with added = 900 \(now None\)"):
            neighbors(again, k=K, index="list-major", probes=PROBES, precision="float16")
        record = add_images(again)
        resumed += record["resumed"]
        assert record["changed"] == changed
        assert published_bytes(Store(again)) == expected, at
        assert list((again / "jobs").iterdir()) == []
        shutil.rmtree(again)
    assert resumed > 6


def test_interrupted_while_seeds_and_tests_are_searched_again(tmp_path, monkeypatch):
    sample = digits(n=250, q=80, m=70)
    folder = tmp_path / "store"
    import_roles(folder, sample, roles=["background", "tests"])
    bring(folder, sample.seeds, truth=sample.seeds_truth)
    reduce(folder, dim=DIM)
    neighbors(folder, k=6)
    whole = shutil.copytree(folder, tmp_path / "whole")
    appends = interrupted(monkeypatch, lambda: add_images(whole), -1)
    interrupted(monkeypatch, lambda: add_images(folder), appends - 1)
    assert Store(folder).outdated("neighbors.tests")  # but the images were added
    with pytest.raises(BadInput, match="has nothing to add"):
        add_images(folder, settings=Settings(dry_run=True))
    record = add_images(folder)
    assert record == {**Store(folder).record("neighbors.background"), "skipped": True}
    assert published_bytes(Store(folder)) == published_bytes(Store(whole))
    with pytest.raises(BadInput, match="has nothing to add"):
        add_images(folder)


def test_threads_and_budget_change_no_byte(copy):
    folder, other = copy("few"), copy("few", "other")
    add_images(folder, settings=Settings(threads=2))
    planned = add_images(other, settings=Settings(dry_run=True, threads=1))["plan"]
    with pytest.raises(DoesNotFit, match="stage neighbors needs a memory budget of"):
        add_images(other, settings=Settings(memory_budget=planned["least_bytes"] - 2**20, threads=1))
    record = add_images(other, settings=Settings(memory_budget=planned["least_bytes"] + 2**26, threads=1))
    assert record["peak_memory_bytes"] <= record["plan"]["memory_bytes"] <= record["memory_budget_bytes"]
    assert published_bytes(Store(other)) == published_bytes(Store(folder))


def test_the_planned_disk_is_what_is_written(copy):
    folder = copy("half")
    before = {name: entry.file for name, entry in Store(folder).manifest.arrays.items()}
    plan = add_images(folder)["plan"]
    arrays = Store(folder).manifest.arrays
    written = sum(entry.bytes for name, entry in arrays.items() if before.get(name) != entry.file)
    assert abs(written - plan["disk_bytes"]) < 0.01 * written
    assert plan["scratch_bytes"] > 44 * 4200
    assert Store(folder).record("neighbors.background")["written_bytes"] <= plan["write_bytes"]
    assert sum(plan["reads"].values()) > written


def test_identical_images_write_more_than_is_usual(tmp_path):
    """Each of 3000 rows takes as many of the added images as it has places; the plan says how many there may be at most."""
    folder, sample, width = tmp_path / "store", mixture(), K + 2
    sample.seeds = sample.seeds_truth = sample.tests = None
    sample.background[:3000] = sample.background[0]
    import_roles(folder, sample)
    reduce(folder, dim=16)
    neighbors(folder, k=K, index="list-major", probes=PROBES)
    X = many(40)
    X[:20] = sample.background[0]
    bring(folder, X)
    reduce(folder, dim=16)
    record = add_images(folder)
    plan, usual = record["plan"], 8 * 4 * 40 * width
    assert plan["identical_bytes"] == 8 * 4200 * width - usual
    assert plan["recall_bytes"] == 4 * plan["reads"]["samples"]
    more = record["written_bytes"] - plan["write_bytes"]
    assert 8 * 3000 * width - usual <= more <= plan["identical_bytes"]


def test_names_and_classes_keep_their_order(tmp_path):
    sample = digits(n=60, q=20)
    folder = tmp_path / "store"
    bring(folder, sample.background, role="background", names=[f"m/{i:03d}" for i in range(60)])
    bring(folder, sample.tests[:10], names=[f"a/{i:03d}" for i in range(10)], truth=np.arange(10))
    reduce(folder, dim=8)
    neighbors(folder, k=5)
    add_images(folder)
    bring(folder, sample.tests[10:], names=[f"z/{i:03d}" for i in range(10)])
    reduce(folder, dim=8)
    add_images(folder)
    names = Strings.open(Store(folder), "background/path")
    whole = [f"m/{i:03d}" for i in range(60)] + [f"a/{i:03d}" for i in range(10)] + [f"z/{i:03d}" for i in range(10)]
    assert list(names) == whole
    assert [names.bisect(name) for name in whole] == list(range(80))
    assert names.find("m/a") == names.bisect("m/a") == -1
    np.testing.assert_array_equal(Store(folder).array("background/truth"), [*[-1] * 60, *range(10), *[-1] * 10])


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {}, "the background have names, the added images none; give names to both"),
        ({"names": "abcde"}, {"stated": {"k": 6}}, "`k` is 6, but the background was searched with 5; leave it out with --add"),
        (
            {"names": "abcde"},
            {"stated": {"target_recall": 0.5}},
            "`target_recall` is 0.5, but .* with None; leave it out with --add",
        ),
        ({"names": "abcde"}, {"stated": {"index": "list-major"}}, "`index` is list-major, but .* searched with Flat"),
        ({"names": "abcde"}, {"min_recall": 2}, "`min_recall` is 2; give a share"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, files, options, message):
    sample = digits(n=40, q=5)
    folder = tmp_path / "store"
    bring(folder, sample.background, role="background", names=sorted(f"n{i}" for i in range(40)))
    reduce(folder, dim=8)
    neighbors(folder, k=5)
    with pytest.raises(BadInput, match=r"has nothing to add"):
        add_images(folder)
    bring(folder, sample.tests, **files)
    with pytest.raises(BadInput, match=r"have no vectors yet; run reduce first"):
        add_images(folder)
    reduce(folder, dim=8)
    before = published_bytes(Store(folder))
    with pytest.raises(BadInput, match=message):
        add_images(folder, **options)
    assert published_bytes(Store(folder)) == before


def test_a_recall_too_low_changes_nothing_and_a_lower_one_goes_on(copy):
    folder = copy("few")
    before = published_bytes(Store(folder))
    with pytest.raises(BadInput, match=r"below the 0\.9999 .*give a lower --min-recall"):
        add_images(folder, min_recall=0.9999)
    assert published_bytes(Store(folder)) == before
    assert add_images(folder, min_recall=0.5)["resumed"]


@pytest.mark.parametrize("name", ["background/descriptors", "background/similarities", "background/lists", "added/vectors"])
def test_a_file_that_has_changed_is_refused(copy, name):
    folder = copy("few")
    entry, before = Store(folder).entry(name), published_bytes(Store(folder))
    data = bytearray((folder / entry.file).read_bytes())
    data[-9] ^= 1
    (folder / entry.file).write_bytes(data)
    with pytest.raises(CorruptStore, match=rf"{re.escape(entry.file)}: chunk 0 .* has changed"):
        add_images(folder)
    assert list((folder / "jobs").iterdir()) == []
    assert published_bytes(Store(folder)).keys() == before.keys()


def test_neighbors_from_a_file_are_not_added_to(copy, tmp_path):
    folder = copy("exact")
    np.save(tmp_path / "ids.npy", np.array(Store(folder).array("background/neighbor_ids")))
    neighbors(folder, k=K, index="list-major", table=tmp_path / "ids.npy", settings=ANEW)
    with pytest.raises(BadInput, match="the neighbors of the background come from a file; add the images to what made it"):
        add_images(folder)


def test_an_outdated_background_is_refused(copy):
    folder = copy("few")
    reduce(folder, dim=12, settings=ANEW)
    with pytest.raises(BadInput, match=r"was made from an earlier background/vectors; run stage neighbors.background again"):
        add_images(folder)
