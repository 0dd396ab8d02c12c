"""A background of the protocol is searched among itself once, and what is found does not depend on when."""

import os
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from ooc_diffusion.stages import low_shot_background
from ooc_diffusion.stages.low_shot_background import SEARCHED, open_background
from ooc_diffusion.stages.low_shot_diffusion import Variant, low_shot
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.store import Store, verify

from .low_shot_chain import MAX_ITER, QUICK, K, import_clusters, protocol


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


def test_a_table_that_the_collection_has_is_taken(stores, searches):
    store, others = stores
    reduce(others, dim=0, settings=QUICK)
    neighbors(others, k=K, settings=QUICK)
    background = replace(open_background(store, others.path), array="background/vectors")
    assert background.searched(store, k=K, settings=QUICK).path == others.path
    assert background.searched(store, k=K - 1, settings=QUICK).path == others.path  # its first columns
    wider = background.searched(store, k=K + 1, settings=QUICK)
    assert wider.path.parent == others.path / SEARCHED
    assert wider.parameters("neighbors.background")["k"] == K + 1
    mine, theirs = (each.path / each.entry("background/vectors").file for each in (wider, others))
    assert mine.samefile(theirs)  # linked, not copied
    assert replace(background, n=40).searched(store, k=K, settings=QUICK).path != others.path
    neighbors(others, k=K, settings=replace(QUICK, seed=1, overwrite=True))
    assert background.searched(store, k=K, settings=QUICK).path != others.path


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
