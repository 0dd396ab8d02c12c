"""What is fetched ahead is looked up in memory: never behind the end of an array."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(os.name != "posix", reason="pages are protected by mprotect")
def test_nothing_is_read_behind_the_end_of_an_array():
    ran = subprocess.run([sys.executable, "-m", "tests.diffusion.guarded"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    last = ran.stdout.splitlines()[-1] if ran.stdout else "nothing"
    assert (ran.returncode, last) == (0, "all done"), ran.stderr[-2000:]
