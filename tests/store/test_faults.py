"""Processes killed, files damaged, disks full: what a reader finds is the old or the new, or an error with a name."""

import contextlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ooc_diffusion.errors import BadInput, CorruptStore, NoSpace, StorageFailure, StoreLocked
from ooc_diffusion.store import Store, clean, status, verify
from ooc_diffusion.store.manifest import checksum, text_of

from . import child
from .helpers import CHUNK, ROWS, long_stage, pair_violations, publish_pair, published_bytes, use_small_chunks

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def forks():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.store.child"])
    return context


def kill_after(context, target, arguments, seconds):
    """Start a writer, kill it ``seconds`` after it began, and return what it had said and whether the kill hit it alive."""
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*arguments[:1], writer, *arguments[1:]))
    process.start()
    writer.close()
    said = []
    try:
        said.append(reader.recv())
        process.join(seconds)
    except EOFError:
        pass
    hit = process.exitcode is None
    process.kill()
    process.join()
    with contextlib.suppress(EOFError):
        while True:
            said.append(reader.recv())
    reader.close()
    process.close()
    return said, hit


def where_it_died(path, known):
    """In words, how far a writer had come; ``known`` takes in the temporary files of those before it."""
    store = Store(path)
    temporary = set(path.glob("**/.*.tmp")) - known
    known |= temporary
    if temporary:
        return "writing a file that replaces another"
    if (path / "generations" / f"{store.manifest.generation + 1:08d}.json").exists():
        return "between the copy of the manifest and the manifest"
    journals = list(path.glob("jobs/*.journal"))
    if not journals:
        return "between two jobs"
    if not status(store)["unfinished"]:
        return "published, journal not yet removed"
    return f"{len(journals[0].read_bytes().splitlines())} lines of the journal"


def kill_publishers(context, path, kills, seed, fault="", *, until=None):
    draw = random.Random(seed)
    acknowledged, places, violations, known = 0, Counter(), [], set()
    for _ in range(kills):
        said, hit = kill_after(context, child.publish_forever, (path, fault), draw.uniform(0, 0.1))
        assert hit
        done = [generation for what, generation in said if what == "acknowledged"]
        acknowledged = max([acknowledged, *done])
        begun = max(generation for _, generation in said) + 1
        found, generation = pair_violations(path, at_least=acknowledged, at_most=begun)
        acknowledged = max(acknowledged, generation or 0)  # what a reader has seen must not vanish either
        violations += found
        if until and any(re.search(until, violation) for violation in found):
            break
        if not found:
            places[where_it_died(path, known)] += 1
    return violations, places, acknowledged


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments_the_old_or_the_new_generation_is_found(forks, tmp_path, seed):
    path = tmp_path / "store"
    violations, places, acknowledged = kill_publishers(forks, path, 40, seed)
    assert violations == []
    assert sum(places.values()) == 40
    assert len(places) >= 4, places  # the kills hit at many a point
    assert places["between two jobs"] <= 30, places
    assert acknowledged >= 8
    publish_pair(Store(path), acknowledged + 2)
    clean(Store(path))
    assert pair_violations(path, at_least=acknowledged + 2)[0] == []
    assert len(list((path / "data").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 15))
def test_killed_at_very_many_moments(forks, tmp_path, seed):
    violations, places, _ = kill_publishers(forks, tmp_path / "store", 200, seed)
    assert violations == []
    assert len(places) >= 5, places


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("in place", "CorruptStore: .*manifest.json is missing or damaged"), ("apart", "is not of generation|KeyError")],
)
def test_the_same_look_finds_a_broken_writer(forks, tmp_path, fault, expected):
    violations, _, _ = kill_publishers(forks, tmp_path / "store", 100, 7, fault, until=expected)
    assert any(re.search(expected, violation) for violation in violations), violations


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        use_small_chunks(patch.setattr)
        store = Store(tmp_path_factory.mktemp("whole") / "store", create=True)
        long_stage(store, block=100)
        return published_bytes(store)


def test_a_long_stage_killed_again_and_again_ends_with_the_same_bytes(forks, tmp_path, uninterrupted):
    draw, kills, rows, finished = random.Random(11), 0, set(), 0
    while kills < 40 or not finished:
        path = tmp_path / f"store{finished}"
        said, hit = kill_after(forks, child.run_long_stage, (path,), draw.uniform(0, 0.08))
        if ("finished", True) in said or ("finished", False) in said:
            finished += 1
            kills += hit
            assert published_bytes(Store(path)) == uninterrupted
            assert verify(Store(path), data=True)[0] == []
        else:
            assert hit
            kills += 1
            store = Store(path)
            assert verify(store, data=True)[0] == []
            rows |= {job["rows"].get("long/table", 0) for job in status(store)["unfinished"]}
        assert kills < 1000
    assert finished >= 1
    assert len(rows) >= 8, rows  # the kills hit at many a row


def needs_strace():
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run(["strace", "-e", "trace=fsync", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("this machine does not let strace trace a process")


def traced(context, inject, path):
    """Publish generation 2 under strace; return exit code, message and how often the fault was injected."""
    log = Path(f"{path}.{inject.replace(':', '.')}.strace")
    ours, theirs = context.Pipe()
    process = context.Process(target=child.publish_when_told, args=(path, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == "ready"
    options = ["-o", log, "-e", f"trace={inject.partition(':')[0]}", "-e", f"inject={inject}"]
    with subprocess.Popen(["strace", "-f", "-p", str(process.pid), *options], stderr=subprocess.PIPE, text=True) as strace:
        assert "attached" in strace.stderr.readline()
        ours.send("go")
        try:
            said = ours.recv()
        except EOFError:
            said = None
        process.join()
    ours.close()
    text = log.read_text()
    killed = text.count("killed by SIGKILL")
    code, message = said or (-signal.SIGKILL if killed else None, "")
    return code, message, text.count("(INJECTED)") + killed


def run_child(mode, path, *arguments, before=()):
    command = [*before, sys.executable, "-m", "tests.store.child", mode, path, *arguments]
    return subprocess.run([str(part) for part in command], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=100)


def sweep(context, tmp_path, template, calls, inject):
    """Run a publish with a fault at the k-th call, for every k until it comes through; yield each run that the fault hit."""

    def through(call):
        found = []
        for k in range(1, 200):
            path = tmp_path / f"{call}{k}"
            if template is not None:
                shutil.copytree(template, path)
            code, message, hits = traced(context, f"{call}:{inject}:when={k}", path)
            if hits == 0:
                assert code == 0, message
                return found
            assert hits == 1
            found.append((call, k, path, code, message))
        raise AssertionError(f"{call} has no end")

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(through, calls):
            yield from found


CALLS = ["fsync", "pwrite64", "rename", "unlink", "ftruncate", "fallocate"]


@pytest.mark.parametrize("begun", [True, False])
def test_killed_at_every_system_call(forks, tmp_path, begun):
    needs_strace()
    template = None
    if begun:
        template = tmp_path / "template"
        publish_pair(Store(template, create=True), 1)
    points, generations = Counter(), Counter()
    whole = Store(tmp_path / "whole", create=True)
    publish_pair(whole, 2)
    for call, k, path, code, _ in sweep(forks, tmp_path, template, CALLS, "signal=KILL"):
        assert code == -signal.SIGKILL, (call, k)
        points[call] += 1
        if begun:
            found, generation = pair_violations(path, at_least=1)
            assert found == [], (call, k)
            assert generation in (1, 2)
            generations[generation] += 1
        store = Store(path, create=True)
        publish_pair(store, 2)
        assert pair_violations(path, at_least=2) == ([], 2), (call, k)
        assert published_bytes(store) == published_bytes(whole)
        clean(store)
        assert sum(1 for _ in store.path.rglob("*.*")) == 4, list(store.path.rglob("*"))  # two arrays, the manifest and its copy
    assert points["fsync"] >= 15, points
    assert points["pwrite64"] >= 10
    assert points["rename"] >= 3
    assert points["fallocate"] == 1
    if begun:
        assert generations[1] >= 25, generations
        assert generations[2] >= 1


def test_a_failing_sync_is_an_error_and_harms_nothing(forks, tmp_path):
    needs_strace()
    template = tmp_path / "template"
    publish_pair(Store(template, create=True), 1)
    points, generations = 0, Counter()
    for _, k, path, code, message in sweep(forks, tmp_path, template, ["fsync"], "error=EIO"):
        assert code == StorageFailure.exit_code, (k, message)
        assert re.search(rf"{path}\S* failed: Input/output error; check the disk", message), message
        found, generation = pair_violations(path, at_least=1)
        assert found == []
        generations[generation] += 1
        points += 1
        publish_pair(Store(path), 2)
        assert pair_violations(path, at_least=2) == ([], 2)
    assert points >= 15
    assert set(generations) == {1, 2}  # 2 where only the folder could not be synced


@pytest.mark.parametrize("call", ["pwrite64", "fallocate", "rename", "openat", "fsync"])
def test_no_space_at_any_call_is_named(forks, tmp_path, call):
    needs_strace()
    template = tmp_path / "template"
    publish_pair(Store(template, create=True), 1)
    points = 0
    for _, k, path, code, message in sweep(forks, tmp_path, template, [call], "error=ENOSPC"):
        assert pair_violations(path, at_least=1)[0] == []
        points += 1
        if code == 0 and call in ("pwrite64", "openat"):
            continue  # the line that says who holds the lock is not needed
        if call != "openat":  # which reads, too; there it cannot mean that the disk is full
            assert code == NoSpace.exit_code, (k, message)
            assert re.search(rf"no space left while \w+.* {path}/\S+; free some space there", message), message
        assert str(path) in message
        if call == "fallocate":
            assert len(list((path / "data").iterdir())) == 2  # no stub of the array that had no room
        assert list(path.glob("**/.*.tmp")) == []
        publish_pair(Store(path), 2)
        assert pair_violations(path, at_least=2) == ([], 2)
    assert points >= {"pwrite64": 10, "fallocate": 1, "rename": 3, "openat": 15, "fsync": 15}[call]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_and_the_work_goes_on_when_there_is_room(small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1_200_000))
    done = run_child("grow", small_disk / "store", "150000")
    assert done.returncode == NoSpace.exit_code  # and not killed by SIGBUS
    assert re.search(rf"no space left while \w+ {small_disk}/store/(data/big|jobs)\S+; free some space", done.stderr), done.stderr
    store = Store(small_disk / "store")
    (unfinished,) = status(store)["unfinished"]
    assert unfinished["rows"]["big"] > 50_000
    filler.unlink()
    done = run_child("grow", small_disk / "store", "150000")
    assert (done.returncode, done.stdout) == (0, "resumed True\n"), done.stderr
    np.testing.assert_array_equal(store.array("big"), np.arange(150_000))
    assert verify(store, data=True) == ([], 1_200_000)


def test_what_has_no_room_on_the_disk_is_refused_before_a_byte_is_written(small_disk):
    store = Store(small_disk / "store", create=True)
    done = run_child("reserve", store.path, "500000")
    assert done.returncode == NoSpace.exit_code
    assert f"no space left while reserving space for {store.path}/data/big." in done.stderr
    assert list((store.path / "data").iterdir()) == []
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert os.statvfs(small_disk).f_bavail == 0
    assert run_child("clean", store.path).returncode == 0  # cleaning works where nothing can be written
    assert list((store.path / "jobs").iterdir()) == []
    (small_disk / "filler").unlink()
    assert run_child("reserve", store.path, "50000").returncode == 0
    assert store.array("big")[-1] == 49_999


def test_a_limit_on_the_size_of_files_is_no_space(tmp_path):
    done = run_child("grow", tmp_path / "store", "50000", "100000")
    assert done.returncode == NoSpace.exit_code
    assert "data/big." in done.stderr
    assert run_child("grow", tmp_path / "store", "50000").stdout == "resumed True\n"


# ---------------------------------------------------------------- corruption


@pytest.fixture
def filled(tmp_path):
    """A store with two generations, several arrays and the journal of an interrupted stage."""
    store = Store(tmp_path / "store", create=True)
    draw = np.random.default_rng(0)
    for stage, arrays in {
        "first": {
            "x/floats": draw.standard_normal((900, 3)).astype(np.float32),
            "x/bytes": draw.integers(0, 255, 5000, np.uint8),
        },
        "second": {
            "y/ids": draw.integers(0, 2**31, (700, 2)),
            "y/one": np.ones(1, np.int32),
            "y/none": np.zeros((0, 4), np.float32),
        },
        "third": {"y/sibling": draw.integers(0, 2**31, (700, 2))},
    }.items():
        with store.job(stage, parameters={"läyers": [1, 2.5e-7]}) as job:
            for name, values in arrays.items():
                job.put(name, values)
            job.publish({"stage": stage})
    with contextlib.suppress(KeyboardInterrupt), store.job("interrupted", parameters={}) as job:
        for i in range(4):
            job.array("z", "<i8", (None,)).append(np.arange(300) + i)
            job.checkpoint(now=True)
        raise KeyboardInterrupt
    assert verify(store, data=True)[0] == []
    return store


def problems_on_opening(path):
    """Every problem that opening and verifying a store names, as text."""
    try:
        store = Store(path)
        return [f"[{problem.array}] {problem.file}: {problem.what}" for problem in verify(store, data=True)[0]]
    except CorruptStore as error:
        return [str(error)]


def test_every_flipped_bit_is_found_and_named(filled):
    draw = random.Random(23)
    entries = filled.manifest.arrays
    kinds = Counter()
    for _ in range(900):
        kind = draw.choice(["data", "data", "header", "manifest", "generation", "journal"])
        name = draw.choice(sorted(entries))
        if kind in ("data", "header"):
            path = filled.path / entries[name].file
            low, high = (0, 128) if kind == "header" else (128, path.stat().st_size)
            if low == high:
                continue
        else:
            path = (
                filled.path
                / {
                    "manifest": "manifest.json",
                    "generation": f"generations/{filled.manifest.generation:08d}.json",
                    "journal": "jobs/interrupted.journal",
                }[kind]
            )
            low, high = 0, path.stat().st_size
            if kind == "journal":
                high -= 1  # without its last line feed a line is torn, which is what a crash leaves
        position, bit = draw.randrange(low, high), draw.randrange(8)
        intact = path.read_bytes()
        damaged = bytearray(intact)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        found = problems_on_opening(filled.path)
        path.write_bytes(intact)
        assert len(found) == (2 if kind == "manifest" and len(found) == 2 else 1), (kind, position, bit, found)
        assert str(path.relative_to(filled.path)) in found[0], (kind, position, bit, found)
        if kind == "data":
            chunk = (position - 128) // CHUNK
            assert found[0].startswith(f"[{name}] {entries[name].file}: chunk {chunk} (from byte {128 + chunk * CHUNK})"), found
        elif kind == "header":
            assert found[0].startswith(f"[{name}]")
            assert "damaged header" in found[0]
        kinds[kind] += 1
    assert sum(kinds.values()) >= 800
    assert min(kinds.values()) >= 100, kinds
    assert problems_on_opening(filled.path) == []


def test_a_flipped_journal_costs_work_but_never_changes_the_result(tmp_path):
    draw = random.Random(5)

    def stage(store, stop_at=None):
        with store.job("make", parameters={}) as job:
            writer = job.array("values", "<i8", (None,))
            for first in range(writer.rows, 2000, 200):
                writer.append(np.arange(first, first + 200))
                job.checkpoint(now=True)
                if first == stop_at:
                    raise KeyboardInterrupt
            job.publish({})

    template = Store(tmp_path / "template", create=True)
    with contextlib.suppress(KeyboardInterrupt):
        stage(template, 1400)
    size = (template.path / "jobs/make.journal").stat().st_size
    for i in range(60):
        path = tmp_path / f"copy{i}"
        shutil.copytree(template.path, path)
        journal = path / "jobs/make.journal"
        data = bytearray(journal.read_bytes())
        data[draw.randrange(size)] ^= 1 << draw.randrange(8)
        journal.write_bytes(data)
        stage(Store(path))
        np.testing.assert_array_equal(Store(path).array("values"), np.arange(2000))
        assert verify(Store(path), data=True) == ([], 16000)


@pytest.mark.parametrize("name", ["x/floats", "y/none"])
@pytest.mark.parametrize("change", ["1 byte", "1 page", "to 0", "grown", "missing", "symlink", "fifo", "directory", "unreadable"])
def test_a_damaged_file_is_named_and_never_grows(filled, name, change):
    path = filled.path / filled.entry(name).file
    size = path.stat().st_size
    outside = filled.path.parent / "outside.npy"
    shutil.copy(path, outside)
    if change in ("1 byte", "1 page", "to 0"):
        size = max(0, size - {"1 byte": 1, "1 page": 4096, "to 0": size}[change])
        os.truncate(path, size)
    elif change == "grown":
        with path.open("ab") as file:
            file.write(b"\0")
        size += 1
    else:
        path.unlink()
    if change == "symlink":
        path.symlink_to(outside)
    elif change == "fifo":
        os.mkfifo(path)
    elif change == "directory":
        path.mkdir()
    elif change == "unreadable":
        path.symlink_to("/proc/self/mem")
    expected = {
        "missing": "is missing",
        "symlink": "cannot be opened",
        "unreadable": "cannot be opened",
        "fifo": "is not a regular file",
        "directory": "is not a regular file",
    }.get(change, rf"has {size} bytes instead of {filled.entry(name).bytes}")
    for _ in range(3):
        with pytest.raises(
            CorruptStore, match=rf"{path} {expected}.*; run `ooc-diffusion verify`, then the stage again"
        ) as error:
            filled.array(name)
        assert error.value.exit_code == 4
        for data in (False, True):
            (problem,), _ = verify(filled, data=data)
            assert (problem.array, problem.file) == (name, filled.entry(name).file)
            assert re.search(expected, problem.what)
    if change in ("1 byte", "1 page", "to 0", "grown"):
        assert path.stat().st_size == size
    others = [other for other in filled.manifest.arrays if other != name]
    assert len(others) == 5
    assert all(filled.array(other) is not None for other in others)


def test_a_sibling_of_the_same_size_is_found(filled):
    one, other = (filled.path / filled.entry(name).file for name in ("y/ids", "y/sibling"))
    shutil.copy(one, other)
    assert verify(filled)[0] == []  # size and header are right
    problems, _ = verify(filled, data=True)
    assert {problem.array for problem in problems} == {"y/sibling"}
    assert [problem.what.split(" (")[0] for problem in problems] == ["chunk 0", "chunk 1", "chunk 2"]


def test_verify_stops_when_its_time_is_over(filled):
    assert verify(filled, data=True, seconds=3600)[1] == 900 * 12 + 5000 + 2 * 700 * 16 + 4
    assert verify(filled, data=True, seconds=0)[1] == CHUNK


def sealed(body):
    return text_of({"checksum": checksum(body), **body}).decode()


def edited(change):
    def edit(text):
        body = json.loads(text)
        del body["checksum"]
        change(body)
        return sealed(body)

    return edit


MANIFESTS = {
    "empty": lambda text: "",
    "half": lambda text: text[: len(text) // 2],
    "no JSON": lambda text: "generation: 3",
    "binary": lambda text: "\x00\udcff\udcfe",
    "a list": lambda text: "[1, 2]",
    "null": lambda text: "null",
    "without checksum": lambda text: "{}",
    "repeated key": lambda text: text.replace('"format": 1,', '"format": 1,\n "format": 1,', 1),
    "repeated array": lambda text: re.sub(r'("y/one": \{.*?\})', r"\1,\n  \1", text, count=1, flags=re.DOTALL),
    "other spelling": lambda text: json.dumps(json.loads(text)),
    "NaN": lambda text: re.sub(r'"generation": \d+', '"generation": NaN', text),
    "infinite": lambda text: re.sub(r'"generation": \d+', '"generation": 1e400', text),
    "NaN, sealed": edited(lambda body: body.update(generation=float("nan"))),
    "infinite, sealed": edited(lambda body: body.update(generation=float("inf"))),
    "deep": lambda text: "[" * 100_000 + "]" * 100_000,
    "deep in its place": lambda text: text.replace('"format": 1', '"format": ' + "[" * 100_000 + "]" * 100_000),
    "long integer": lambda text: re.sub(r'"generation": \d+', '"generation": ' + "9" * 5000, text),
    "generation changed": lambda text: re.sub(r'"generation": \d+', '"generation": 77', text),
    "format from the future": edited(lambda body: body.update(format=99)),
    "path outside": edited(lambda body: body["arrays"]["y/one"].update(file="../../etc/passwd")),
    "absolute path": edited(lambda body: body["arrays"]["y/one"].update(file="/etc/passwd")),
    "path with folders": edited(lambda body: body["arrays"]["y/one"].update(file="data/../data/x.npy")),
    "line feed in the path": edited(lambda body: body["arrays"]["y/one"].update(file="data/x.npy\n")),
    "objects": edited(lambda body: body["arrays"]["y/one"].update(dtype="|O8")),
    "negative shape": edited(lambda body: body["arrays"]["y/one"].update(shape=[-1])),
    "shape of text": edited(lambda body: body["arrays"]["y/one"].update(shape=["1"])),
    "shape of booleans": edited(lambda body: body["arrays"]["y/one"].update(shape=[True])),
    "fewer checksums": edited(lambda body: body["arrays"]["y/ids"].update(checksums=[])),
    "array without stage": edited(lambda body: body["arrays"]["y/one"].pop("stage")),
    "arrays a list": edited(lambda body: body.update(arrays=[])),
    "array a text": edited(lambda body: body["arrays"].update(x="x")),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_damaged_manifest_is_refused_and_its_copy_restores_it(filled, case):
    path = filled.path / "manifest.json"
    intact = path.read_text()
    copy = filled.path / "generations" / f"{filled.manifest.generation:08d}.json"
    damaged = MANIFESTS[case](intact)
    assert damaged != intact
    path.write_bytes(damaged.encode(errors="surrogateescape"))
    remedy = "install the version that wrote it" if case == "format from the future" else f"copy {copy} over it"
    for reading in (lambda store: store.manifest, lambda store: store.array("y/one"), verify, status, clean):
        with pytest.raises(CorruptStore, match=re.escape(remedy)) as error:
            reading(Store(filled.path))
        assert error.value.exit_code == 4
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(CorruptStore), filled.job("first", parameters={}):
        pass
    shutil.copy(copy, path)
    assert verify(Store(filled.path), data=True)[0] == []
    assert len(Store(filled.path).manifest.arrays) == 6


@pytest.mark.parametrize("instead", ["nothing", "directory", "fifo", "broken link", "link"])
@pytest.mark.parametrize("create", [False, True])
def test_a_manifest_that_is_no_file_is_refused(filled, instead, create):
    path = filled.path / "manifest.json"
    data = path.read_bytes()
    path.rename(filled.path.parent / "elsewhere.json")
    if instead == "directory":
        path.mkdir()
    elif instead == "fifo":
        os.mkfifo(path)
    elif instead != "nothing":
        path.symlink_to(filled.path.parent / ("elsewhere.json" if instead == "link" else "nowhere"))
    with pytest.raises(CorruptStore, match=r"manifest.json is missing or damaged .*copy \S+/generations/00000003.json over it"):
        _ = Store(filled.path, create=create).manifest
    assert len(list((filled.path / "generations").iterdir())) == 3
    if instead == "directory":
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(data)
    assert problems_on_opening(filled.path) == []


@pytest.mark.parametrize("instead", ["fifo", "directory", "link", "text"])
def test_a_journal_that_is_none_is_named(filled, instead):
    path = filled.path / "jobs/interrupted.journal"
    path.rename(filled.path.parent / "elsewhere")
    if instead == "fifo":
        os.mkfifo(path)
    elif instead == "directory":
        path.mkdir()
    elif instead == "link":
        path.symlink_to(filled.path.parent / "elsewhere")
    else:
        path.write_text("some text\n")
    (problem,), _ = verify(filled)
    assert problem.file == "jobs/interrupted.journal"
    if instead == "text":
        assert "all of the work of that stage will be done again" in problem.what
    else:
        with pytest.raises(StorageFailure, match=re.escape(str(path))), filled.job("interrupted", parameters={}):
            pass


# ---------------------------------------------------------------- locks


@contextlib.contextmanager
def holder(path):
    command = [sys.executable, "-m", "tests.store.child", "hold", str(path)]
    with subprocess.Popen(
        command, env=ENVIRONMENT, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def refused_for(store, pid):
    with pytest.raises(StoreLocked) as error, store.lock:
        pass
    assert error.value.exit_code == 5
    assert f'"pid": {pid},' in str(error.value)
    assert re.search(r'"command": "\S*child.py hold ' + re.escape(str(store.path)), str(error.value))


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path):
    store = Store(tmp_path / "store", create=True)
    publish_pair(store, 1)
    with holder(store.path) as process:
        refused_for(store, process.pid)
        for attempt in (
            lambda: publish_pair(store, 2),
            lambda: clean(store),
            lambda: clean(store, dry_run=True),
            lambda: store.job("pair", parameters={"generation": 1}).__enter__(),
        ):
            with pytest.raises(StoreLocked):
                attempt()
        assert run_child("pair", store.path, "2").returncode == StoreLocked.exit_code
        assert pair_violations(store.path, at_least=1, at_most=1) == ([], 1)
        assert status(store)["generation"] == 1
        process.kill()  # the lock dies with its owner
        process.wait()
        publish_pair(store, 2)
    assert pair_violations(store.path, at_least=2) == ([], 2)


def test_the_holder_may_take_the_lock_again(tmp_path):
    store = Store(tmp_path / "store", create=True)
    assert not store.lock.held
    with store.lock:
        with store.lock:
            publish_pair(store, 1)
        assert store.lock.held
        with pytest.raises(StoreLocked, match=str(os.getpid())), Store(store.path).lock:
            pass
    assert not store.lock.held
    with Store(store.path).lock:
        pass


@pytest.mark.parametrize("what", ["deleted", "garbage", "symlink", "fifo", "directory"])
def test_the_lock_does_not_depend_on_what_is_in_its_file(tmp_path, what):
    store = Store(tmp_path / "store", create=True)
    publish_pair(store, 1)
    path, outside = store.path / "lock", tmp_path / "outside"
    outside.write_text("precious")

    def change():
        path.unlink(missing_ok=True)
        if what == "garbage":
            path.write_bytes(b"\xff\x00" * 10_000)
        elif what == "symlink":
            path.symlink_to(outside)
        elif what == "fifo":
            os.mkfifo(path)
        elif what == "directory":
            path.mkdir()

    with holder(store.path):
        change()
        with pytest.raises(StoreLocked, match=r"being written by another process \(unknown\)"), store.lock:
            pass
    publish_pair(store, 2)  # what was put there is no obstacle
    assert pair_violations(store.path, at_least=2) == ([], 2)
    assert outside.read_text() == "precious"
    clean(store)


def test_of_fifty_that_start_together_one_writes(forks, tmp_path):
    store = Store(tmp_path / "store", create=True)
    for _ in range(2):
        barrier = forks.Barrier(50)
        pipes = [forks.Pipe() for _ in range(50)]
        processes = [forks.Process(target=child.take_lock, args=(store.path, theirs, barrier)) for _, theirs in pipes]
        for process in processes:
            process.start()
        answers = [ours.recv() for ours, _ in pipes]
        winners = [i for i, (code, _) in enumerate(answers) if code == 0]
        assert len(winners) == 1
        assert Counter(code for code, _ in answers) == {0: 1, 5: 49}
        with pytest.raises(StoreLocked, match=f'"pid": {answers[winners[0]][1]},'), store.lock:
            pass
        pipes[winners[0]][0].send("enough")
        for process, (ours, theirs) in zip(processes, pipes, strict=True):
            process.join()
            assert process.exitcode == 0
            ours.close()
            theirs.close()
        with store.lock:
            pass


def test_readers_see_whole_generations_while_a_writer_publishes_and_cleans(forks, tmp_path):
    path = tmp_path / "store"
    reader, writer = forks.Pipe(duplex=False)
    process = forks.Process(target=child.publish_forever, args=(path, writer))
    process.start()
    writer.close()
    assert reader.recv() == ("begun", 0)
    assert reader.recv() == ("acknowledged", 1)
    seen, end = [], time.monotonic() + 3
    try:
        store = Store(path)
        while time.monotonic() < end:
            a, b = store.arrays("a", "b")
            assert (a + 1 == b).all()
            assert len(np.unique(a)) == 1
            assert len(a) == ROWS
            seen.append(int(a[0]))
            assert verify(store, data=True)[0] == []
        assert process.is_alive()
    finally:
        process.kill()
        process.join()
        reader.close()
    assert seen == sorted(seen)
    assert len(set(seen)) >= 20


def test_a_store_that_cannot_be_written(tmp_path):
    if os.getuid() == 0 and subprocess.run(["mount", "--version"], capture_output=True).returncode:
        pytest.skip("there is no mount")
    store = Store(tmp_path / "store", create=True)
    publish_pair(store, 1)
    if subprocess.run(["mount", "--bind", store.path, store.path], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", store.path], check=True)
        assert pair_violations(store.path, at_least=1) == ([], 1)
        with pytest.raises(StorageFailure, match=f"{store.path}.*Read-only file system; check the disk and permissions"):
            publish_pair(store, 2)
    finally:
        subprocess.run(["umount", store.path], check=True)
    with pytest.raises(BadInput):
        Store(tmp_path / "other")
