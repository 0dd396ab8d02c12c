"""Verdicts on sentences of the paper: each by a rule that is stated beside it, from the figures of the study alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...report import FAILS, HOLDS, UNTESTED, Claim
from .runs import summary

# A difference counts from one standard deviation over the draws on, the larger of the two that are compared.
WITHIN = "within one standard deviation over the draws (the larger of both)"

Values = Sequence[float]


def decide(source: str, text: str, rule: str, holds: bool | None, figures: Sequence[str], *, missing: str = "") -> Claim:
    """Make a claim of a verdict and the figures that decided; without a verdict it says what was missing."""
    if holds is None:
        return Claim(source, text, UNTESTED, missing, rule)
    return Claim(source, text, HOLDS if holds else FAILS, "; ".join(figures), rule)


def spread(*several: Values) -> float:
    """Return the largest standard deviation over the draws; 0 where there was one draw."""
    return max(summary(values)[1] or 0.0 for values in several)


def mean(values: Values) -> float:
    """Return the mean over the draws."""
    return float(np.mean(values))


def not_worse(a: Values, b: Values) -> bool:
    """Return whether a is at least b, within one standard deviation."""
    return mean(a) >= mean(b) - spread(a, b) - 1e-12


def better(a: Values, b: Values) -> bool:
    """Return whether a is better than b on average over the draws."""
    return mean(a) > mean(b)


def equal(a: Values, b: Values) -> bool:
    """Return whether a and b differ by less than one standard deviation, or are the same."""
    return abs(mean(a) - mean(b)) <= spread(a, b) + 1e-12


def shown(values: Values) -> str:
    """Return mean and deviation in percent."""
    average, deviation = summary(values)
    return f"{100 * average:.1f}" if deviation is None else f"{100 * average:.1f} ± {100 * deviation:.1f}"


def against(what: str, a: Values, b: Values) -> str:
    """Say two accuracies."""
    return f"{what}: {shown(a)} against {shown(b)}"
