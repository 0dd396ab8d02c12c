"""What the paper says of late fusion, beside the better of its two inputs."""

from __future__ import annotations

from collections.abc import Mapping

from ...evaluation import mean_std
from ...report import Claim
from .claims import AT_MOST, Evidence, Values, against, better, decide, equal, every, left_out, mean, not_worse, same_draws
from .runs import Found, Runs


def fusion_claims(runs: Runs, found: Found, logistic: Found, source: str, over: str) -> list[Claim]:
    """The fusion is at least as good as the better of its two inputs, and significantly above it."""
    pairs = _fused_and_best(runs, found, logistic)
    as_good = every(not_worse(fused, best, margin=mean_std(best)[1] or 0.0) for fused, best in pairs.values())
    return [
        _of_fusion(
            runs,
            pairs,
            source,
            f"Fusion is at least as good as diffusion and as logistic regression, at every n (over {over}).",
            "at each n the fusion is surely at most one standard deviation below the better of the two. The table shows that "
            "deviation; its own error is not counted",
            as_good,
        ),
        _of_fusion(
            runs,
            pairs,
            source,
            f"Fusion is significantly above diffusion and logistic regression, at every n (over {over}).",
            "at each n the fusion is surely above the better of the two",
            every(better(fused, best) for fused, best in pairs.values()),
        ),
    ]


def little_gained(runs: Runs, inside: Found, logistic: Found) -> Claim:
    """What the paper says besides of the same fusion."""
    pairs = _fused_and_best(runs, inside, logistic)
    return _of_fusion(
        runs,
        pairs,
        "4.4",
        "Fusion over in-domain images is not very effective: it gains little at any n.",
        f"at each n the fusion and the better of diffusion and logistic regression surely differ by {AT_MOST}",
        every(equal(fused, best) for fused, best in pairs.values()),
    )


def _fused_and_best(runs: Runs, found: Found, logistic: Found) -> dict[int, tuple[Values, Values]]:
    """Return, for each number of labelled images that is drawn, the accuracies of the fusion and of the better of its inputs."""
    measure = runs.measure
    return {
        n: (found.fusion(n, measure), max(found.diffusion(n, measure), logistic.accuracy(n, measure), key=mean))
        for n in runs.n_drawn[2]
    }


def _of_fusion(
    runs: Runs, pairs: Mapping[int, tuple[Values, Values]], source: str, text: str, rule: str, found: Evidence
) -> Claim:
    return decide(
        source,
        text,
        rule,
        found,
        [*(against(f"n = {n}", fused, best) for n, (fused, best) in pairs.items()), *left_out(runs.n_tables, [*pairs])],
        draws=runs.protocol.draws,
        missing="" if pairs else same_draws(runs.n_tables),
    )
