"""The labelled images of the draws as files, and what becomes of them in the other stages."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.stages import draw_files, low_shot_diffusion, low_shot_logistic
from ooc_diffusion.stages.classify import classify
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.draw_files import check_draw_folder, write_draws
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.import_descriptors import import_descriptors
from ooc_diffusion.stages.labels import read_labels
from ooc_diffusion.stages.low_shot_diffusion import low_shot
from ooc_diffusion.stages.low_shot_variant import Variant
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.paths import paths
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.store import Store

from .low_shot_chain import MAX_ITER, QUICK, SPLIT, K, clusters, import_clusters, naive_draws, protocol

AGAIN = replace(QUICK, overwrite=True)
# One that a CSV must quote, and one that is no UTF-8.
NAMES = sorted([*(f"{i:03}.png" for i in range(105)), 'a,"b".png', "c\udcff.png", "d e.png"])


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(low_shot_logistic, "STEPS", (20,))
        yield


def import_named(root, rows, test_rows):
    """A store of some training images with their names, and of some tests."""
    X, truth, T, test_truth, _ = clusters()
    root.mkdir()
    given = {"x": X[rows], "x_truth": truth[rows], "t": T[test_rows], "t_truth": test_truth[test_rows]}
    for name, values in given.items():
        np.save(root / f"{name}.npy", values)
    text = "".join(f"{NAMES[i]}\n" for i in np.arange(len(X))[rows])
    (root / "names.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    options = {"store": root / "s", "settings": QUICK}
    import_descriptors(root / "x.npy", truth=root / "x_truth.npy", names=root / "names.txt", **options)
    import_descriptors(root / "t.npy", truth=root / "t_truth.npy", role="tests", **options)
    reduce(root / "s", dim=0, settings=QUICK)
    return Store(root / "s")


def labelled_by_files(store, folder):
    """Rows and names of classes of each file, by group, draw and n."""
    found = {}
    for file in folder.glob("group-*.csv"):
        _, group, _, draw, _, n = file.stem.split("-")
        labels = read_labels(file, store)
        found[int(group), int(draw), int(n)] = labels.rows.tolist(), [int(labels.class_names[c]) for c in labels.classes]
    return found


@pytest.mark.parametrize("named", [False, True])
def test_files_label_what_is_drawn(tmp_path, named):
    X, truth, T, _, _ = clusters()
    if named:
        store = import_named(tmp_path / "named", np.arange(len(X)), np.arange(len(T)))
    else:
        store = import_clusters(tmp_path / "by row")[0]
    assert write_draws(store, protocol(), tmp_path / "draws") == str(tmp_path / "draws")
    expected = {}
    for number, group in enumerate(SPLIT.groups):
        for draw in range(2):
            for n, rows in zip((1, 2), naive_draws(truth, group, (1, 2), draw), strict=True):
                expected[number + 1, draw + 1, n] = rows, truth[rows].tolist()
    assert labelled_by_files(store, tmp_path / "draws") == expected


def test_earlier_draws_are_replaced_and_all_else_is_left(tmp_path):
    store = import_clusters(tmp_path / "images")[0]
    folder = tmp_path / "draws"
    write_draws(store, protocol(), folder)
    before = (folder / "group-1-draw-1-n-1.csv").read_bytes()
    (folder / "mine.csv").write_text("mine")
    with pytest.raises(BadInput, match="is not empty; give another --draws-to"):
        check_draw_folder(store, protocol(), folder, overwrite=False)
    check_draw_folder(store, protocol(), folder, overwrite=True)
    write_draws(store, protocol(draws=1, n_per_class=(1,), groups=(1,)), folder)
    assert {file.name for file in folder.iterdir()} == {"mine.csv", "group-1-draw-1-n-1.csv"}
    assert (folder / "group-1-draw-1-n-1.csv").read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"images", "draws"}


def bytes_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("named", [False, True])
def test_the_same_draws_pass_and_any_other_file_is_refused_by_name(tmp_path, monkeypatch, named):
    monkeypatch.setattr(draw_files, "BLOCK_ROWS", 5)  # files of several blocks
    X, _, T, _, _ = clusters()
    root = tmp_path / "images"
    store = import_named(root, np.arange(len(X)), np.arange(len(T))) if named else import_clusters(root)[0]
    folder, first, last = tmp_path / "draws", "group-1-draw-1-n-1.csv", "group-2-draw-2-n-2.csv"
    check_draw_folder(store, protocol(), folder, overwrite=False)
    folder.mkdir()
    check_draw_folder(store, protocol(), folder, overwrite=False)
    write_draws(store, protocol(), folder)
    whole = bytes_of(folder)
    assert len(whole[first].splitlines()) == 1 + 2 * 9 + 3
    check_draw_folder(store, protocol(), folder, overwrite=False)
    write_draws(store, protocol(), folder)
    assert bytes_of(folder) == whole
    check_draw_folder(store, protocol(n_per_class=(1, 2, 3)), folder, overwrite=False)  # more of them would not touch these
    for changed, name in (
        (lambda: (folder / "mine.csv").write_text("mine"), "mine.csv"),
        (lambda: (folder / last).write_bytes(whole[last] + b"\n"), last),
        (lambda: (folder / first).write_bytes(whole[first][:-1]), first),
        (lambda: (folder / first).write_bytes(whole[first][:30] + b"9" + whole[first][31:]), first),
        (lambda: [(folder / first).unlink(), (folder / first).mkdir()], first),
    ):
        changed()
        told = f"is not empty; give another --draws-to, or --overwrite to replace the draws in it ({name} is not of this run)"
        with pytest.raises(BadInput, match=re.escape(told)):
            check_draw_folder(store, protocol(), folder, overwrite=False)
        shutil.rmtree(folder)
        write_draws(store, protocol(), folder)
    for other in (protocol(seed=1), protocol(draws=1), protocol(n_per_class=(1,))):
        with pytest.raises(BadInput, match="is not of this run"):
            check_draw_folder(store, other, folder, overwrite=False)


def test_the_stages_give_the_scores_of_the_draw(tmp_path, monkeypatch):
    """In a store of the in-domain images alone, diffusion by a file is that of the protocol, and has paths."""
    X, truth, T, test_truth, _ = clusters()
    store = import_named(tmp_path / "all", np.arange(len(X)), np.arange(len(T)))
    real, runs = low_shot_diffusion.diffuse_once, []

    def kept(graph, what, **options):
        scores = real(graph, what, **options)
        if what.every_iteration:
            runs.append(np.array(scores))
        return scores

    monkeypatch.setattr(low_shot_diffusion, "diffuse_once", kept)
    low_shot(store, protocol(), Variant("in-domain", k=K, max_iter=MAX_ITER), fusion=False, settings=QUICK)
    write_draws(store, protocol(), tmp_path / "draws")
    for number, group in enumerate(SPLIT.groups):
        tests = np.isin(test_truth, group.classes)
        alone = import_named(tmp_path / f"group {number}", np.isin(truth, group.classes), tests)
        neighbors(alone, k=K, settings=QUICK)
        graph(alone, settings=QUICK)
        for draw, n, n_iter in ((0, 1, 2), (1, 2, 3)):
            file = tmp_path / "draws" / f"group-{number + 1}-draw-{draw + 1}-n-{n}.csv"
            record = diffuse(alone.path, labels=file, n_iter=n_iter, settings=AGAIN)
            columns = [group.classes.tolist().index(int(name)) for name in record["class_names"]]
            expected = runs[4 * number + 2 * draw + n - 1][n_iter, : tests.sum(), columns].T
            assert np.count_nonzero(expected) > expected.size / 5
            np.testing.assert_array_equal(alone.array("diffusion/scores"), expected)
    classify(alone.path, method="diffusion", settings=QUICK)
    assert paths(alone.path, rows=[0, 1], output=tmp_path / "paths", settings=QUICK)["walks"] >= 2
