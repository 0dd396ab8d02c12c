"""Verdicts on sentences of the paper: each by a rule that is stated beside it, from the figures of the study alone.

Draws label the same images for all methods, so two methods are compared by the differences of each draw. An answer is True,
False, or None where the draws do not tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from ...report import FAILS, HOLDS, UNTESTED, Claim
from .runs import summary

# Differences are known within this many of their standard errors.
FACTOR = 2.0
LEAST_DRAWS = 3
# Accuracies that differ by less are called equal: one point.
MARGIN = 0.01

RULE = (
    "The draws label the same images for all methods, so accuracies are compared draw by draw. What is said of a difference "
    f"has to be so for all values within {FACTOR:g} standard errors of its mean over the draws; accuracies are called equal "
    f"where they differ by at most {100 * MARGIN:g} point. With fewer than {LEAST_DRAWS} draws, or where both answers lie within "
    "these errors, nothing can be told."
)
SURELY = f"by more than {FACTOR:g} standard errors of the difference over the draws"
WITHIN = f"up to {100 * MARGIN:g} point, for all differences within {FACTOR:g} standard errors of the mean"

Values = Sequence[float]
Answer = bool | None


def decide(
    source: str, text: str, rule: str, holds: Answer, figures: Sequence[str], *, draws: int | None = None, missing: str = ""
) -> Claim:
    """Make a claim of a verdict and the figures that decided; without a verdict it says why.

    Parameters
    ----------
    source, text, rule : str
        Of the claim.
    holds : bool or None
        What the figures say; None where they do not tell.
    figures : sequence of str
        What decided.
    draws : int, optional
        Over how many draws; where the figures are not those of draws, nothing.
    missing : str
        What there is not; then the figures are not looked at.
    """
    if missing:
        return Claim(source, text, UNTESTED, missing, rule)
    shown_figures = "; ".join(figures) if draws is None else f"{draws} draw{'s' * (draws != 1)}: {'; '.join(figures)}"
    few = draws is not None and draws < LEAST_DRAWS
    if holds is not None and not few:
        return Claim(source, text, HOLDS if holds else FAILS, shown_figures, rule)
    why = f"fewer than {LEAST_DRAWS} draws do not tell" if few else "inside the noise, both answers are possible"
    return Claim(source, text, UNTESTED, f"{why} ({shown_figures})", rule)


def interval(a: Values, b: Values) -> tuple[float, float] | None:
    """Return the least and the largest mean difference a − b that the draws allow; None for fewer draws than tell that."""
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    if len(differences) < LEAST_DRAWS:
        return None
    mean_difference, error = float(differences.mean()), _error(differences)
    return mean_difference - FACTOR * error, mean_difference + FACTOR * error


def better(a: Values, b: Values) -> Answer:
    """Return whether a is better than b."""
    return _above(interval(a, b), 0.0)


def not_worse(a: Values, b: Values, *, margin: float = MARGIN) -> Answer:
    """Return whether a is at least b less a margin."""
    return invert(_above(interval(b, a), margin))


def equal(a: Values, b: Values, *, margin: float = MARGIN) -> Answer:
    """Return whether a and b differ by at most a margin."""
    return every([not_worse(a, b, margin=margin), not_worse(b, a, margin=margin)])


def grows(series: Sequence[Values]) -> Answer:
    """Return whether no value falls from one to the next, and the last is above the first."""
    steps = [better(a, b) for a, b in pairwise(series)]
    return False if any(steps) else better(series[-1], series[0])


def every(answers: Iterable[Answer]) -> Answer:
    """Return whether all are so: False as soon as one is not."""
    known = list(answers)
    return False if False in known else None if None in known else True


def invert(answer: Answer) -> Answer:
    """Return the opposite answer."""
    return None if answer is None else not answer


def mean(values: Values) -> float:
    """Return the mean over the draws."""
    return float(np.mean(values))


def shown(values: Values) -> str:
    """Return mean and deviation in percent."""
    average, deviation = summary(values)
    return f"{100 * average:.1f}" if deviation is None else f"{100 * average:.1f} ± {100 * deviation:.1f}"


def against(what: str, a: Values, b: Values) -> str:
    """Say two accuracies, and how far the difference is known."""
    differences = 100 * (np.asarray(a, np.float64) - np.asarray(b, np.float64))
    error = f", standard error {_error(differences):.1f}" if len(differences) > 1 else ""
    return f"{what}: {shown(a)} against {shown(b)}, difference {differences.mean():+.1f}{error}"


def spread(what: str, values: Values) -> str:
    """Say a mean and its standard deviation over the draws, of what is no accuracy."""
    average, deviation = summary(values)
    return f"{what}: {average:.3g}" if deviation is None else f"{what}: {average:.3g} ± {deviation:.2g}"


def _above(between: tuple[float, float] | None, least: float) -> Answer:
    """Return whether a difference is above a value; a rounding error is no difference."""
    if between is None:
        return None
    low, high = between
    return True if low > least + 1e-12 else False if high <= least + 1e-12 else None


def _error(differences: np.ndarray) -> float:
    """Return the standard error of the mean."""
    return float(differences.std(ddof=1) / np.sqrt(len(differences)))
