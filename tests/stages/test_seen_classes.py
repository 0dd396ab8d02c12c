"""Novel classes that a network was trained on are told, and tests of other classes refused."""

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation import Group, Split
from ooc_diffusion.stages.evaluate import evaluate
from ooc_diffusion.stages.extract import extract
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.low_shot import check_store
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.seen_classes import seen_novel_classes
from ooc_diffusion.stages.settings import Settings
from ooc_diffusion.store import Store

SPLIT = Split((Group(np.array([0]), np.array([3, 1])), Group(np.array([2]), np.array([4]))))


@pytest.mark.parametrize(
    ("names", "trained", "expected"),
    [
        ("abcde", ["c", "a"], []),
        ("abcde", ["e", "a", "d"], ["d", "e"]),
        (None, ["1", "0"], ["1"]),
        ("abcde", None, []),  # of published weights nothing is known
    ],
)
def test_novel_classes_that_were_trained_on(tmp_path, caplog, names, trained, expected):
    store = Store(tmp_path / "s", create=True)
    with store.job("list.background", parameters={}) as job:
        job.publish({} if names is None else {"class_names": list(names)})
    with store.job("extract.background", parameters={}) as job:
        job.publish({} if trained is None else {"trained_on": trained})
    assert seen_novel_classes(Store(tmp_path / "s"), SPLIT) == expected
    assert [f"{len(expected)} of 3 novel classes" in message for message in caplog.messages] == [True] * bool(expected)


QUICK = Settings(memory_budget="2GiB", threads=2, device="cpu")


def write_classes(root, classes):
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8)).save(root / name / f"{i}.png")
    return str(root)


@pytest.mark.parametrize(("tests", "alone"), [("abd", "c; none"), ("abcde", "none; e"), ("abcx", "d; x"), ("abcd", None)])
def test_tests_of_other_classes_are_refused(tmp_path, tests, alone):
    """A class that the tests lack would move the numbers of all behind it."""
    store, options = tmp_path / "s", {"class_folders": True, "model": "pixels", "settings": QUICK}
    extract(write_classes(tmp_path / "train", "abcd"), store=store, **options)
    extract(write_classes(tmp_path / "tests", tests), store=store, role="tests", **options)
    reduce(store, dim=0, settings=QUICK)
    neighbors(store, k=3, settings=QUICK)
    graph(store, settings=QUICK)
    if alone is None:
        check_store(Store(store))
        return
    one, other = alone.split("; ")
    for door in (lambda: check_store(Store(store)), lambda: evaluate(store, n_per_class=[1], draws=1, settings=QUICK)):
        with pytest.raises(BadInput, match=f"{one} in background alone; {other} in tests alone"):
            door()
