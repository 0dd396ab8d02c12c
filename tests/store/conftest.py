import pytest

from .helpers import use_small_chunks


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    use_small_chunks(monkeypatch.setattr)
