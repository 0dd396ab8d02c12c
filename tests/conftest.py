"""What all tests share."""

import logging

import pytest

from ooc_diffusion.memory import anonymous_bytes, budget, meter

# What the libraries hold in a run of its own, as budgets plan it.
_LIBRARIES = 256 * 2**20
_left_behind = 0


def pytest_sessionstart():
    """Budgets and records see what a test holds, not what those before it left in the process: it stands for a run of its own."""

    def held(pid=None):
        return max(0, anonymous_bytes(pid) - _left_behind)

    budget.anonymous_bytes = meter.anonymous_bytes = held


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Look at what is left before the fixtures of a test are made."""
    global _left_behind
    _left_behind = max(0, anonymous_bytes() - _LIBRARIES)


@pytest.fixture(autouse=True)
def package_logger_as_in_a_fresh_process():
    """Commands that run inside the test process direct the messages of the package to the error stream, and leave it so."""
    logger = logging.getLogger("ooc_diffusion")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
