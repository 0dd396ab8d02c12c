"""The bytes of every stage depend neither on threads, nor on the budget, nor on where it was interrupted."""

import shutil
import sys
from functools import partial

import numpy as np
import pytest

from ooc_diffusion.diffusion.room import Room
from ooc_diffusion.evaluation import draw_seeds
from ooc_diffusion.neighbors import exact, search
from ooc_diffusion.stages.classify import classify
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store
from ooc_diffusion.store.writer import ArrayWriter
from tests.stages.chain import Sample, import_roles, published_bytes, write_labels


def mixture(n=4200, q=1100, m=1030):
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, 24))
    truth = rng.integers(0, 40, n + q + m)
    X = (centers[truth] + 0.6 * rng.normal(size=(n + q + m, 24))).astype(np.float32)
    a, b, c = np.split(X, [n, n + q])
    u, v, w = np.split(truth % 5, [n, n + q])
    return Sample(a, u, b, v, c, w)


@pytest.fixture(scope="module")
def sample():
    return mixture()


def chain(folder, labels, settings, **options):
    """The stages behind the import, as calls by name."""
    return {
        "reduce": partial(reduce, folder, dim=16, settings=settings),
        "neighbors": partial(neighbors, folder, k=7, settings=settings, index=options.get("index", "auto")),
        "graph": partial(graph, folder, weighting=options.get("weighting", "constant"), settings=settings),
        "diffuse": partial(diffuse, folder, labels=labels, n_iter=3, settings=settings),
        "classify": partial(classify, folder, method="diffusion", settings=settings),
    }


def labels_of(folder, sample):
    return write_labels(folder, *draw_seeds(sample.seeds_truth, n_per_class=4, seed=0))


@pytest.mark.parametrize("index", ["Flat", "IVFFlat", "list-major"])
@pytest.mark.parametrize("weighting", ["constant", pytest.param("gaussian", marks=pytest.mark.slow)])
def test_any_number_of_threads(tmp_path, sample, index, weighting):
    found = []
    for threads in (1, 2):
        folder = tmp_path / str(threads) / "store"
        folder.parent.mkdir()
        store = import_roles(folder, sample)
        for stage in chain(
            folder, labels_of(folder, sample), Settings(threads=threads), index=index, weighting=weighting
        ).values():
            stage()
        found.append(published_bytes(store))
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []
    assert len(found[0]) > 30


class Crash(Exception):
    pass


@pytest.fixture
def small_blocks(monkeypatch):
    """Many blocks in every stage, a checkpoint after each."""
    monkeypatch.setattr("ooc_diffusion.store.job._SECONDS_BETWEEN_CHECKPOINTS", 0)
    for module in ("import_descriptors", "reduce", "neighbors", "graph", "classify"):
        monkeypatch.setattr(f"ooc_diffusion.stages.{module}.BLOCK_ROWS", 1024)
    for module in (sys.modules[search.__module__], exact):
        monkeypatch.setattr(module, "QUERY_ROWS", 1024)
    monkeypatch.setattr("ooc_diffusion.graph.build._range_end", lambda counts, begin, *a: min(begin + 900, len(counts)))
    monkeypatch.setattr("ooc_diffusion.diffusion.scores.make_room", lambda n, left, **kw: Room(min(2, left), False, 999, 99))


def interrupted(monkeypatch, stage, at):
    """Run a stage that crashes at its append number ``at``; return the number of appends."""
    calls = 0
    original = ArrayWriter.append

    def append(writer, block):
        nonlocal calls
        calls += 1
        if calls == at + 1:
            raise Crash
        original(writer, block)

    with monkeypatch.context() as patch:
        patch.setattr(ArrayWriter, "append", append)
        if at < 0:
            stage()
        else:
            with pytest.raises(Crash):
                stage()
    return calls


@pytest.mark.parametrize("weighting", [pytest.param("constant", marks=pytest.mark.slow), "gaussian"])
def test_interrupted_anywhere(tmp_path, sample, small_blocks, monkeypatch, weighting):
    whole = tmp_path / "whole"
    import_roles(whole, sample)
    labels = labels_of(whole, sample)
    interruptible = {"graph"} if weighting == "gaussian" else {"reduce", "neighbors", "graph", "diffuse", "classify"}
    resumed = set()
    for name in chain(whole, labels, None):
        if name not in interruptible:
            chain(whole, labels, None)[name]()
            continue
        before = tmp_path / f"before-{name}"
        shutil.copytree(whole, before)
        appends = interrupted(monkeypatch, chain(whole, labels, None, weighting=weighting)[name], -1)
        expected = published_bytes(Store(whole))
        for at in sorted({0, appends // 3, 2 * appends // 3, appends - 1}):
            folder = tmp_path / f"{name}-{at}"
            shutil.copytree(before, folder)
            stage = chain(folder, labels, None, weighting=weighting)[name]
            interrupted(monkeypatch, stage, at)
            record = stage()
            again = published_bytes(Store(folder))
            assert [key for key in expected if again.get(key) != expected[key]] == [], (name, at)
            assert again.keys() == expected.keys()
            records = record.values() if name in ("reduce", "neighbors") else [record]
            if any(part.get("resumed") for part in records):
                resumed.add(name)
            assert list((folder / "jobs").iterdir()) == []
            shutil.rmtree(folder)
    assert resumed == interruptible


def test_an_interrupted_import(tmp_path, sample, small_blocks, monkeypatch):
    expected = published_bytes(import_roles(tmp_path / "whole", sample))
    for at in (0, 1, 3, 5, 6, 8):
        folder = tmp_path / str(at)
        interrupted(monkeypatch, lambda folder=folder: import_roles(folder, sample), at)
        assert published_bytes(import_roles(folder, sample)) == expected


def test_an_interrupted_evaluation(tmp_path, sample, small_blocks, monkeypatch):
    from ooc_diffusion.stages import evaluate as module

    monkeypatch.setattr(module, "train_logistic", partial(module.train_logistic, n_steps=50))
    monkeypatch.setattr("ooc_diffusion.stages.selection.train_logistic", module.train_logistic)
    folder = tmp_path / "store"
    sample = Sample(sample.background, sample.background_truth, sample.tests, sample.tests_truth)
    import_roles(folder, sample)
    for name in ("reduce", "neighbors", "graph"):
        chain(folder, None, None)[name]()
    shutil.copytree(folder, tmp_path / "twin")
    options = {"n_per_class": [1, 2], "draws": 3, "max_iter": 3}
    whole = module.evaluate(folder, **options)["draws"]
    original, seen = module._one_draw, []

    def one_draw(*args):
        seen.append(len(seen))
        if len(seen) == 3:
            raise Crash
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_one_draw", one_draw)
        with pytest.raises(Crash):
            module.evaluate(tmp_path / "twin", **options)
    seen.clear()
    monkeypatch.setattr(module, "_one_draw", lambda *args: seen.append(0) or original(*args))
    record = module.evaluate(tmp_path / "twin", **options)
    assert record["draws"] == whole
    assert (record["resumed"], len(seen)) == (True, 1)
