"""What all tests share."""

import logging

import pytest


@pytest.fixture(autouse=True)
def package_logger_as_in_a_fresh_process():
    """Commands that run inside the test process direct the messages of the package to the error stream, and leave it so."""
    logger = logging.getLogger("ooc_diffusion")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
