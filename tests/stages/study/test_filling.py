"""Whether L fills up later, and more iterations are best, with fewer neighbors: from shares and curves that are given."""

from types import SimpleNamespace

import numpy as np
import pytest

from ooc_diffusion.report import FAILS, HOLDS, UNTESTED
from ooc_diffusion.stages.study import graphs
from ooc_diffusion.stages.study.filling import first_full
from ooc_diffusion.stages.study.graphs import figure2

from .test_graph_claims import runs

MAX_ITER = 8


def share(full):
    """Shares that reach 99% at an iteration, of 80% in all."""
    return [0.8 * (0.9 * (t + 1) / full if t < full else 0.99 if t == full else 1.0) for t in range(MAX_ITER + 1)]


def test_full_is_99_percent_of_what_is_ever_filled():
    assert first_full(np.array([share(3), share(5)])) == [3, 5]
    assert first_full(np.array([[0.0, 0.5, 0.5]])) == [1]


@pytest.mark.parametrize(
    ("by_k", "verdict", "left_out"),
    [
        ({3: [6, 7, 6], 5: [4, 4, 4], 10: [2, 2, 2]}, HOLDS, None),
        ({3: [4, 4, 4], 5: [4, 4, 4], 10: [2, 2, 2]}, HOLDS, None),  # it need not be later from each to the next
        ({3: [4, 4, 4], 5: [6, 6, 6], 10: [2, 2, 2]}, FAILS, None),
        ({3: [2, 2, 2], 5: [2, 2, 2], 10: [2, 2, 2]}, UNTESTED, None),  # equal in each draw
        ({3: [2, 2, 2], 5: [2, 2, 2], 10: [4, 4, 4]}, FAILS, None),
        ({3: [2, 3, 4], 5: [3, 3, 3], 10: [2, 3, 3]}, UNTESTED, None),  # within the noise
        ({3: [8, 7, 7], 5: [4, 4, 4], 10: [2, 2, 2]}, HOLDS, "k = 3"),  # it may be any later one
        ({3: [8, 8, 8], 5: [8, 8, 8], 10: [2, 2, 2]}, UNTESTED, "k = 3"),
    ],
)
def test_fewer_neighbors_come_later(monkeypatch, by_k, verdict, left_out):
    monkeypatch.setattr(graphs, "_NEIGHBORS", (3, 5, 10))

    def found(setting, k):
        values = by_k[k] if setting == "out-of-domain" else {3: [6, 6, 6], 5: [4, 4, 4], 10: [2, 2, 2]}[k]
        return SimpleNamespace(
            values=lambda name, n: np.array([share(full) for full in values]),
            best_of_draws=lambda n, array, measure: values,
            diffusion=lambda n, measure: [0.5, 0.5, 0.5],
        )

    _, *claims = figure2(runs(found, max_iter=MAX_ITER)).claims
    assert [claim.text.split(", ")[1] for claim in claims] == ["the later L fills up.", "the more iterations are best."]
    for claim in claims:
        assert claim.verdict == verdict
        if left_out and verdict == HOLDS:
            assert f"left out: other 200, {left_out}" in claim.figures
        if left_out and verdict == UNTESTED:
            assert claim.figures == "fewer than two k are known (other 200); raise --max-iter"
    assert ("other 200: k = 10: 2 ± 0, k = 5: 4 ± 0" in claims[0].figures) == (verdict == HOLDS and by_k[5] == [4, 4, 4])
