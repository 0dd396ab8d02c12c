"""Longer arrays in place of those that other stages had made: what was made from them is outdated, and nothing else."""

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput
from ooc_diffusion.store import Store, clean, status, verify


@pytest.fixture
def store(tmp_path):
    """``a`` is read by ``b``, ``b`` by ``c``; ``more`` is to be added to ``a`` and ``b``."""
    store = Store(tmp_path / "s", create=True)
    for name, inputs in (("a", ()), ("b", ("a",)), ("c", ("b",)), ("more", ())):
        with store.job(f"make.{name}", parameters={"of": name}, inputs=inputs) as job:
            job.put(name, np.arange(3))
            job.publish({"rows": 3})
    return store


def extend(store, *, publish=True):
    options = {"parameters": {"of": "b", "added": 3}, "inputs": ["a", "b", "more"], "extends": True}
    with store.job("make.b", **options) as job:
        for name in ("a", "b", "extra"):
            job.put(name, np.arange(6))
        job.put("scratch", np.arange(2), scratch=True)
        job.checkpoint(now=True)
        if publish:
            records = {"make.a": {"rows": 6}}
            job.extend({"rows": 6, "added": 3}, owners={"a": "make.a", "extra": "make.a"}, records=records, retired=["make.more"])
        return job


def test_the_stages_stay_and_their_readers_are_outdated(store):
    parameters = store.parameters("make.b")
    assert not extend(store).resumed
    assert {name: entry.stage for name, entry in store.manifest.arrays.items()} == {
        "a": "make.a",
        "b": "make.b",
        "c": "make.c",
        "extra": "make.a",
    }
    assert [len(store.array(name)) for name in ("a", "b", "c", "extra")] == [6, 6, 3, 6]
    assert [store.record(f"make.{name}") for name in "abc"] == [{"rows": 6}, {"rows": 6, "added": 3}, {"rows": 3}]
    assert store.parameters("make.b") == parameters
    assert {made["stage"]: made["outdated"] for made in status(store)["stages"]} == {"make.a": [], "make.b": [], "make.c": ["b"]}
    for name, inputs in (("a", ()), ("b", ("a",))):
        with store.job(f"make.{name}", parameters={"of": name}, inputs=inputs) as job:
            assert job.published
    assert (verify(store, data=True)[0], status(store)["unfinished"]) == ([], [])
    assert len([name for name in clean(store).files if name.startswith("data/")]) == 3
    assert verify(store, data=True)[0] == []


def test_an_interrupted_extension_goes_on_and_stands_in_the_way_of_another_run(store):
    extend(store, publish=False)
    with (
        pytest.raises(BadInput, match=r"was interrupted with added = 3 \(now None\)"),
        store.job("make.b", parameters={"of": "b"}, inputs=["a"]),
    ):
        pass
    assert len(store.array("b")) == 3
    assert extend(store).resumed
    assert len(store.array("b")) == 6


def test_an_interrupted_extension_can_be_given_up(store):
    extend(store, publish=False)
    with store.job("make.b", parameters={"of": "b"}, inputs=["a"], overwrite=True) as job:
        assert job.published  # what was there is as it was
    assert (list(store.path.glob("jobs/*")), len(store.array("b"))) == ([], 3)
    assert not extend(store).resumed


def test_killed_between_publishing_and_removing_the_journal(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ooc_diffusion.store.job.Job._remove_leftovers", lambda job, keep: job.close())
        extend(store)
    assert status(store)["unfinished"] == []
    with store.job("make.b", parameters={"of": "b"}, inputs=["a"]) as job:
        assert job.published
    assert list(store.path.glob("jobs/*")) == []
