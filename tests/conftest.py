"""What all tests share."""

import logging

import pytest


@pytest.fixture(autouse=True)
def package_logger_as_it_was():
    """Commands that run inside the test process direct the messages of the package to the error stream."""
    logger = logging.getLogger("ooc_diffusion")
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])
