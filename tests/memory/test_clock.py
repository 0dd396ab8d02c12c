"""The time of a step within a step is that of the inner one alone."""

import pytest

from ooc_diffusion.memory import Clock, clock


@pytest.fixture
def now(monkeypatch):
    """Time that goes on by the number of seconds of a call."""
    time = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: time[0])

    def wait(seconds):
        time[0] += seconds

    return wait


def test_steps_within_steps(now):
    def fail(found):
        with found.step("inner"):
            now(20)
            raise ValueError("x")

    found = Clock()
    now(100)
    with found.step("outer"):
        now(1)
        with found.step("inner"):
            now(10)
        now(2)
        with pytest.raises(ValueError, match="x"):
            fail(found)
        now(4)
    now(1000)
    assert found.seconds == {"outer": 7, "inner": 30}


def test_what_is_done_with_items_does_not_count(now):
    found = Clock()

    def items():
        for i in range(3):
            now(1)
            with found.step("inner"):
                now(5)
            yield i
        now(1)

    for _ in found.each("getting", items()):
        now(100)
    assert found.seconds == {"getting": 4, "inner": 15}
