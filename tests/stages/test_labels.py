"""Labels of images that could not be read."""

import logging

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.stages.labels import read_labels, readable_labels
from ooc_diffusion.store import Store


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "s", create=True)
    with made.job("extract.background", parameters={}) as job:
        job.put("background/descriptors", np.zeros((9, 2), np.float32))
        job.put("background/failed_rows", np.array([2, 5, 7]))
        job.publish({})
    return made


def test_unreadable_images_are_no_seeds_and_are_told(store, tmp_path, caplog):
    (tmp_path / "few.csv").write_text("row,label\n5,b\n1,a\n7,a\n4,b\n3,\n8,-1\n")
    with caplog.at_level(logging.WARNING, logger="ooc_diffusion"):
        given = readable_labels(read_labels(tmp_path / "few.csv", store), store, "few.csv")
    assert given.rows.tolist() == [1, 4]
    assert [given.class_names[c] for c in given.classes] == ["a", "b"]
    assert [record.getMessage() for record in caplog.records] == [
        "few.csv: 2 lines without a label (empty or -1) are left out",
        "few.csv: 2 labelled images could not be read and are left out",
    ]


def test_a_class_whose_images_are_all_unreadable_is_refused(store, tmp_path):
    (tmp_path / "few.csv").write_text("row,label\n5,b\n1,a\n")
    with pytest.raises(BadInput, match=r"few\.csv: no labelled image of class 'b' could be read \(row 5\); label another one"):
        readable_labels(read_labels(tmp_path / "few.csv", store), store, "few.csv")
