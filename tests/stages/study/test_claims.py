"""Verdicts follow from figures by their rules."""

import numpy as np
import pytest

from ooc_diffusion.report import FAILS, HOLDS, UNTESTED
from ooc_diffusion.stages.study.claims import (
    FACTOR,
    LEAST_DRAWS,
    MARGIN,
    RULE,
    against,
    better,
    decide,
    equal,
    every,
    grows,
    interval,
    invert,
    not_worse,
)


def naive_interval(a, b):
    """By loops."""
    d = [x - y for x, y in zip(a, b, strict=True)]
    m = sum(d) / len(d)
    error = (sum((x - m) ** 2 for x in d) / (len(d) - 1)) ** 0.5 / len(d) ** 0.5
    return m - 2 * error, m + 2 * error


def test_differences_are_paired_by_draw():
    rng = np.random.default_rng(0)
    hard = rng.normal(scale=0.2, size=5)  # some draws are harder for both
    a, b = 0.5 + hard + rng.normal(scale=0.001, size=5), 0.49 + hard
    assert interval(a, b) == pytest.approx(naive_interval(a, b))
    assert better(a, b) is True
    assert better(b, a) is False
    assert better(a, rng.permutation(b)[::-1]) is None  # the same values, the pairs broken


def test_few_draws_tell_nothing():
    for compared in (better, equal, not_worse):
        assert compared([0.9, 0.9], [0.1, 0.1]) is None
        assert compared([0.9], [0.1]) is None
        assert compared([0.9, 0.9, 0.9], [0.1, 0.1, 0.1]) is not None


def test_a_difference_inside_the_noise_tells_nothing():
    wide, steady = [0.4, 0.6, 0.7], [0.5, 0.5, 0.5]
    assert better(wide, steady) is None
    assert equal(wide, steady) is None
    assert not_worse(wide, steady) is None
    assert not_worse(steady, wide) is None


def test_a_margin_is_allowed_where_accuracies_are_to_be_equal():
    b = [0.5, 0.6, 0.7]
    for shift, same, less in ((0.0, True, False), (-0.009, True, True), (-0.02, False, True), (0.02, False, False)):
        a = [value + shift for value in b]
        assert equal(a, b) is same
        assert not_worse(a, b) is (shift > -MARGIN)
        assert better(b, a) is less
        assert better(a, b) is (shift > 0)
    assert equal([5, 6, 7], [6, 7, 8], margin=1) is True
    assert equal([5, 6, 7], [7, 8, 9], margin=1) is False


def test_a_series_grows_where_no_step_falls():
    low, middle, high, wide = [1, 1, 1], [2, 2, 2], [3, 3, 3], [0, 3, 6]
    assert grows([low, middle, high]) is True
    assert grows([low, wide, high]) is True
    assert grows([low, high, middle]) is False
    assert grows([low, middle, low]) is False
    assert grows([low, middle, wide]) is None
    assert grows([[1], [2]]) is None


def test_of_several_answers():
    assert every([True, True]) is True
    assert every([None, True]) is None
    assert every([None, False, True]) is False
    assert [invert(answer) for answer in (True, False, None)] == [False, True, None]


def test_a_verdict_has_its_figures_and_why_there_is_none():
    figures = [against("n = 1", [0.5, 0.6, 0.7], [0.25, 0.25, 0.25])]
    said = "n = 1: 60.0 ± 10.0 against 25.0 ± 0.0, difference +35.0, standard error 5.8"
    for holds, draws, verdict, shown in (
        (True, 3, HOLDS, f"3 draws: {said}"),
        (False, None, FAILS, said),
        (None, 3, UNTESTED, f"inside the noise, both answers are possible (3 draws: {said})"),
        (True, 1, UNTESTED, f"fewer than 3 draws do not tell (1 draw: {said})"),
    ):
        claim = decide("Table 9", "So it is.", "a rule", holds, figures, draws=draws)
        assert (claim.verdict, claim.figures) == (verdict, shown)
    assert decide("Table 9", "So it is.", "", None, figures, draws=3, missing="no images").figures == "no images"
    assert against("n = 1", [0.5], [0.25]) == "n = 1: 50.0 against 25.0, difference +25.0"
    assert f"{FACTOR:g} standard errors" in RULE
    assert f"fewer than {LEAST_DRAWS} draws" in RULE
