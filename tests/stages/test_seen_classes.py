"""Novel classes that a network was trained on are told."""

import numpy as np
import pytest

from ooc_diffusion.evaluation import Group, Split
from ooc_diffusion.stages.seen_classes import seen_novel_classes
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
