"""Verdicts follow from figures by their rules."""

import numpy as np
import pytest
from scipy import stats

from ooc_diffusion.report import FAILS, HOLDS, UNTESTED
from ooc_diffusion.stages.study.claims import (
    ERROR,
    LEAST_DRAWS,
    MARGIN,
    NO,
    OPEN,
    RULE,
    YES,
    Evidence,
    against,
    better,
    decide,
    equal,
    every,
    grows,
    invert,
    not_worse,
    some,
)


def test_differences_are_paired_by_draw_and_tested_by_students_t():
    rng = np.random.default_rng(0)
    hard = rng.normal(scale=0.2, size=5)  # some draws are harder for both
    a, b = 0.5 + hard + rng.normal(scale=0.001, size=5), 0.49 + hard
    for found, shifted in ((better(a, b), b), (not_worse(a, b), b - MARGIN), (not_worse(a, b, margin=0.2), b - 0.2)):
        assert found.untrue == pytest.approx(stats.ttest_rel(a, shifted, alternative="greater").pvalue, rel=1e-6)
        assert found.true == pytest.approx(stats.ttest_rel(a, shifted, alternative="less").pvalue, rel=1e-6)
    assert better(a, b).answer is True
    assert better(b, a).answer is False
    assert better(a, rng.permutation(b)[::-1]).answer is None  # the same values, the pairs broken


def test_few_draws_are_known_less_than_by_the_normal_distribution():
    a, b = [0.52, 0.50, 0.51], [0.50, 0.50, 0.50]
    assert np.mean(a) - 0.5 == pytest.approx(1.73 * stats.sem(a), rel=0.01)
    for draws, answer in ((3, None), (6, True), (30, True)):  # 1.7, 2.7 and 6.6 standard errors
        assert better(a * (draws // 3), b * (draws // 3)).answer is answer
    wider = [0.523, 0.507, 0.51]  # 2.7 standard errors of 3 draws
    assert np.mean(wider) - 0.5 == pytest.approx(2.7 * stats.sem(wider), rel=0.02)
    assert better(wider, b).answer is None


def test_few_draws_tell_nothing():
    for compared in (better, equal, not_worse):
        assert compared([0.9, 0.9], [0.1, 0.1]) == OPEN
        assert compared([0.9], [0.1]) == OPEN
        assert compared([0.9, 0.9, 0.9], [0.1, 0.1, 0.1]).answer is not None


def test_a_difference_inside_the_noise_tells_nothing():
    wide, steady = [0.4, 0.6, 0.7], [0.5, 0.5, 0.5]
    for compared in (better(wide, steady), equal(wide, steady), not_worse(wide, steady), not_worse(steady, wide)):
        assert compared.answer is None


@pytest.mark.parametrize("values", [[0.975] * 5, [0.97, 0.98, 0.975]])
def test_what_is_equal_in_each_draw_is_no_better_and_no_worse(values):
    assert better(values, values).answer is None
    assert grows([values] * 3).answer is None
    assert equal(values, values).answer is True
    assert not_worse(values, values, margin=0.0).answer is True


def test_a_margin_is_allowed_where_accuracies_are_to_be_equal():
    b = [0.5, 0.6, 0.7]
    for shift, same, less in ((0.0, True, None), (-0.009, True, True), (-0.02, False, True), (0.02, False, False)):
        a = [value + shift for value in b]
        assert equal(a, b).answer is same
        assert not_worse(a, b).answer is (shift > -MARGIN)
        assert better(b, a).answer is less
        assert better(a, b).answer is (None if shift == 0 else shift > 0)
    assert equal([5, 6, 7], [6, 7, 8], margin=1).answer is True
    assert equal([5, 6, 7], [7, 8, 9], margin=1).answer is False
    assert not_worse([0.9] * 3, [0.91] * 3).answer is True  # by just the margin, of which sums are rounded
    assert invert(not_worse([0.9] * 3, [0.91] * 3)).answer is False


def test_a_series_grows_where_no_step_falls():
    low, middle, high, wide = [1, 1, 1], [2, 2, 2], [3, 3, 3], [0, 3, 6]
    assert grows([low, middle, high]).answer is True
    assert grows([low, wide, high]).answer is True
    assert grows([low, high, high]).answer is True
    assert grows([low, high, middle]).answer is False
    assert grows([low, middle, low]).answer is False
    assert grows([low, middle, wide]).answer is None
    assert grows([[1], [2]]).answer is None
    assert grows([high]).answer is None
    assert grows([low, middle, high]).comparisons == 3


def test_a_fall_that_is_known_alone_but_not_among_twenty_comparisons_leaves_a_series_open():
    fall = [0.50, 0.50, 0.50, 0.50, 0.50], [0.494, 0.496, 0.492, 0.497, 0.490]
    level = stats.ttest_rel(*fall, alternative="greater").pvalue
    assert ERROR / 2 / 20 < level < ERROR / 2 / 4
    rest = [[0.9] * 5] * 17
    assert grows([[0.1] * 5, *fall, [0.9] * 5]).answer is False
    assert grows([[0.1] * 5, *fall, *rest]).answer is None


def test_of_several_statements_each_is_confirmed_and_one_refutes_by_their_number():
    assert every([YES, YES]).answer is True
    assert every([OPEN, YES]).answer is None
    assert every([OPEN, NO, YES]).answer is False
    assert every([]).answer is None
    unlikely = Evidence(1.0, 0.01)
    assert [every([unlikely] + [YES] * more).answer for more in (0, 1, 2)] == [False, False, None]
    assert every([every([unlikely, YES]), YES]) == Evidence(1.0, 0.01, 3)
    assert every([Evidence(0.02, 0.98)] * 10).answer is True  # all have to be confirmed, so none is by chance
    assert [invert(statement) for statement in (YES, NO, OPEN)] == [NO, YES, OPEN]


def test_one_of_several_statements_is_so_where_one_is_confirmed_and_not_where_each_is_refuted():
    assert some([NO, YES]).answer is True
    assert some([NO, OPEN]).answer is None
    assert some([NO, NO]).answer is False
    assert some([]).answer is None
    assert some([NO, Evidence(1.0, 0.01, 3)]).answer is None


def share_of_studies(compared, answer, *, studies=200):
    """How often a claim of accuracies that `compared` makes from independent noise of 0.6 points over 5 draws has an answer."""
    rng = np.random.default_rng(0)
    return np.mean([compared(lambda level: level + rng.normal(scale=0.006, size=5)).answer is answer for _ in range(studies)])


@pytest.mark.parametrize(
    ("levels", "most_refuted", "most_confirmed"),
    [
        ((0.6, 0.62, 0.62, 0.62), 0.05, 1.0),  # it grows, then stays: 44 % were refuted by two standard errors
        ((0.6, 0.6, 0.6, 0.6), 0.05, 0.05),  # 67 % were
        ((0.6, 0.62, 0.64, 0.66), 0.0, 1.0),
        ((0.6, 0.64, 0.66, 0.62), 1.0, 0.05),
    ],
)
def test_chance_hardly_decides_whether_accuracy_grows_at_each_of_five_n(levels, most_refuted, most_confirmed):
    def compared(draw):
        return every(grows([draw(level) for level in levels]) for _ in range(5))

    assert share_of_studies(compared, False) <= most_refuted
    assert share_of_studies(compared, True) <= most_confirmed
    if levels[-1] == 0.66:
        assert share_of_studies(compared, True) > 0.9
    if levels[-1] == 0.62 and most_refuted == 1.0:
        assert share_of_studies(compared, False) > 0.9


@pytest.mark.parametrize("comparisons", [1, 5])
def test_chance_hardly_decides_whether_equals_are_better_and_two_points_are_seen(comparisons):
    def compared(shift):
        return lambda draw: every(better(draw(0.6 + shift), draw(0.6)) for _ in range(comparisons))

    assert share_of_studies(compared(0), True) + share_of_studies(compared(0), False) <= 0.08
    assert share_of_studies(compared(0.02), True) > 0.8
    assert share_of_studies(compared(0.02), False) == 0


def test_a_verdict_has_its_figures_and_why_there_is_none():
    figures = [against("n = 1", [0.5, 0.6, 0.7], [0.25, 0.25, 0.25])]
    said = "n = 1: 60.0 ± 10.0 against 25.0 ± 0.0, difference +35.0, standard error 5.8"
    for found, draws, verdict, shown in (
        (YES, 3, HOLDS, f"3 draws: {said}"),
        (every([YES, YES]), 3, HOLDS, f"3 draws, 2 comparisons: {said}"),
        (NO, None, FAILS, said),
        (OPEN, 3, UNTESTED, f"inside the noise, both answers are possible (3 draws: {said})"),
        (YES, 1, UNTESTED, f"fewer than 3 draws do not tell (1 draw: {said})"),
    ):
        claim = decide("Table 9", "So it is.", "a rule", found, figures, draws=draws)
        assert (claim.verdict, claim.figures) == (verdict, shown)
    assert decide("Table 9", "So it is.", "", OPEN, figures, draws=3, missing="no images").figures == "no images"
    assert against("n = 1", [0.5], [0.25]) == "n = 1: 50.0 against 25.0, difference +25.0"
    assert f"an error of {100 * ERROR:g} % in all" in RULE
    assert f"fewer than {LEAST_DRAWS} draws" in RULE
