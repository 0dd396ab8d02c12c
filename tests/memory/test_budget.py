import re
import subprocess
import sys

import pytest

from ooc_diffusion.errors import BadInput, DoesNotFit
from ooc_diffusion.memory import MemoryBudget, budget, parse_size

MIB = 2**20


@pytest.fixture
def held(monkeypatch):
    """What the process holds, as the budget sees it."""
    amount = [100 * MIB]
    monkeypatch.setattr(budget, "anonymous_bytes", lambda: amount[0])
    return amount


def named(error):
    """The budget that a message names, which it must name twice."""
    first, second = re.findall(r"\b(\d+MiB)\b", str(error.value))
    assert first == second
    return first


def test_parse():
    assert MemoryBudget.parse("1GiB") == MemoryBudget(2**30)
    assert MemoryBudget.parse(12345) == MemoryBudget(12345)
    assert MemoryBudget.parse(MemoryBudget(7)) == MemoryBudget(7)
    assert MemoryBudget.parse("100%").total == parse_size("100%")
    with pytest.raises(BadInput):
        MemoryBudget.parse("4")


def test_overhead_is_the_libraries_or_what_is_held(held):
    one = MemoryBudget(1000 * MIB)
    assert (one.overhead(), one.overhead(torch=True)) == (256 * MIB, 768 * MIB)
    assert (one.room(), one.room(torch=True)) == (744 * MIB, 232 * MIB)
    held[0] = 900 * MIB
    assert (one.room(), one.room(torch=True)) == (100 * MIB, 100 * MIB)
    held[0] = 1100 * MIB
    assert one.room() == -100 * MIB


@pytest.mark.parametrize("torch", [False, True])
def test_units_fill_the_room_and_do_not_overflow_it(held, torch):
    total = MemoryBudget(2000 * MIB)
    room = total.room(torch=torch)
    for unit, fixed in [(1, 0), (7, 11), (4 * MIB, 3 * MIB), (room, 0), (room - 5, 5), (room // 2, 1)]:
        n = total.units(unit, what="x", fixed_bytes=fixed, torch=torch)
        assert n * unit + fixed <= room < (n + 1) * unit + fixed
        assert total.units(unit, what="x", fixed_bytes=fixed, at_most=3, torch=torch) == min(n, 3)
    assert total.units(MIB, what="x", at_most=0, torch=torch) == 1
    assert total.units(0, what="x", fixed_bytes=room, torch=torch) == 1


@pytest.mark.parametrize("torch", [False, True])
@pytest.mark.parametrize(
    ("unit", "fixed"), [(1, 800 * MIB), (900 * MIB, 0), (900 * MIB + 1, 17), (2**45, 2**44 + 1), (0, 800 * MIB)]
)
def test_the_smallest_budget_that_is_named_would_do(held, unit, fixed, torch):
    small = MemoryBudget(900 * MIB)
    with pytest.raises(
        DoesNotFit, match=r"^searching needs a memory budget of \d+MiB at least, but it is 900 MiB; give"
    ) as error:
        small.units(unit, what="searching", fixed_bytes=fixed, torch=torch)
    assert error.value.exit_code == 7
    assert isinstance(error.value, MemoryError)
    least = named(error)
    assert MemoryBudget.parse(least).units(unit, what="searching", fixed_bytes=fixed, torch=torch) >= 1
    less = MemoryBudget(parse_size(least) - MIB)
    with pytest.raises(DoesNotFit):
        less.units(unit, what="searching", fixed_bytes=fixed, torch=torch)


@pytest.mark.parametrize("torch", [False, True])
def test_require(held, torch):
    total = MemoryBudget(2000 * MIB)
    room = total.room(torch=torch)
    assert total.require(room, what="x", torch=torch) is None
    with pytest.raises(DoesNotFit) as error:
        total.require(room + 1, what="x", torch=torch)
    assert named(error) == "2001MiB"
    MemoryBudget.parse("2001MiB").require(room + 1, what="x", torch=torch)


def test_what_is_held_counts_in_the_message(held):
    held[0] = 500 * MIB
    with pytest.raises(DoesNotFit) as error:
        MemoryBudget(400 * MIB).require(10 * MIB, what="x")
    assert named(error) == "510MiB"


FREED = """
import numpy as np
from ooc_diffusion.memory import MemoryBudget, anonymous_bytes

pieces = [np.ones(125) for _ in range(300_000)]
kept = pieces[::1000]  # as many as hinder the C library from giving all of it back by itself
del pieces
before = anonymous_bytes()
MemoryBudget(2**31).overhead()
print(before - anonymous_bytes(), kept[-1].sum())
"""


def test_memory_that_was_freed_is_not_taken_for_held():
    found = subprocess.run([sys.executable, "-c", FREED], check=True, capture_output=True, text=True)
    given_back, total = found.stdout.split()
    assert int(given_back) > 200 * MIB
    assert float(total) == 125
