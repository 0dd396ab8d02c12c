"""What is shown of work under way: counts, rates and times left, at a clock of the tests' own."""

import io
import sys

import pytest

from ooc_diffusion.cli import progress
from ooc_diffusion.cli.progress import make_progress


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


class Stream(io.StringIO):
    """An error stream that may say that it is a terminal."""

    def __init__(self, terminal):
        super().__init__()
        self._terminal = terminal

    def isatty(self):
        return self._terminal


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


@pytest.fixture
def show(monkeypatch, clock):
    """Run stages, each a name, a total, and reports as pairs of seconds and units; return the lines that are left."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")  # rich draws bars once, at their end

    def show(*stages, terminal=False, unit="images"):
        stream = Stream(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        begin = make_progress(quiet=False)
        for name, total, *reports in stages:
            with begin(name, total, unit) as advance:
                for seconds, done in reports:
                    clock.seconds += seconds
                    advance(done)
        return [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]

    return show


def test_lines_say_rate_and_time_left_since_the_first_report(show):
    """Which tells what was done before, however long it took to begin."""
    assert show(("extract.tests", 1000, (60, 200), (5, 100), (5, 100), (10, 200), (1, 200), (9.5, 200))) == [
        "extract.tests: 1,000 images",
        "extract.tests: 200 of 1,000 images",
        "extract.tests: 400 of 1,000 images, 20 images/s, 30 s left",
        "extract.tests: 600 of 1,000 images, 20 images/s, 20 s left",
        "extract.tests: 1,000 of 1,000 images, 26 images/s",
    ]


def test_nothing_done_is_no_line_and_no_rate(show):
    assert show(("a", 5, (60, 0), (60, 0))) == ["a: 5 images"]
    assert show(("a", 0, (60, 0))) == ["a: 0 images"]
    assert show(("a", 5, (60, 5))) == ["a: 5 images", "a: 5 of 5 images"]
    assert show(("a", None, (20, 0), (20, 7))) == ["a", "a: 7 images, 0.35 images/s"]


def test_long_times_are_told_in_minutes_and_hours(show):
    assert show(("a", 10, (1, 0), (600, 1)))[1] == "a: 1 of 10 images, 0.0017 images/s, 1 h 30 min left"
    assert show(("a", 10, (1, 0), (10, 1)))[1] == "a: 1 of 10 images, 0.1 images/s, 1 min 30 s left"


def test_a_terminal_shows_the_same_beside_a_bar(show):
    (line,) = show(("extract.tests", 1000, (1, 0), (10, 400)), terminal=True)
    assert line.split("━")[0].strip() == "extract.tests"
    assert "400 of 1,000 images, 40 images/s, 15 s left" in line
    (line,) = show(("list.tests", 0, (0.1, 0)), terminal=True)
    assert "0 of 0 images 0:00:00" in line
    assert "images/s" not in line
    (line,) = show(("list.tests", 50, (0.1, 50)), terminal=True)
    assert "50 of 50 images 0:00:00" in line


def test_a_name_that_is_too_long_for_a_bar_stands_above_it(show, monkeypatch):
    name = "run 12 of 175, about 14 min left: table1: diffusion, [in-domain]"
    monkeypatch.setenv("COLUMNS", "80")
    above, bar = show((name, 50, (1, 0), (10, 20)), terminal=True)
    assert above == name
    assert "20 of 50 images, 2 images/s, 15 s left" in bar


@pytest.mark.parametrize("terminal", [False, True])
def test_a_stage_within_a_stage_has_its_own_progress(terminal, monkeypatch, clock, show):
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    begin = make_progress(quiet=False)
    for name in ("one", "two"):
        with begin(name, 2, "runs") as outer:
            with begin("inside", 30, "images") as inner:
                inner(0)
                clock.seconds += 15
                inner(30)
            outer(1)
    lines = [line for line in stream.getvalue().splitlines() if line]
    if terminal:  # each once, when the outer stage ends
        assert [line.split()[0] for line in lines] == ["one", "inside", "two", "inside"]
        assert "30 of 30 images, 2 images/s" in lines[1]
        assert "1 of 2 runs" in lines[2]
    else:
        inside = ["inside: 30 images", "inside: 30 of 30 images, 2 images/s"]
        assert lines == ["one: 2 runs", *inside, "one: 1 of 2 runs", "two: 2 runs", *inside, "two: 1 of 2 runs"]


def test_quiet_is_quiet(monkeypatch):
    stream = Stream(True)
    monkeypatch.setattr(sys, "stderr", stream)
    with make_progress(quiet=True)("a", 5, "images") as advance:
        advance(5)
    assert stream.getvalue() == ""
