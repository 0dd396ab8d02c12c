"""Fewer neighbors per node: whether L fills up later, and more iterations are best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ...report import Claim
from .claims import SURELY, Values, decide, every, grows, spread, unknown
from .runs import Runs

# L counts as full from this share of its largest fill on.
FULL = 0.99


def first_full(share: np.ndarray) -> list[int]:
    """Return the iteration at which L becomes full in each draw, from the share of entries above zero (draws, T + 1)."""
    return [int(np.argmax(of_draw >= FULL * of_draw[-1])) for of_draw in share]


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
        f"at n = {runs.n_parameters} in each setting the {what} of a draw does not fall {SURELY} from one k to the next smaller "
        f"one, and is later {SURELY} for the smallest than for the largest; k with which a draw comes to the last of "
        f"{runs.max_iter} iterations are left out"
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
