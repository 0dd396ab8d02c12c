import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xxhash

from ooc_diffusion.errors import BadInput, CorruptStore, OocDiffusionError, StorageFailure
from ooc_diffusion.store import Store, Strings, append_strings, clean, status, verify
from ooc_diffusion.store.journal import Journal
from ooc_diffusion.store.npy import header
from ooc_diffusion.store.store import TEMPORARY

from .helpers import (
    CHUNK,
    LONG_ROWS,
    Interrupted,
    interrupted,
    long_stage,
    open_files,
    pair_violations,
    publish_pair,
    published_bytes,
    use_small_chunks,
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", create=True)


def put(store, stage, name, values, *, overwrite=False, inputs=(), **parameters):
    with store.job(stage, parameters=parameters, inputs=inputs, overwrite=overwrite) as job:
        if not job.published:
            job.put(name, values)
            job.publish({"stage": stage})
    return job


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i8", "<u4", "<i4", "<u2", "|u1", "|i1", "|b1", "<f2"])
@pytest.mark.parametrize("shape", [(1,), (700,), (0,), (0, 5), (513, 3), (40, 2, 5), (3, 0)])
def test_round_trip_through_plain_numpy(store, dtype, shape):
    values = np.random.default_rng(1).integers(0, 2 if dtype == "|b1" else 100, shape).astype(dtype)
    put(store, "make", "some/values", values)
    entry = store.entry("some/values")
    assert (entry.dtype, entry.shape, entry.stage) == (dtype, shape, "make")
    path = store.path / entry.file
    assert path.stat().st_size == entry.bytes == 128 + values.nbytes
    for found in (np.load(path, mmap_mode="r" if values.size else None), store.array("some/values")):
        assert found.dtype == values.dtype
        assert found.shape == shape
        np.testing.assert_array_equal(found, values)
    assert not store.array("some/values").flags.writeable
    data = values.tobytes()
    assert entry.checksums == [xxhash.xxh3_64_hexdigest(data[i : i + CHUNK]) for i in range(0, len(data), CHUNK)]
    assert verify(store, data=True) == ([], values.nbytes)


def test_header_is_the_one_of_numpy(tmp_path, store):
    values = np.arange(12, dtype="<f4").reshape(4, 3)
    put(store, "make", "values", values)
    data = (store.path / store.entry("values").file).read_bytes()
    expected = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3)}"
    assert data[:128] == expected.ljust(127) + b"\n"
    assert data[128:] == values.tobytes()
    with pytest.raises(ValueError, match="too long"):
        header(np.dtype("<f4"), (10**18,) * 6)


def test_bytes_and_checksums_do_not_depend_on_blocks(tmp_path):
    values = np.random.default_rng(2).standard_normal((2000, 3)).astype(np.float32)
    found = []
    for number, (blocks, rows) in enumerate([(1, 2000), (7, 2000), (341, None), (342, None), (1999, 2000), (5000, None)]):
        store = Store(tmp_path / str(number), create=True)
        with store.job("make", parameters={}) as job:
            writer = job.array("values", "<f4", (rows, 3))
            for first in range(0, 2000, blocks):
                writer.append(values[first : first + blocks])
                if number % 2:
                    job.checkpoint(now=True)
            job.publish({})
        found.append(published_bytes(store))
    assert all(one == found[0] for one in found)
    assert found[0]["values"][0][128:] == values.tobytes()
    assert len(found[0]["values"][1]) == -(-values.nbytes // CHUNK) == 6


def test_shape_may_be_given_in_numpy_integers(store):
    with store.job("make", parameters={}) as job:
        job.array("values", "<i8", (np.int64(3), np.int32(2))).append(np.arange(6).reshape(3, 2))
        job.publish({})
    assert store.array("values").tolist() == [[0, 1], [2, 3], [4, 5]]


def test_rows_that_do_not_fit_are_refused(store):
    with store.job("make", parameters={}) as job:
        writer = job.array("values", "<i8", (3, 2))
        with pytest.raises(TypeError, match=r"takes int64 \(2,\), not int32 \(2,\)"):
            writer.append(np.zeros((1, 2), np.int32))
        with pytest.raises(TypeError, match=r"not int64 \(3,\)"):
            writer.append(np.zeros((1, 3), np.int64))
        with pytest.raises(ValueError, match="more than its 3 rows"):
            writer.append(np.zeros((4, 2), np.int64))
        writer.append(np.ones((2, 2), np.int64))
        with pytest.raises(ValueError, match="has 2 of its 3 rows"):
            job.publish({})
    assert "values" not in store


@pytest.mark.parametrize(("name", "dtype"), [("with space", "<i8"), ("naïve", "<i8"), ("x", "<c16"), ("x", "<U3"), ("x", ">f4")])
def test_what_a_manifest_could_not_name_is_refused_before_it_is_written(store, name, dtype):
    with store.job("make", parameters={}) as job, pytest.raises(ValueError, match="that no stage writes"):
        job.array(name, dtype, (3,))
    assert Store(store.path).manifest.arrays == {}
    assert list((store.path / "data").iterdir()) == []


def test_scratch_arrays_vanish(store):
    with store.job("make", parameters={}) as job:
        scratch = job.array("scratch", "<i8", (None,), scratch=True)
        scratch.append(np.arange(1000))
        np.testing.assert_array_equal(scratch.view(), np.arange(1000))
        gone = job.array("gone", "<i8", (5,))
        job.drop("gone")
        assert not gone.path.exists()
        job.drop("never there")
        job.put("result", scratch.view() * 2)
        assert len(list((store.path / "data").iterdir())) == 2
        job.publish({})
    assert [path.name for path in (store.path / "data").iterdir()] == [store.entry("result").file.removeprefix("data/")]
    assert list(store.manifest.arrays) == ["result"]
    assert list((store.path / "jobs").iterdir()) == []
    assert store.array("result").sum() == 999 * 1000


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        use_small_chunks(patch.setattr)
        store = Store(tmp_path_factory.mktemp("whole") / "store", create=True)
        assert long_stage(store, block=100) is False
        return published_bytes(store)


@pytest.mark.parametrize("cuts", [[1], [60 * 25], [LONG_ROWS], [500, 990, 1010, 2990], list(range(1, LONG_ROWS, 111))])
def test_resume_ends_with_the_bytes_of_an_uninterrupted_run(store, uninterrupted, cuts):
    left, seen = list(cuts), []

    def cut(row):
        if left and row >= left[0]:
            left.pop(0)
            seen.append(row)
            raise Interrupted

    before = open_files()
    for _ in cuts:
        with interrupted():
            long_stage(Store(store.path), after_checkpoint=cut)
        assert "long/table" not in store
        (unfinished,) = status(store)["unfinished"]
        assert unfinished["stage"] == "long"
        assert unfinished["rows"]["long/table"] == min(seen[-1], LONG_ROWS)
    assert long_stage(Store(store.path)) is True
    assert len(seen) == len(cuts)
    assert open_files() == before
    assert published_bytes(store) == uninterrupted
    assert sorted(path.name for path in (store.path / "data").iterdir()) == sorted(
        entry.file.removeprefix("data/") for entry in store.manifest.arrays.values()
    )


def test_resume_goes_on_behind_the_last_checkpoint(store):
    with interrupted(), store.job("make", parameters={}) as job:
        writer = job.array("values", "<i8", (5000,))
        writer.append(np.arange(2000))
        job.checkpoint(now=True, step=7)
        writer.append(np.full(1000, -1))  # lost: nothing noted it
        job.checkpoint(step=8)  # passed over: two seconds are not over
        raise Interrupted
    with store.job("make", parameters={}) as job:
        assert (job.resumed, job.published, job.state) == (True, False, {"step": 7})
        writer = job.array("values", "<i8", (5000,))
        assert writer.rows == 2000
        np.testing.assert_array_equal(writer.view(), np.arange(2000))
        writer.append(np.arange(2000, 5000))
        job.publish({})
    np.testing.assert_array_equal(store.array("values"), np.arange(5000))
    assert verify(store, data=True)[0] == []


def test_an_array_made_anew_does_not_inherit_the_rows_of_the_dropped_one(store):
    with interrupted(), store.job("make", parameters={}) as job:
        job.array("values", "<i8", (400,)).append(np.arange(400))
        job.checkpoint(now=True)
        job.drop("values")
        job.array("values", "<i8", (400,))
        raise Interrupted
    assert status(store)["unfinished"] == [{"stage": "make", "rows": {}}]
    with store.job("make", parameters={}) as job:
        writer = job.array("values", "<i8", (400,))
        assert writer.rows == 0
        writer.append(np.arange(1000, 1400))
        job.publish({})
    assert store.array("values")[0] == 1000


def test_put_of_a_resumed_stage_gives_what_was_put_before(store):
    with interrupted(), store.job("make", parameters={}) as job:
        job.put("draw", np.array([3, 1, 2]))
        job.checkpoint(now=True)
        raise Interrupted
    with store.job("make", parameters={}) as job:
        assert job.put("draw", np.array([9, 9, 9])).tolist() == [3, 1, 2]
        job.publish({})


@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_what_differs_is_shown_and_refused(store, monkeypatch, state):
    put(store, "first", "input", np.arange(3))

    def run(**options):
        with store.job("make", parameters=parameters, inputs=["input"], **options) as job:
            if not job.published:
                job.put("values", np.arange(4) + parameters["k"])
                job.checkpoint(now=True)
                if state == "interrupted":
                    raise Interrupted
                job.publish({"k": parameters["k"]})
        return job

    def run_to_its_end(**options):
        if state == "finished":
            return run(**options)
        with interrupted():
            run(**options)
        return None

    parameters = {"k": 5, "metric": "l2", "layers": (1, 2)}
    run_to_its_end()
    assert state == "interrupted" or run().published  # a tuple is the same as the list that JSON makes of it
    parameters = {"k": 6, "metric": "l2", "layers": (1, 2)}
    with pytest.raises(BadInput, match=rf"stage make in .* was {state} with k = 5 \(now 6\); .*--overwrite"):
        run()
    parameters = {"k": 5, "layers": (1, 2), "new": True}
    with pytest.raises(BadInput, match=r"metric = l2 \(now None\), new = None \(now True\)"):
        run()
    parameters = {"k": 5, "metric": "l2", "layers": (1, 2)}
    monkeypatch.setattr("ooc_diffusion.__version__", "77.3.1")
    with pytest.raises(BadInput, match=r"version \S+ \(now 77\.3\)"):
        run()
    monkeypatch.undo()
    use_small_chunks(monkeypatch.setattr)
    put(store, "first", "input", np.arange(4), overwrite=True, changed=True)
    with pytest.raises(BadInput, match=f"was {state} with another input"):
        run()
    parameters = {"k": 8, "metric": "l2", "layers": (1, 2)}
    run_to_its_end(overwrite=True)
    if state == "finished":
        assert store.array("values").tolist() == [8, 9, 10, 11]
        assert store.parameters("make") == {"k": 8, "metric": "l2", "layers": [1, 2]}
        assert store.record("make") == {"k": 8}
    else:
        assert "values" not in store
        assert len(list((store.path / "data").glob("values.*"))) == 1


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("0" * 32, "1" * 32, "with other k; give the same"),
        ("0" * 32, None, f"k = {'0' * 32} \\(now None\\)"),
        ([1, 2], [1, 3], r"k = \[1, 2\] \(now \[1, 3\]\)"),
        (list(range(11)), list(range(6, 12)), r"k with 0, 1, 2, 3, 2 more \(now with 11\)"),
        (list(range(11)), list(range(12)), r"k with none of these \(now with 11\)"),
        (list(range(11)), list(range(11))[::-1], r"k = \[0, 1, .* \(now \[10, 9, "),
    ],
)
def test_long_lists_and_digests_that_differ_are_shown_in_short(store, old, new, shown):
    put(store, "make", "a", np.zeros(1), k=old)
    with pytest.raises(BadInput, match=shown):
        put(store, "make", "a", np.zeros(1), k=new)


def test_identical_rerun_is_published_at_once(store):
    put(store, "make", "values", np.arange(3), k=1)
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file() and path.name != "lock"}
    for overwrite in (False, True):
        job = put(store, "make", "values", np.arange(9), overwrite=overwrite, k=1)
        assert job.published
        assert job.record == {"stage": "make"}
    assert {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file() and path.name != "lock"} == before


def test_overwrite_keeps_the_old_result_until_the_new_is_there(store):
    put(store, "make", "values", np.arange(3), k=1)
    with interrupted(), store.job("make", parameters={"k": 2}, overwrite=True) as job:
        job.put("values", np.arange(3) + 10)
        job.put("more", np.arange(2))
        job.checkpoint(now=True)
        raise Interrupted
    assert store.array("values").tolist() == [0, 1, 2]
    with pytest.raises(BadInput, match=r"was finished with k = 1 \(now 2\)"):
        put(store, "make", "values", np.arange(3), k=2)
    with store.job("make", parameters={"k": 2}, overwrite=True) as job:
        assert job.resumed
        assert job.put("values", np.arange(3)).tolist() == [10, 11, 12]
        job.publish({})
    assert store.array("values").tolist() == [10, 11, 12]
    put(store, "make", "values", np.arange(1), overwrite=True, k=3)
    assert list(store.manifest.arrays) == ["values"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_overwrite_makes_a_damaged_result_anew(store, damage):
    put(store, "make", "values", np.arange(3000), k=1)
    path = store.path / store.entry("values").file
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        os.truncate(path, 5000)
    else:
        flip(path, 9000, 3)
    assert len(verify(store, data=True)[0]) == 1
    assert not put(store, "make", "values", np.arange(3000), overwrite=True, k=1).resumed
    assert verify(store, data=True) == ([], 24000)
    np.testing.assert_array_equal(store.array("values"), np.arange(3000))


@pytest.mark.parametrize("damage", ["remove", "truncate", "flip"])
def test_interrupted_work_that_is_damaged_is_refused_and_overwrite_starts_anew(store, damage):
    with interrupted(), store.job("make", parameters={}) as job:
        job.array("values", "<i8", (None,)).append(np.arange(1100))  # two full chunks and 608 bytes
        job.checkpoint(now=True)
        raise Interrupted
    (path,) = (store.path / "data").iterdir()
    size = path.stat().st_size
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        os.truncate(path, size - 1)
    else:
        flip(path, 128 + 2 * CHUNK - 1, 0)
    with pytest.raises(CorruptStore, match=f"{path}.*--overwrite"), store.job("make", parameters={}):
        pass
    assert damage != "truncate" or path.stat().st_size == size - 1
    with store.job("make", parameters={}, overwrite=True) as job:
        assert not job.resumed
        assert job.array("values", "<i8", (None,)).rows == 0
        job.put("values", np.arange(7))
        job.publish({})
    assert store.array("values").tolist() == list(range(7))
    assert [entry.name for entry in (store.path / "data").iterdir()] == [store.entry("values").file.removeprefix("data/")]


def test_outdated_inputs_are_refused_through_all_stages(store):
    put(store, "first", "a", np.arange(3), v=1)
    put(store, "second", "b", np.arange(4), inputs=["a"])
    put(store, "third", "c", np.arange(5), inputs=["b"])
    put(store, "fourth", "d", np.arange(6), inputs=["c"])
    assert [stage["outdated"] for stage in status(store)["stages"]] == [[], [], [], []]
    put(store, "first", "a", np.arange(3) + 1, overwrite=True, v=2)
    assert {stage["stage"]: stage["outdated"] for stage in status(store)["stages"]} == {
        "first": [],
        "second": ["a"],
        "third": ["b"],
        "fourth": ["c"],
    }
    with pytest.raises(BadInput, match=r"b in .* was made from an earlier a; run stage second again with --overwrite"):
        put(store, "third", "c", np.arange(5), inputs=["b"], overwrite=True)
    with pytest.raises(BadInput, match="run stage fourth again"):
        put(store, "fifth", "e", np.arange(5), inputs=["d"])
    put(store, "first", "a", np.arange(3), overwrite=True, v=3)  # the content that they were made from
    assert store.outdated("fourth") == []
    with pytest.raises(BadInput, match="has no array 'nothing'"):
        put(store, "fifth", "e", np.arange(5), inputs=["nothing"])


def flip(path, position, bit):
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ (1 << bit)]))


NAMES = ["a/b/c.jpg", "a/b.jpg", "a/bä.jpg", os.fsdecode(b"a/\xff\xfe.jpg"), "a/with\nnewline", "z", "", "a/𝒳.png", "é/1"]


def test_strings(store):
    from ooc_diffusion.store.strings import path_key

    names = sorted(NAMES, key=lambda name: path_key(os.fsencode(name)))
    with store.job("scan", parameters={}) as job:
        append_strings(job, "path", names[:4])
        append_strings(job, "path", [])
        append_strings(job, "path", names[4:])
        encoded = [b"x", b"", b"zz\xff"]
        pair = np.frombuffer(b"".join(encoded), np.uint8), np.array([len(name) for name in encoded])
        append_strings(job, "other", pair)
        append_strings(job, "none", [])
        job.publish({})
    strings = Strings.open(store, "path")
    assert list(strings) == names
    assert len(strings) == len(names)
    assert [strings.find(name) for name in names] == list(range(len(names)))
    assert [strings.find(name) for name in ("a", "a/b/c.jp", "zz", "a/b/c.jpgx", "\n")] == [-1] * 5
    assert [os.fsencode(name) for name in Strings.open(store, "other")] == encoded
    assert len(Strings.open(store, "none")) == 0
    assert Strings.open(store, "none").find("x") == -1
    for name in ("path_bytes", "path_offsets"):
        np.testing.assert_array_equal(np.load(store.path / store.entry(name).file), store.array(name))


def test_strings_resume(store):
    names = [f"folder/{i:05d}.jpg" * (i % 5 + 1) for i in range(2000)]
    with interrupted(), store.job("scan", parameters={}) as job:
        append_strings(job, "path", names[:777])
        job.checkpoint(now=True)
        append_strings(job, "path", names[777:900])
        raise Interrupted
    with store.job("scan", parameters={}) as job:
        assert job.array("path_offsets", "<i8", (None,)).rows == 778
        append_strings(job, "path", names[777:])
        job.publish({})
    assert list(Strings.open(store, "path")) == names


def test_readers_keep_their_arrays_while_the_writer_publishes_and_cleans(store):
    publish_pair(store, 1)
    a, b = store.arrays("a", "b")
    publish_pair(store, 2)
    removed = clean(store).files
    assert len(removed) == 3  # two arrays and the copy of their manifest
    assert (np.unique(a).tolist(), np.unique(b).tolist()) == ([1], [2])
    assert store.array("a")[0] == 2


def test_arrays_are_of_one_generation_though_a_writer_comes_between(store, monkeypatch):
    from ooc_diffusion.store import store as module

    publish_pair(store, 1)
    real, calls = module.open_array, []

    def open_while_a_writer_publishes(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            publish_pair(Store(store.path), 2)
            clean(Store(store.path))
        return real(*arguments)

    monkeypatch.setattr(module, "open_array", open_while_a_writer_publishes)
    a, b = Store(store.path).arrays("a", "b")
    assert len(calls) == 4
    assert (a[0], b[0]) == (2, 3)


def test_opening_what_is_no_store(tmp_path):
    with pytest.raises(BadInput, match=r"holds no store; run `ooc-diffusion extract`"):
        Store(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="is a file, but a store is a folder"):
        Store(tmp_path / "file", create=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_text("x")
    with pytest.raises(BadInput, match="other files in it"):
        Store(tmp_path / "full", create=True)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["photo.jpg"]
    store = Store(tmp_path / "deep" / "store", create=True)
    assert store.manifest.arrays == {}
    for call in (store.array, store.record, store.parameters, store.entry):
        with pytest.raises(BadInput, match="'nothing'"):
            call("nothing")


def test_temporary_store_goes_with_its_object(tmp_path):
    store = Store.temporary(inside=tmp_path)
    put(store, "make", "values", np.arange(3))
    values = store.array("values")
    del store
    assert list(tmp_path.iterdir()) == []
    assert values.tolist() == [0, 1, 2]


def test_require_space(store, monkeypatch):
    from ooc_diffusion.errors import NoSpace

    free = os.statvfs(store.path)
    with store.job("make", parameters={}) as job:
        job.reserve(1000)
        with pytest.raises(NoSpace, match=rf"{store.path} needs .* of disk but has .* free") as error:
            job.reserve(free.f_blocks * free.f_frsize * 2)
        assert error.value.exit_code == 6


def test_status_names_stages_and_unfinished_work(store):
    put(store, "make", "values", np.zeros((600, 2), np.float32), k=1)
    with interrupted(), store.job("next", parameters={}, inputs=["values"]) as job:
        job.array("rows", "<i8", (None,)).append(np.arange(10))
        job.checkpoint(now=True)
        raise Interrupted
    assert status(store) == {
        "store": str(store.path),
        "generation": 1,
        "stages": [
            {"stage": "make", "arrays": {"values": [600, 2]}, "bytes": 4928, "parameters": {"k": 1}, "outdated": []},
        ],
        "unfinished": [{"stage": "next", "rows": {"rows": 10}}],
        "temporary": [],
    }


def test_status_names_temporary_stores_and_clean_removes_the_abandoned(store):
    alive = Store.temporary(inside=store.path / "jobs")
    dead = store.path / "jobs" / f"{TEMPORARY}dead"
    Store(dead, create=True)
    names = sorted(str(path.relative_to(store.path)) for path in (alive.path, dead))
    assert status(store)["temporary"] == names
    with alive.lock:
        clean(store)
    assert status(store)["temporary"] == [str(alive.path.relative_to(store.path))]


@pytest.mark.parametrize("there", [False, True])
def test_a_store_in_which_nothing_began_is_taken_away_again(tmp_path, there):
    path = tmp_path / "s"
    if there:
        path.mkdir()
    with interrupted(), Store.writing(path) as store:
        assert store.lock.held
        raise Interrupted
    assert path.exists() == there
    with interrupted(), Store.writing(path) as store, store.job("next", parameters={}) as job:
        job.array("rows", "<i8", (None,)).append(np.arange(10))
        job.checkpoint(now=True)
        raise Interrupted
    assert status(Store(path))["unfinished"] == [{"stage": "next", "rows": {"rows": 10}}]
    with interrupted(), Store.writing(path):
        raise Interrupted
    assert status(Store(path))["unfinished"] == [{"stage": "next", "rows": {"rows": 10}}]


def test_clean_removes_what_nothing_names_and_nothing_else(store):
    for generation in (1, 2, 3):
        publish_pair(store, generation)
    with interrupted(), store.job("next", parameters={}) as job:
        job.array("rows", "<i8", (None,)).append(np.arange(10))
        job.checkpoint(now=True)
        raise Interrupted
    for orphan in ("data/orphan.0123456789ab.npy", ".manifest.json.0123abcd.tmp", "generations/.x.tmp", "jobs/.y.tmp"):
        (store.path / orphan).write_bytes(b"x" * 5000)
    (store.path / "notes.txt").write_text("of the user")
    before = sorted(path for path in store.path.rglob("*"))
    dry = clean(store, dry_run=True)
    assert sorted(path for path in store.path.rglob("*")) == before
    assert len(dry.files) == 4 + 4 + 2  # two old pairs, the orphans, two old copies
    assert dry.bytes >= 4 * 12000
    assert clean(store) == dry
    gone = {str(path.relative_to(store.path)) for path in before if not path.exists()}
    assert gone == set(dry.files)
    assert pair_violations(store.path, at_least=3) == ([], 3)
    assert status(store)["unfinished"] == [{"stage": "next", "rows": {"rows": 10}}]
    more = clean(store, unfinished=True).files
    assert sorted(file.split(".")[0] for file in more) == ["data/rows", "jobs/next"]
    assert pair_violations(store.path, at_least=3) == ([], 3)
    assert (store.path / "notes.txt").exists()
    assert clean(store).files == []


def test_clean_never_removes_what_the_manifest_names(tmp_path):
    draw = random.Random(5)
    store = Store(tmp_path / "store", create=True)
    for _ in range(40):
        stage = draw.choice("pqr")
        with interrupted(), store.job(stage, parameters={"v": draw.random()}, overwrite=True) as job:
            job.put(f"{stage}/values", np.arange(draw.randrange(900)))
            job.checkpoint(now=True)
            if draw.random() < 0.6:
                job.publish({})
            raise Interrupted
        clean(store, unfinished=draw.random() < 0.5)
        assert verify(store, data=True)[0] == []
    assert {file.name for file in (store.path / "data").iterdir()} >= {
        entry.file.removeprefix("data/") for entry in store.manifest.arrays.values()
    }


def test_a_published_job_whose_journal_stayed_behind(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ooc_diffusion.store.job.Job._remove_leftovers", lambda job, keep: None)
        with store.job("make", parameters={}) as job:
            job.array("scratch", "<i8", (9,), scratch=True)
            job.put("values", np.arange(3))
            job.publish({})
    assert status(store)["unfinished"] == []
    assert len(clean(store, dry_run=True).files) == 2
    job = put(store, "make", "values", np.arange(5))
    assert job.published
    assert store.array("values").tolist() == [0, 1, 2]
    assert list((store.path / "jobs").iterdir()) == []
    assert len(list((store.path / "data").iterdir())) == 1


def test_after_a_failed_sync_nothing_of_the_job_is_trusted(store, monkeypatch):
    publish_pair(store, 1)
    calls = []

    def fail(fd):
        calls.append(fd)
        raise OSError(5, "Input/output error")

    with store.job("make", parameters={}) as job:
        job.array("values", "<i8", (100,)).append(np.arange(100))
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StorageFailure, match=r"syncing .*Input/output error") as error:
            job.checkpoint(now=True)
    monkeypatch.undo()
    assert len(calls) == 1  # never tried again
    assert error.value.exit_code == 8
    assert list((store.path / "jobs").iterdir()) == []
    assert list((store.path / "data").glob("values*")) == []


def test_everything_is_synced_before_anything_names_it(store, monkeypatch):
    """A kill proves nothing about a power failure: what counts there is the order of the calls."""
    unsynced, unsynced_names, seen = set(), set(), Counter()
    real = {name: getattr(os, name) for name in ("pwrite", "fsync", "ftruncate")}

    def name_of(fd):
        return Path(f"/proc/self/fd/{fd}").readlink()

    def writes(call):
        def write(fd, *arguments):
            path = name_of(fd)
            if path.suffix == ".journal":
                assert not unsynced - {path}, "the journal names rows that are not synced"
                assert store.path / "data" not in unsynced_names, "the journal names a file whose name is not synced"
                seen["journal"] += 1
            if path.name != "lock":
                unsynced.add(path)
            return real[call](fd, *arguments)

        return write

    def fsync(fd):
        path = name_of(fd)
        unsynced.discard(path)
        unsynced_names.discard(path)
        seen["fsync"] += 1
        return real["fsync"](fd)

    def replace(path, target):
        assert not unsynced, "the manifest names what is not synced"
        assert not unsynced_names
        unsynced_names.add(target.parent)
        seen["replace"] += 1
        return real_replace(path, target)

    real_open, real_replace = os.open, Path.replace

    def opened(path, flags, *arguments, **options):
        if flags & os.O_CREAT and Path(path).suffix == ".npy":
            unsynced_names.add(Path(path).parent)
        return real_open(path, flags, *arguments, **options)

    for call in ("pwrite", "ftruncate"):
        monkeypatch.setattr(os, call, writes(call))
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(Path, "replace", replace)
    publish_pair(store, 1)
    monkeypatch.undo()
    assert unsynced == unsynced_names == set()
    assert seen["journal"] >= 5  # two declarations, three checkpoints
    assert seen["replace"] == 3  # the journal, the copy of the manifest, the manifest
    assert seen["fsync"] >= 18
    use_small_chunks(monkeypatch.setattr)
    assert pair_violations(store.path, at_least=1) == ([], 1)


def test_journal_is_cut_at_its_first_bad_line(tmp_path):
    path = tmp_path / "x.journal"
    journal = Journal.create(path, {"id": "1"})
    for i in range(5):
        journal.append({"i": i, "text": "ä\n\r\x1c"})
    journal.close()
    whole = path.read_bytes()
    assert whole.count(b"\n") == 6
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        read = Journal.read(path)
        n = sum(end <= cut for end in ends)
        assert (read is None) == (n == 0)
        assert read is None or (len(read.lines) == n and not read.damaged)
    path.write_bytes(whole[: ends[2]] + b"torn" * 100)
    journal = Journal.read(path)
    journal.append({"i": "new"})
    journal.close()
    assert [line.get("i") for line in Journal.read(path).lines] == [None, 0, 1, "new"]
    assert path.read_bytes()[: ends[2]] == whole[: ends[2]]
    assert json.loads(path.read_bytes().splitlines()[-1].split(b" ", 1)[1]) == {"i": "new"}


def test_errors_are_also_the_builtin_that_a_caller_expects(store):
    with pytest.raises(ValueError, match="no array"):
        store.array("x")
    assert issubclass(StorageFailure, OSError)
    assert issubclass(CorruptStore, OocDiffusionError)


def test_a_copy_of_a_store_is_a_store(store, tmp_path):
    publish_pair(store, 4)
    shutil.copytree(store.path, tmp_path / "copy")
    assert pair_violations(tmp_path / "copy", at_least=4) == ([], 4)


def test_clean_removes_what_a_killed_process_left_and_not_what_a_living_one_writes(tmp_path):
    store = Store(tmp_path / "s", create=True)
    living, dead = Store.temporary(inside=store.path / "jobs"), Store.temporary(inside=store.path / "jobs")
    with living.job("work", parameters={}) as job:
        job.put("a", np.arange(3))
        removed = clean(store).files
        assert removed == [f"jobs/{dead.path.name}"]
        assert not dead.path.exists()
        job.publish({})
    assert living.array("a").tolist() == [0, 1, 2]


def test_what_a_caller_does_to_a_record_is_never_published(tmp_path):
    store = Store(tmp_path / "s", create=True)
    with store.job("first", parameters={"of": [1]}) as job:
        job.put("first/values", np.arange(3))
        job.publish({"found": {"n": 3}})
    store.record("first")["found"]["n"] = 4
    store.parameters("first")["of"].append(2)
    with store.job("first", parameters={"of": [1]}) as job:
        job.record["found"]["n"] = 5
    with store.job("second", parameters={}) as job:
        job.put("second/values", np.arange(3))
        job.publish({})
    for seen in (store, Store(store.path)):
        assert seen.record("first") == {"found": {"n": 3}}
        assert seen.parameters("first") == {"of": [1]}


def test_of_a_temporary_store_only_large_arrays_are_synced(monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.path.realpath(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    store = Store.temporary()
    synced.clear()
    with store.job("made", parameters={}) as job:
        small = job.put("small", np.zeros(CHUNK // 8 - 1))
        large = job.put("large", np.ones(CHUNK // 8))
        job.checkpoint(now=True)
        job.publish({})
    assert {Path(path).name.split(".")[0] for path in synced} == {"large"}
    assert small.sum() == 0
    assert large.sum() == len(large)
    store.durable = True
    with store.job("again", parameters={}) as job:
        job.put("other", np.zeros(1))
        job.publish({})
    assert {Path(path).name.split(".")[0] for path in synced} > {"large", "other", "data", "again"}


def test_a_manifest_as_it_was_written_before_is_read_and_replaced(store):
    put(store, "first", "first/values", np.arange(4))
    path = store.path / "manifest.json"
    indented = json.dumps(json.loads(path.read_bytes()), indent=1)
    assert indented != path.read_text()
    for file in (path, store.path / "generations" / f"{store.manifest.generation:08d}.json"):
        file.write_text(indented)
    again = Store(store.path)
    assert again.manifest == store.manifest
    assert verify(again, data=True)[0] == []
    with again.job("next", parameters={}) as job:
        job.put("next/values", np.arange(3))
        job.publish({})
    assert path.read_bytes() == again.manifest.encode()
