import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ooc_diffusion.memory import MemoryMeter, anonymous_bytes

MIB = 2**20
ROOT = Path(__file__).parents[2]
HOLD = """
import mmap, os, subprocess, sys
depth, mebibytes = int(sys.argv[1]), int(sys.argv[2])
block = bytearray([1]) * (mebibytes * 2**20)
children = []
if depth:
    children.append(subprocess.Popen([sys.executable, "-c", sys.argv[3], str(depth - 1), str(mebibytes), sys.argv[3]],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    children[0].stdout.readline()
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
for child in children:
    child.communicate(b"end\\n")
"""


def test_a_tree_of_processes_is_summed():
    before = anonymous_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, "2", "60", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        tree, own = anonymous_bytes(process.pid), anonymous_bytes()
        process.communicate("end\n")
    # three interpreters, of some 5 to 15 MiB each, hold 60 MiB each
    assert 180 * MIB <= tree <= (180 + 3 * 20) * MIB
    assert abs(own - before - tree) <= 5 * MIB
    assert anonymous_bytes(process.pid) == 0  # it is gone
    assert abs(anonymous_bytes() - before) <= 5 * MIB


FORK = """
import os, sys
kind, fifo, mebibytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
block = bytearray([1]) * (mebibytes * 2**20)
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
if kind == "spawned":  # the child opens the pipe before it is another program: until then it is held in its parent's memory
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)]), 0)
elif os.fork() == 0:
    more = bytearray([1]) * ((50 if kind == "growing" else 0) * 2**20)
    open(fifo).read()
    os._exit(0)
else:
    os.wait()
"""


@pytest.mark.parametrize(("kind", "more"), [("spawned", 0), ("forked", 0), ("growing", 50)])
def test_what_a_child_shares_with_its_parent_counts_once(tmp_path, kind, more):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", FORK, kind, str(fifo), "150"], **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        before = anonymous_bytes(process.pid)
        assert before >= 150 * MIB
        process.stdin.write("go\n")
        process.stdin.flush()
        children, found = Path(f"/proc/{process.pid}/task/{process.pid}/children"), 0
        for _ in range(500):
            time.sleep(0.01)
            if children.read_text():
                found = max(found, anonymous_bytes(process.pid))
            if found >= before + more * MIB:
                break
        time.sleep(0.05)
        found = max(found, anonymous_bytes(process.pid))
        assert children.read_text()  # it is still held
        with fifo.open("w"):
            pass
    assert abs(found - before - more * MIB) <= 8 * MIB


MAP = """
import mmap, os, sys
from pathlib import Path
from ooc_diffusion.memory import anonymous_bytes
def resident():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])
kind, path, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
fd = os.open(path, os.O_RDWR)
before, resident_before = anonymous_bytes(), resident()
if kind == "anonymous":
    held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
elif kind == "shared":
    held = mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
elif kind == "copied":
    held = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
else:
    held = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
total = 0
for position in range(0, size, 4096):
    if kind != "mapped":
        held[position] = 1
    total += held[position]
sys.stdout.write(f"{anonymous_bytes() - before} {resident() - resident_before} {total}")
"""


@pytest.mark.parametrize(("kind", "counted"), [("mapped", False), ("anonymous", True), ("shared", True), ("copied", True)])
def test_what_counts(tmp_path, kind, counted):
    size = 200 * MIB
    path = tmp_path / "file"
    with path.open("wb") as file:
        for _ in range(200):
            file.write(b"\1" * MIB)
    done = subprocess.run(
        [sys.executable, "-c", MAP, kind, str(path), str(size)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env=os.environ,
    )
    path.unlink()
    grown, resident, pages = map(int, done.stdout.split())
    assert pages == size // 4096
    assert resident >= 0.95 * size  # it was in memory, in any case
    if counted:
        assert abs(grown - size) <= 4 * MIB
    else:
        assert grown <= 4 * MIB


def test_the_meter_keeps_the_peak():
    with MemoryMeter(interval_seconds=0.005) as meter:
        start = meter.peak
        block = bytearray([1]) * (150 * MIB)
        time.sleep(0.1)
        del block
        time.sleep(0.05)
        assert meter.sample() < start + 30 * MIB
    assert 150 * MIB - 5 * MIB <= meter.peak - start <= 170 * MIB
    peak, _ = meter.peak, bytearray([1]) * (400 * MIB)
    time.sleep(0.05)
    assert meter.peak == peak  # its thread has ended


def test_the_meter_sees_children():
    with MemoryMeter(interval_seconds=0.005) as meter:
        start = meter.sample()
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, "0", "120", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "ready\n"
            found = meter.sample()
            process.communicate("end\n")
        assert meter.sample() <= start + 10 * MIB
    assert 120 * MIB <= found - start <= 150 * MIB
    assert meter.peak >= found
