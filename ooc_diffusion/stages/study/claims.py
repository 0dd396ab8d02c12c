"""Verdicts on sentences of the paper: each by a rule that is stated beside it, from the figures of the study alone.

Draws label the same images for all methods, so two methods are compared by the differences of each draw. What is compared gives
`Evidence`, that of a claim follows from that of its comparisons, and the verdict from that: it holds, does not, or the draws do
not tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from ...evaluation import mean_std
from ...report import FAILS, HOLDS, UNTESTED, Claim
from .runs import Runs

# How often a verdict may be wrong by chance: half of it for each of the two.
ERROR = 0.05
LEAST_DRAWS = 3
# Accuracies that differ by less are called equal: one point.
MARGIN = 0.01
# Sums of the same numbers in another order differ by less.
_ROUNDING = 1e-12

_EACH = f"{50 * ERROR:g} %"
RULE = (
    "A draw labels the same images for all methods. So two methods are compared by their difference in each draw, with "
    f"Student's t-test of the mean. What it confirms at an error of {_EACH} is called sure: it is beyond the noise of the draws. "
    "A claim may take several comparisons. It holds where each of them is surely so. It does not hold where one of them is "
    f"surely not so, at an error of {_EACH} divided by their number. That is an error of {100 * ERROR:g} % in all. Accuracies "
    f"are equal where they surely differ by at most {100 * MARGIN:g} point. An n at which all images of the novel classes are "
    f"labelled is left out: its draws are all the same. Nothing can be told with fewer than {LEAST_DRAWS} draws, where neither "
    "answer is sure, or where what is said to differ is equal in each draw."
)
# How rules say what the margin allows.
AT_MOST = f"at most {100 * MARGIN:g} point"

Values = Sequence[float]


class Evidence(NamedTuple):
    """What figures tell of a statement.

    Parameters
    ----------
    untrue, true : float
        How often figures speak as clearly for the statement though it is untrue, and as clearly against it though it is true.
    comparisons : int
        How many were made, each of which may refute it.
    """

    untrue: float
    true: float
    comparisons: int = 1

    @property
    def answer(self) -> bool | None:
        """Whether the statement is so; None where the figures do not tell."""
        if self.untrue <= ERROR / 2:
            return True
        return False if self.true * self.comparisons <= ERROR / 2 else None


# Of what is known without draws.
YES, NO, OPEN = Evidence(0.0, 1.0), Evidence(1.0, 0.0), Evidence(1.0, 1.0)


def decide(
    source: str, text: str, rule: str, found: Evidence, figures: Sequence[str], *, draws: int | None = None, missing: str = ""
) -> Claim:
    """Make a claim of a verdict and the figures that decided; without a verdict it says why.

    Parameters
    ----------
    source, text, rule : str
        Of the claim.
    found : Evidence
        What the figures say.
    figures : sequence of str
        What decided.
    draws : int, optional
        Over how many draws; where the figures are not those of draws, nothing.
    missing : str
        What there is not; then the figures are not looked at.
    """
    if missing:
        return Claim(source, text, UNTESTED, missing, rule)
    shown_figures = "; ".join(figures)
    if draws is not None:
        compared = f", {found.comparisons} comparisons" if found.comparisons > 1 else ""
        shown_figures = f"{draws} draw{'s' * (draws != 1)}{compared}: {shown_figures}"
    few = draws is not None and draws < LEAST_DRAWS
    if found.answer is not None and not few:
        return Claim(source, text, HOLDS if found.answer else FAILS, shown_figures, rule)
    why = f"fewer than {LEAST_DRAWS} draws do not tell" if few else "inside the noise, both answers are possible"
    return Claim(source, text, UNTESTED, f"{why} ({shown_figures})", rule)


def better(a: Values, b: Values) -> Evidence:
    """Say whether a is better than b; values that are equal in each draw do not tell."""
    return _positive(_differences(a, b))


def not_worse(a: Values, b: Values, *, margin: float = MARGIN) -> Evidence:
    """Say whether a is at least b less a margin; values that differ by just the margin in each draw are so."""
    return _positive(_differences(a, b) + margin + 2 * _ROUNDING)


def equal(a: Values, b: Values, *, margin: float = MARGIN) -> Evidence:
    """Say whether a and b differ by at most a margin: one comparison, since they cannot differ in both directions."""
    return every([not_worse(a, b, margin=margin), not_worse(b, a, margin=margin)])._replace(comparisons=1)


def grows(series: Sequence[Values]) -> Evidence:
    """Say whether no value is known to fall from one to the next, and the last is above the first; of one value nothing."""
    if len(series) < 2:
        return OPEN
    falls = [better(a, b) for a, b in pairwise(series)]
    steps = [Evidence(1.0 if fall.answer else 0.0, fall.untrue) for fall in falls]
    return every([*steps, better(series[-1], series[0])])


def every(statements: Iterable[Evidence]) -> Evidence:
    """Say whether all are so: each has to be confirmed, one is enough to refute it."""
    known = list(statements)
    if not known:
        return OPEN
    return Evidence(max(one.untrue for one in known), min(one.true for one in known), sum(one.comparisons for one in known))


def some(statements: Iterable[Evidence]) -> Evidence:
    """Say whether one is so, of statements that exclude each other: one has to be confirmed, each to be refuted."""
    known = list(statements)
    if not known:
        return OPEN
    return Evidence(min(one.untrue for one in known), max(one.true for one in known), max(one.comparisons for one in known))


def invert(statement: Evidence) -> Evidence:
    """Say the opposite, of one comparison."""
    return Evidence(statement.true, statement.untrue)


def left_out(sizes: Sequence[int], kept: Sequence[int]) -> list[str]:
    """Say which numbers of labelled images tell nothing, and why."""
    gone = [n for n in sizes if n not in kept]
    return [f"left out: {same_draws(gone)}"] if gone else []


def same_draws(sizes: Sequence[int]) -> str:
    """Say why some numbers of labelled images tell nothing."""
    return f"n = {', '.join(map(str, sizes))} leaves no image of the novel classes without label, so all draws are the same"


def unknown(runs: Runs, group: int) -> str:
    """Say why the draws of a group tell nothing in studies of parameters; empty where they do."""
    n = runs.n_parameters
    return "" if n in runs.n_drawn[group] else same_draws([n])


def mean(values: Values) -> float:
    """Return the mean over the draws."""
    return float(np.mean(values))


def shown(values: Values) -> str:
    """Return mean and deviation in percent."""
    average, deviation = mean_std(values)
    return f"{100 * average:.1f}" if deviation is None else f"{100 * average:.1f} ± {100 * deviation:.1f}"


def against(what: str, a: Values, b: Values) -> str:
    """Say two accuracies, and how far the difference is known."""
    differences = 100 * _differences(a, b)
    error = f", standard error {_error(differences):.1f}" if len(differences) > 1 else ""
    return f"{what}: {shown(a)} against {shown(b)}, difference {differences.mean():+.1f}{error}"


def spread(what: str, values: Values) -> str:
    """Say a mean and its standard deviation over the draws, of what is no accuracy."""
    average, deviation = mean_std(values)
    return f"{what}: {average:.3g}" if deviation is None else f"{what}: {average:.3g} ± {deviation:.2g}"


def _positive(differences: np.ndarray) -> Evidence:
    """Say whether a mean is above zero, by Student's t-test."""
    if len(differences) < LEAST_DRAWS:
        return OPEN
    average, error = float(differences.mean()), _error(differences)
    if error > _ROUNDING:
        below = float(stdtr(len(differences) - 1, average / error))
        return Evidence(1.0 - below, below)
    return OPEN if abs(average) <= _ROUNDING else YES if average > 0 else NO


def _differences(a: Values, b: Values) -> np.ndarray:
    return np.asarray(a, np.float64) - np.asarray(b, np.float64)


def _error(differences: np.ndarray) -> float:
    """Return the standard error of the mean."""
    return float(differences.std(ddof=1) / np.sqrt(len(differences)))
