import json

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.evaluation import Group, random_split, read_split, write_split

PARTS = {"base_classes_1": [4, 0], "novel_classes_1": [2], "base_classes_2": [1], "novel_classes_2": [5, 3]}
NAMES = ["a", "b", "c", "d", "é", "f"]


def write(path, **parts):
    path.write_text(json.dumps(parts))
    return path


def test_the_public_layout_is_read_in_its_order(tmp_path):
    unions = {"base_classes": [0, 1, 4], "novel_classes": [5, 3, 2], "label_names": NAMES}
    split = read_split(write(tmp_path / "s.json", **PARTS, **unions), n_classes=6)
    assert [group.classes.tolist() for group in split.groups] == [[4, 0, 2], [1, 5, 3]]
    assert [len(group.base) for group in split.groups] == [2, 1]


def test_numbers_that_count_from_one_are_places_in_the_names_beside_them(tmp_path):
    """The public file counts from 1, the labels of its descriptors from 0, and its names are in an order of their own."""
    public = {key: [c + 1 for c in part] for key, part in PARTS.items()}
    public |= {"base_classes": [1, 2, 5], "novel_classes": [3, 4, 6], "label_names": NAMES}
    file = write(tmp_path / "label_idx.json", **public)
    assert read_split(file, n_classes=6).as_json() == PARTS
    folders = NAMES[::-1]
    assert read_split(file, n_classes=6, class_names=folders).as_json(folders) == {
        key: [NAMES[c] for c in part] for key, part in PARTS.items()
    }
    with pytest.raises(BadInput, match="7 in base_classes_1 is none of the 6 classes"):
        read_split(write(tmp_path / "a.json", **{**public, "base_classes_1": [7, 6]}), n_classes=6)
    with pytest.raises(BadInput, match="'f' in novel_classes_2 is none of the 5 classes"):
        read_split(file, n_classes=5, class_names=NAMES[:5])


@pytest.mark.parametrize(("first", "last"), [(0, 6), (1, 5)])
def test_numbers_that_may_count_from_zero_or_from_one_are_refused(tmp_path, first, last):
    parts = {"base_classes_1": [4], "novel_classes_1": [first], "base_classes_2": [2], "novel_classes_2": [last, 3]}
    with pytest.raises(BadInput, match="may be places in label_names from 0 or from 1 on"):
        read_split(write(tmp_path / "s.json", **parts, label_names=NAMES), n_classes=6)


def test_names_stand_for_their_classes(tmp_path):
    named = {key: [NAMES[c] for c in part] for key, part in PARTS.items()}
    split = read_split(write(tmp_path / "s.json", **named), n_classes=6, class_names=NAMES)
    assert split.as_json() == PARTS
    write_split(tmp_path / "t.json", split, class_names=NAMES)
    assert json.loads((tmp_path / "t.json").read_text()) == named
    write_split(tmp_path / "u.json", split)
    assert read_split(tmp_path / "u.json", n_classes=6).as_json() == PARTS


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({**PARTS, "novel_classes_2": [5, 4]}, "class 4 is in base_classes_1 and in novel_classes_2"),
        ({**PARTS, "base_classes_1": [4, 4]}, "class 4 is in base_classes_1 and in base_classes_1"),
        ({**PARTS, "base_classes_1": [6]}, "6 in base_classes_1 is none of the 6 classes"),
        ({**PARTS, "base_classes_1": [-1]}, "-1 in base_classes_1"),
        ({**PARTS, "base_classes_1": [True]}, "True in base_classes_1"),
        ({**PARTS, "base_classes_1": [1.0]}, "1.0 in base_classes_1"),
        ({**PARTS, "base_classes_1": ["a"]}, "'a' in base_classes_1 is none"),
        ({**PARTS, "base_classes_1": []}, "has no list base_classes_1"),
        ({key: part for key, part in PARTS.items() if key != "novel_classes_1"}, "has no list novel_classes_1"),
        ({**PARTS, "base_classes": [0, 4]}, "base_classes is not the union"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, parts, message):
    with pytest.raises(BadInput, match=message):
        read_split(write(tmp_path / "s.json", **parts), n_classes=6)


def test_files_that_are_no_split(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_bytes(b"\xff\xfe no")
    for name, message in (("none", "cannot be read"), ("list.json", "holds no object"), ("text.json", "is no JSON")):
        with pytest.raises(BadInput, match=message):
            read_split(tmp_path / name, n_classes=6)


@pytest.mark.parametrize("n", [4, 5, 10, 57, 1000])
def test_a_random_split_has_each_class_once_in_the_proportions_of_the_paper(n):
    parts = [part for group in random_split(n, seed=3).groups for part in (group.base, group.novel)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert all(np.all(np.diff(part) > 0) for part in parts)
    lengths = np.array([len(part) for part in parts])
    assert lengths.min() >= 1
    assert np.abs(lengths - n * np.array([0.193, 0.300, 0.196, 0.311])).max() <= 1
    assert random_split(n, seed=3).as_json() == random_split(n, seed=3).as_json()
    assert n == 4 or random_split(n, seed=3).as_json() != random_split(n, seed=4).as_json()


def test_too_few_classes_are_refused():
    with pytest.raises(BadInput, match="3 classes cannot be split"):
        random_split(3, seed=0)


def test_columns_are_places_among_the_classes_of_the_group():
    group = Group(np.array([7, 2]), np.array([5]))
    np.testing.assert_array_equal(group.columns(np.array([5, 2, 7, 0, -1, 9])), [2, 1, 0, -1, -1, -1])
    np.testing.assert_array_equal(group.columns(np.array([2, 2])), [1, 1])
