"""When L fills up, and which iteration is best: with fewer neighbors per node, and over larger backgrounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ...report import Claim
from .accuracies import NO_BACKGROUND
from .claims import Values, decide, equal, every, grows, not_worse, spread, unknown
from .runs import Runs

# L counts as full from this share of its largest fill on.
FULL = 0.99


def first_full(share: np.ndarray) -> list[int]:
    """Return the iteration at which L becomes full in each draw, from the share of entries above zero (draws, T + 1)."""
    return [int(np.argmax(of_draw >= FULL * of_draw[-1])) for of_draw in share]


def claims_by_iteration(runs: Runs, best: Mapping[str, Values], filled: Mapping[str, Values]) -> list[Claim]:
    """When L becomes full: about when an iteration is best, and the later the larger the background (4.6).

    Parameters
    ----------
    runs : Runs
        What the study runs on.
    best, filled : mapping of str to sequence of int
        The best iteration, and the first at which L is full, of each draw, by the names of the settings.
    """
    outside = {name: of for name, of in filled.items() if name != "in-domain"}
    return [_best_when_full(runs, best, filled), _later_with_size(runs, outside)]


def may_be_later(runs: Runs, best: Mapping[str, Values]) -> str:
    """Say where the best iteration of a draw is the last that was run, which may stand for any later one; empty where none is."""
    cut = [name for name, values in best.items() if max(values) == runs.max_iter]
    return f"more than {runs.max_iter} iterations may be best ({', '.join(cut)}); raise --max-iter" if cut else ""


def _best_when_full(runs: Runs, best: Mapping[str, Values], filled: Mapping[str, Values]) -> Claim:
    """The best iteration is about that at which L becomes full.

    The last iteration that was run may stand for any later one: where that is the best of a draw, it can be too late beyond
    doubt, but not near, nor too early.
    """
    found = every(
        not_worse(filled[name], of, margin=1) if max(of) == runs.max_iter else equal(of, filled[name], margin=1)
        for name, of in best.items()
    )
    return decide(
        "Figure 3, 4.6",
        "The best iteration is about the one at which L becomes full.",
        f"in each setting the best iteration is surely at most one away from the first at which L is full. It is full with "
        f"{FULL:.0%} of the entries that are ever above zero",
        found,
        [f"{spread(f'{name}, best after', best[name])}, {spread('full after', filled[name])}" for name in best],
        draws=runs.protocol.draws,
        missing=unknown(runs, 1) or _not_full(runs, filled) or ("" if found.answer is False else may_be_later(runs, best)),
    )


def _later_with_size(runs: Runs, filled: Mapping[str, Values]) -> Claim:
    """The larger the background, the later L becomes full."""
    return decide(
        "Figure 3, 4.6",
        "The larger the background, the later L becomes full.",
        "L is surely full later over the largest background than without one, and no step to the next larger background surely "
        f"makes it earlier. It is full with {FULL:.0%} of the entries that are ever above zero",
        grows([*filled.values()]),
        [", ".join(spread(name, of) for name, of in filled.items())],
        draws=runs.protocol.draws,
        missing=(unknown(runs, 1) or _not_full(runs, filled)) if runs.sizes else NO_BACKGROUND,
    )


def _not_full(runs: Runs, filled: Mapping[str, Values]) -> str:
    """Say where L fills up to the last iteration that was run: what it would still fill is not known; empty where nowhere."""
    growing = [name for name, of in filled.items() if max(of) == runs.max_iter]
    return f"L is not full after {runs.max_iter} iterations ({', '.join(growing)}); raise --max-iter" if growing else ""


def claims_by_neighbors(runs: Runs, tried: Mapping[str, Iterable[int]]) -> list[Claim]:
    """The fewer neighbors, the later L fills up and the later the best iteration (4.6).

    Parameters
    ----------
    runs : Runs
        What the study runs on.
    tried : mapping of str to iterable of int
        Numbers of neighbors that figure 2 runs with, by the names of the settings.
    """
    n, full, best = runs.n_parameters, {}, {}
    for name, setting, size in runs.settings_of():
        found = {k: runs.parameter(setting, size, k=k) for k in sorted(tried[name], reverse=True)}
        full[name] = {k: first_full(one.values("reached", n)) for k, one in found.items()}
        best[name] = {k: one.best_of_draws(n, "curves", runs.measure) for k, one in found.items()}
    return [
        _later(runs, "The fewer neighbors a node has, the later L fills up.", "iteration at which L becomes full", full),
        _later(runs, "The fewer neighbors a node has, the more iterations are best.", "best iteration", best),
    ]


def _later(runs: Runs, text: str, what: str, found: Mapping[str, Mapping[int, Values]]) -> Claim:
    """Say whether iterations come later from many neighbors to few, in each setting.

    The last iteration that was run may stand for any later one, so a k with which a draw comes to it tells nothing.
    """
    known = {name: {k: of for k, of in by_k.items() if max(of) < runs.max_iter} for name, by_k in found.items()}
    cut = [f"{name}, k = {k}" for name, by_k in found.items() for k in by_k if k not in known[name]]
    few = [name for name, by_k in known.items() if len(by_k) < 2]
    rule = (
        f"in each setting at n = {runs.n_parameters} the {what} is surely later for the smallest k than for the largest, and no "
        "step to the next smaller k surely makes it earlier. Left out is a k with which a draw comes to the last of "
        f"{runs.max_iter} iterations"
    )
    figures = [f"{name}: {', '.join(spread(f'k = {k}', of) for k, of in by_k.items())}" for name, by_k in known.items()]
    if cut:
        figures.append(f"left out: {'; '.join(cut)}")
    return decide(
        "4.6",
        text,
        rule,
        every(grows(list(by_k.values())) for by_k in known.values()),
        figures,
        draws=runs.protocol.draws,
        missing=unknown(runs, 1) or (f"fewer than two k are known ({', '.join(few)}); raise --max-iter" if few else ""),
    )
