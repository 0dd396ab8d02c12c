"""Verdicts follow from figures by their rules."""

import pytest

from ooc_diffusion.report import FAILS, HOLDS, UNTESTED
from ooc_diffusion.stages.study.claims import against, better, decide, equal, not_worse, spread


def test_comparisons_take_the_larger_deviation():
    steady, wide = [0.50, 0.52], [0.40, 0.60]
    assert spread(steady, wide) == pytest.approx(0.1414, abs=1e-3)
    assert not_worse(steady, wide)
    assert equal(steady, wide)
    assert not_worse([0.45], [0.45])
    assert not not_worse([0.44], [0.45])
    assert not equal([0.44], [0.45])
    assert not_worse([0.39, 0.41], [0.40, 0.43])
    assert not not_worse([0.30, 0.31], [0.40, 0.41])
    assert better([0.5, 0.6], [0.5, 0.59])
    assert not better([0.5], [0.5])


def test_a_verdict_has_its_figures_or_what_is_missing():
    for holds, verdict in ((True, HOLDS), (False, FAILS), (None, UNTESTED)):
        claim = decide("Table 9", "So it is.", "a rule", holds, [against("n = 1", [0.5, 0.6], [0.25])], missing="no images")
        assert claim.verdict == verdict
        assert claim.figures == ("no images" if holds is None else "n = 1: 55.0 ± 7.1 against 25.0")
