"""A background of the protocol is searched among itself once, and what is found does not depend on when."""

import os
import shutil
import threading
from dataclasses import replace

import faiss
import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation import write_split
from ooc_diffusion.stages import low_shot_background, low_shot_logistic
from ooc_diffusion.stages.addition import add_images
from ooc_diffusion.stages.evaluate_paper import evaluate_paper
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.low_shot_background import SEARCHED, neighbors_text, open_background
from ooc_diffusion.stages.low_shot_diffusion import low_shot
from ooc_diffusion.stages.low_shot_variant import Variant
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.study import study
from ooc_diffusion.stages.temporary_graphs import GraphKeeper
from ooc_diffusion.store import Store, verify

from .low_shot_chain import (
    DIM,
    MAX_ITER,
    OTHERS,
    QUICK,
    SPLIT,
    K,
    clusters,
    import_clusters,
    naive_bounds,
    naive_draws,
    naive_scores,
    protocol,
    unit,
)


@pytest.fixture
def stores(tmp_path):
    return import_clusters(tmp_path)


def run(stores, *, size=None, k=K, seed=0):
    """Curves of a run."""
    store, others = stores
    options = {"background": open_background(store, others.path, size=size), "fusion": False, "settings": QUICK}
    what = replace(protocol(n_per_class=(1,), draws=1), seed=seed)
    name, record = low_shot(store, what, Variant("out-of-domain", k=k, max_iter=MAX_ITER), **options)
    assert not record.get("skipped")
    return np.array(store.array(f"{name}/curves")), np.array(store.array(f"{name}/reached"))


@pytest.fixture
def searches(monkeypatch):
    """The stores in which a background is searched."""
    made = []

    def noted(store, **options):
        made.append(store.path)
        return neighbors(store, **options)

    monkeypatch.setattr(low_shot_background, "neighbors", noted)
    return made


def test_other_seeds_find_the_background_searched_to_the_same_bytes(stores, searches, tmp_path):
    run(stores, seed=1)
    found = run(stores, seed=2)
    assert len(searches) == 1
    shutil.rmtree(stores[1].path / SEARCHED)
    shutil.rmtree(stores[0].path)
    anew = run((import_clusters(tmp_path / "again")[0], stores[1]), seed=2)
    assert len(searches) == 2
    for a, b in zip(found, anew, strict=True):
        assert a.tobytes() == b.tobytes()
    (kept,) = (stores[1].path / SEARCHED).iterdir()
    assert verify(Store(kept), data=True)[0] == []


def test_other_numbers_of_images_are_searched_apart(stores, searches):
    for seed, options in enumerate(({}, {"size": 40}, {"k": 3}, {"size": 40})):
        run(stores, seed=seed, **options)
    assert len(set(searches)) == len(searches) == 2


def test_a_wider_table_takes_the_place_of_a_narrower_one_over_the_same_vectors(stores, searches, tmp_path):
    run(stores)
    (kept,) = (stores[1].path / SEARCHED).iterdir()
    vectors = Store(kept).entry("background/vectors").file
    wide = run(stores, k=K + 3)
    narrow = run(stores, k=K - 1)
    assert searches == [kept, kept]  # the last found more than it needs
    assert Store(kept).parameters("neighbors.background")["k"] == K + 3
    assert Store(kept).entry("background/vectors").file == vectors
    assert len(list((kept / "data").glob("background.vectors*"))) == len(list((kept / "data").glob("*neighbor_ids*"))) == 1
    for number, (k, found) in enumerate({K + 3: wide, K - 1: narrow}.items()):
        apart = run(import_clusters(tmp_path / f"apart-{number}"), k=k)
        for a, b in zip(found, apart, strict=True):
            assert a.tobytes() == b.tobytes()


def test_the_second_of_two_processes_waits_for_the_table_of_the_first(stores, searches, monkeypatch, caplog):
    """Both begin before there is a store of it; the threads stand for processes, whose locks are as apart."""
    store, others = stores
    begun, go_on, found, slow = threading.Event(), threading.Event(), {}, low_shot_background.neighbors

    def waiting(made, **options):
        begun.set()
        assert go_on.wait(60)
        return slow(made, **options)

    monkeypatch.setattr(low_shot_background, "neighbors", waiting)

    def search(name):
        found[name] = open_background(Store(store.path), others.path).searched(store, k=K, settings=QUICK)

    threads = [threading.Thread(target=search, args=(name,)) for name in ("first", "second")]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    while not caplog.messages:
        threads[1].join(0.05)
        assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join()
    assert found["first"].path == found["second"].path
    assert searches == [found["first"].path]
    assert "waiting for it" in caplog.messages[0]


def test_images_that_changed_are_searched_anew(stores, searches, tmp_path):
    run(stores)
    others = import_clusters(tmp_path / "others", seed=1)[1]
    shutil.rmtree(stores[1].path / "data")
    shutil.copytree(others.path, stores[1].path, dirs_exist_ok=True)
    run(stores)
    assert len(set(searches)) == 2


def as_it_is(stores):
    """The other collection by its own vectors."""
    return replace(open_background(stores[0], stores[1].path), array="background/vectors")


def test_a_table_that_the_collection_has_is_taken(stores, searches, caplog):
    store, others = stores
    reduce(others, dim=0, settings=QUICK)
    neighbors(others, k=K, settings=QUICK)
    background = as_it_is(stores)
    assert background.searched(store, k=K, settings=QUICK).path == others.path
    assert background.searched(store, k=K - 1, settings=QUICK).path == others.path  # its first columns
    assert caplog.messages == searches == []
    wider = background.searched(store, k=K + 1, settings=QUICK)
    assert caplog.messages == [f"{others.path} has {K} neighbors per image, but {K + 1} are asked for: they are searched anew"]
    assert wider.path.parent == others.path / SEARCHED
    assert wider.parameters("neighbors.background")["k"] == K + 1
    mine, theirs = (each.path / each.entry("background/vectors").file for each in (wider, others))
    assert mine.samefile(theirs)  # linked, not copied
    assert replace(background, n=40).searched(store, k=K, settings=QUICK).path != others.path
    neighbors(others, k=K, settings=replace(QUICK, seed=1, overwrite=True))
    assert as_it_is(stores).searched(store, k=K, settings=QUICK).path == others.path  # exact, whatever the seed
    with others.job("reduce.background", parameters={"other": True}, overwrite=True) as job:
        job.put("background/vectors", np.eye(60, 8, dtype=np.float32))
        job.publish({})
    assert as_it_is(stores).searched(store, k=K, settings=QUICK).path != others.path  # those were neighbors of others


def said(stores, root, caplog, *, run=False):
    """What is warned of by the protocol and by the study, each planned, and then run."""
    caplog.clear()
    write_split(root / "split.json", SPLIT)
    given = {"background": str(stores[1].path), "split": str(root / "split.json"), "n_per_class": (1,), "draws": 1}
    given |= {"k": K, "max_iter": MAX_ITER}
    for settings in (replace(QUICK, dry_run=True), QUICK)[: 1 + run]:
        evaluate_paper(stores[0].path, setting="out-of-domain", **given, settings=settings)
        study(["knn"], data=str(stores[0].path), output=root / "out", **given, settings=settings)
    return caplog.messages


def test_a_table_that_is_outdated_is_warned_of(stores, searches, tmp_path, caplog, monkeypatch):
    """The others have vectors alone, as the paper's collection; they come to be of other images."""
    monkeypatch.setattr(low_shot_background, "_ALIKE", ("background/vectors",))
    monkeypatch.setattr(low_shot_logistic, "STEPS", (10,))
    others, anew = stores[1], replace(QUICK, overwrite=True)
    reduce(others, dim=0, settings=QUICK)
    assert said(stores, tmp_path, caplog) == []  # there is no table
    neighbors(others, k=K, settings=QUICK)
    assert said(stores, tmp_path, caplog) == []
    message = (
        f"{others.path} has neighbors that are outdated: they are not taken, its images are searched anew by default; to have "
        "its own taken, run {} again with `overwrite`"
    )
    import_descriptors(tmp_path / "t.npy", store=others.path, settings=anew)
    assert said(stores, tmp_path, caplog) == 2 * [message.format("reduce and neighbors")]
    reduce(others, dim=0, settings=anew)
    assert said(stores, tmp_path, caplog, run=True) == 4 * [message.format("neighbors")]
    caplog.clear()
    open_background(stores[0], others.path, size=20).warn_of_outdated()  # these would be searched anyhow
    searches.clear()
    neighbors(others, k=K, settings=anew)
    assert said(stores, tmp_path, caplog, run=True) == searches == []


def over(stores, *, seed=0, **options):
    """A run over the other collection as it is: name of the stage and record."""
    what = Variant("out-of-domain", k=K, max_iter=MAX_ITER)
    given = {"background": as_it_is(stores), "fusion": False, "settings": QUICK, **options}
    return low_shot(stores[0], protocol(seed=seed), what, **given)


def save_table(root, *, nearest):
    """Write the nearest, or the farthest, neighbors of the others as a file, two more than asked for; return them."""
    X = unit(clusters()[-1])
    order = np.argsort(X @ X.T, axis=1)[:, ::-1]
    ids = order[:, : K + 2] if nearest else order[:, -K - 2 :]
    np.save(root / "ids.npy", ids.astype(np.int32))
    return ids


def test_graphs_are_of_the_table_that_was_given_however_wrong(stores, searches, tmp_path):
    reduce(stores[1], dim=0, settings=QUICK)
    wrong = save_table(tmp_path, nearest=False)
    neighbors(stores[1], k=K, table=tmp_path / "ids.npy", settings=QUICK)
    name, record = over(stores)
    assert searches == []
    bounds, right, data = [], [], clusters()
    for group in SPLIT.groups:
        for draw in range(2):
            for labelled in naive_draws(data[1], group, (1, 2), draw):
                for found, table in ((bounds, wrong), (right, None)):
                    scores, columns, _ = naive_scores(data, group, labelled, setting="out-of-domain", others=OTHERS, table=table)
                    found.append([naive_bounds(each, columns, len(group.base)) for each in scores])
    curves, (least, most) = stores[0].array(f"{name}/curves"), np.moveaxis(np.array(bounds), 2, 0)
    assert (curves >= least - 1e-12).all()
    assert (curves <= most + 1e-12).all()
    assert (least == most).mean() > 0.7
    assert (np.array(right)[:, :, 0] > most).any()  # the table shows
    told = record["background"]
    assert (told["own"], told["images"], told["k"], told["table"]) == (True, OTHERS, K, str(tmp_path / "ids.npy"))
    assert told["recall"]["recall"] < 0.1
    assert neighbors_text(told).startswith(f"{K} neighbors, those it has, from ids.npy, recall 0.0")


def test_another_table_is_another_run_and_the_same_one_is_not(stores, tmp_path):
    reduce(stores[1], dim=0, settings=QUICK)
    names = []
    for file, nearest in (("a", True), ("a", True), ("b", True), ("b", False)):
        (tmp_path / file).mkdir(exist_ok=True)
        save_table(tmp_path / file, nearest=nearest)
        neighbors(stores[1], k=K, table=tmp_path / file / "ids.npy", settings=replace(QUICK, overwrite=True))
        name, record = over(stores)
        assert bool(record.get("skipped")) == (name in names)
        names.append(name)
    assert names[0] == names[1] == names[2] != names[3]  # wherever its files are


def test_a_table_that_changes_meanwhile_is_noticed(stores, tmp_path):
    reduce(stores[1], dim=0, settings=QUICK)
    save_table(tmp_path, nearest=True)
    neighbors(stores[1], k=K, table=tmp_path / "ids.npy", settings=QUICK)
    background = as_it_is(stores)
    save_table(tmp_path, nearest=False)
    neighbors(stores[1], k=K, table=tmp_path / "ids.npy", settings=replace(QUICK, overwrite=True))
    with pytest.raises(BadInput, match="the neighbors of .*others changed while this ran; run the command again"):
        over(stores, background=background)


def test_where_the_table_is_too_narrow_for_one_run_others_take_it(stores, searches):
    """As figure 2 asks for more neighbors than the other chapters."""
    reduce(stores[1], dim=0, settings=QUICK)
    neighbors(stores[1], k=K, settings=QUICK)
    background, vectors = as_it_is(stores), stores[0].array("background/vectors")
    with GraphKeeper(K + 3) as keeper:
        for k in (K, K + 2):
            graphs = keeper.graphs(stores[0], tests=(vectors, np.arange(3)), background=background, k=k, settings=QUICK)
            graphs.build([(vectors, np.arange(20))], {}, k=k)
            assert graphs.store.parameters("neighbors.background")["k"] == (K if k == K else K + 3)
    assert len(searches) == 1


def test_seeds_are_searched_in_the_index_of_the_collection(stores, searches, tmp_path):
    reduce(stores[1], dim=0, settings=QUICK)
    neighbors(stores[1], k=K, settings=QUICK)
    exact = over(stores)[0]
    index = faiss.IndexFlatIP(8)
    index.add(np.array(stores[1].array("background/vectors")))
    faiss.write_index(index, str(tmp_path / "my.faiss"))
    neighbors(stores[1], k=K, index_file=tmp_path / "my.faiss", settings=replace(QUICK, overwrite=True))
    name, record = over(stores)
    assert searches == []
    assert name != exact
    np.testing.assert_array_equal(stores[0].array(f"{name}/curves"), stores[0].array(f"{exact}/curves"))
    assert "those it has, from my.faiss, recall 1.0000" in neighbors_text(record["background"])
    os.utime(tmp_path / "my.faiss", ns=(0, 0))
    assert over(stores)[1]["skipped"]  # nothing is searched
    with pytest.raises(BadInput, match=r"my\.faiss is no longer the index that the background was searched with"):
        over(stores, seed=1)


def test_a_collection_that_grew_is_taken_with_what_was_added(stores, searches, tmp_path):
    store, others = stores
    reduce(others, dim=0, settings=QUICK)
    neighbors(others, k=K, settings=QUICK)
    np.save(tmp_path / "more.npy", np.random.default_rng(5).normal(size=(20, 8)).astype(np.float32))
    import_descriptors(tmp_path / "more.npy", store=others.path, role="added", settings=QUICK)
    reduce(others, dim=0, settings=QUICK)
    add_images(others, settings=QUICK)
    name, record = over(stores)
    assert (searches, record["background"]["images"]) == ([], OTHERS + 20)
    shutil.copytree(others.path, tmp_path / "apart")
    apart = Store(tmp_path / "apart")
    neighbors(apart, k=K + 1, settings=replace(QUICK, overwrite=True))  # from scratch, for more neighbors
    again = over((store, apart))[0]
    assert again != name
    np.testing.assert_array_equal(store.array(f"{name}/curves"), store.array(f"{again}/curves"))


def test_the_plan_leaves_out_a_search_that_was_made(stores):
    reduce(stores[1], dim=0, settings=QUICK)
    dry = replace(QUICK, dry_run=True)
    before = over(stores, settings=dry)[1]["plan"]["disk_bytes"]
    neighbors(stores[1], k=K, settings=QUICK)
    after = over(stores, settings=dry)[1]["plan"]["disk_bytes"]
    name, _ = over(stores)
    own = sum(stores[0].entry(array).bytes for array in stores[0].manifest.stages[name]["arrays"])
    assert own <= after < own + 1000  # its own figures
    assert before - after >= 4 * OTHERS * (DIM + 2 * K)  # vectors, ids and similarities


def test_both_ways_give_the_same_curves(stores, monkeypatch):
    others = stores[1]
    reduce(others, dim=0, settings=QUICK)
    apart = run(stores, seed=3)
    neighbors(others, k=K, settings=QUICK)
    monkeypatch.setattr(low_shot_background, "_ALIKE", ("background/vectors",))
    own = run(stores, seed=3)
    assert len(list((others.path / SEARCHED).iterdir())) == 1
    for a, b in zip(apart, own, strict=True):
        assert a.tobytes() == b.tobytes()


def test_an_interrupted_search_goes_on(stores, monkeypatch):
    def killed(store, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(low_shot_background, "neighbors", killed)
        with pytest.raises(KeyboardInterrupt):
            run(stores)
    (begun,) = (stores[1].path / SEARCHED).iterdir()
    written = Store(begun).entry("background/vectors").file
    run(stores)
    assert Store(begun).entry("background/vectors").file == written
    assert "neighbors.background" in Store(begun).manifest.stages


def test_nothing_is_written_where_that_is_not_allowed(stores, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **how: path != stores[1].path and access(path, mode, **how))
    run(stores)
    assert not (stores[1].path / SEARCHED).exists()
