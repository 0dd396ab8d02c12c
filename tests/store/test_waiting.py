"""Two writers of one store, of which the second waits for the first; and files that go while they are taken."""

import sys
import threading
import time

import numpy as np
import pytest

from ooc_diffusion.errors import StoreLocked
from ooc_diffusion.store import Store, adopt, clean
from ooc_diffusion.store.adopt import _take


def held(path):
    """A store whose lock another object holds, as another process would, until its event is set; and the thread."""
    taken, leave = threading.Event(), threading.Event()

    def hold():
        with Store(path).lock:
            taken.set()
            leave.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(20)
    return leave, thread


def test_who_waits_gets_the_lock_when_it_is_free_and_says_for_whom(tmp_path, caplog):
    store = Store(tmp_path / "s", create=True)
    leave, thread = held(store.path)
    with pytest.raises(StoreLocked, match="is being written by another process"), store.lock:
        pass
    threading.Timer(0.3, leave.set).start()
    started = time.monotonic()
    with store.lock.waiting():
        waited = time.monotonic() - started
        assert store.lock.held
        with store.lock, store.lock.waiting():  # it may be taken again
            pass
        assert store.lock.held
        with pytest.raises(StoreLocked), Store(store.path).lock:
            pass
    assert not store.lock.held
    assert waited >= 0.25
    (message,) = caplog.messages
    assert message.startswith(f"{store.path} is being written by another process")
    assert message.endswith("waiting for it")
    thread.join()


def test_many_that_make_one_store_at_once_all_have_it(tmp_path):
    failed, barrier = [], threading.Barrier(8)

    def make():
        barrier.wait()
        try:
            assert Store(tmp_path / "s", create=True).manifest.generation == 0
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def publish(store, value, *, width=3):
    with store.job("table", parameters={"value": value, "width": width}, overwrite=True) as job:
        job.put("table", np.full((4, width), value))
        job.publish({})


def test_files_that_another_process_replaces_meanwhile_are_taken_as_they_are_now(tmp_path, monkeypatch):
    source, target = Store(tmp_path / "source", create=True), Store(tmp_path / "target", create=True)
    publish(source, 1)
    calls = []

    def replaced_first(given, file):
        if not calls:
            publish(source, 2, width=5)
            clean(source)
        calls.append(given)
        _take(given, file)

    monkeypatch.setattr(sys.modules["ooc_diffusion.store.adopt"], "_take", replaced_first)
    adopt(target, source, ["table"])
    assert len(calls) == 2
    np.testing.assert_array_equal(target.array("table"), np.full((4, 5), 2))
    assert target.parameters("table") == {"value": 2, "width": 5}


def test_files_that_are_lost_are_an_error(tmp_path):
    source, target = Store(tmp_path / "source", create=True), Store(tmp_path / "target", create=True)
    publish(source, 1)
    (source.path / source.entry("table").file).unlink()
    with pytest.raises(FileNotFoundError):
        adopt(target, source, ["table"])


def test_what_is_taken_twice_stays_as_it_is(tmp_path):
    """The files are links: to write into one would change the other store."""
    source, target = Store(tmp_path / "source", create=True), Store(tmp_path / "target", create=True)
    publish(source, 1)
    for _ in range(2):
        adopt(target, source, ["table"])
    assert (source.path / source.entry("table").file).samefile(target.path / target.entry("table").file)
    np.testing.assert_array_equal(source.array("table"), np.full((4, 3), 1))
