"""Table 1 and figure 5: weights of edges, and η with their parameters, on group 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...evaluation import MEASURES, mean_std, paper
from ...report import Cell, Chapter, Chart, Claim, Grid, Line
from .accuracies import NO_BACKGROUND, other_measure
from .claims import AT_MOST, MARGIN, Evidence, Values, against, better, decide, equal, every, invert, mean, not_worse, unknown
from .runs import Runs


@dataclass(frozen=True)
class Swept:
    """A variant with one parameter, and the values that are tried."""

    name: str
    parameter: str
    values: tuple[float, ...]
    options: Callable[[float], dict[str, Any]]

    def possible(self, runs: Runs, setting: str) -> bool:
        """Return whether it can be run: logistic regression predicts a prior from descriptors, which a background may lack."""
        return "prior_power" not in self.options(self.values[0]) or runs.tells_prior(setting)


_ALPHAS = (0.5, 0.8, 0.9, 0.95, 0.99)
_SOLVED = {"solver": "conjugate-gradient"}
SWEPT = (
    Swept("Gaussian", "σ", (0.1, 0.2, 0.35, 0.5, 0.75, 1.0), lambda v: {"weights": {"weighting": "gaussian", "sigma": v}}),
    Swept(
        "meaningful neighbors",
        "λ",
        (0.1, 1.0, 3.0, 10.0, 30.0, 100.0),
        lambda v: {"weights": {"weighting": "meaningful", "rate": v}},
    ),
    Swept("η Γ_r", "r", (1.05, 1.1, 1.25, 1.5, 2.0), lambda v: {"eta": {"normalization": "gamma", "power": v}}),
    Swept("η columns, prior", "power", (0.0, 0.25, 0.5, 0.75, 1.0), lambda v: {"prior_power": v}),
    Swept("Zhou et al.", "α", _ALPHAS, lambda v: {"eta": {"alpha": v}}),
    Swept("Zhou et al., limit (CG)", "α", _ALPHAS, lambda v: {"eta": {"alpha": v, **_SOLVED}}),
    Swept(
        "Zhou et al., limit (CG), mutual", "α", _ALPHAS, lambda v: {"weights": {"mutual": True}, "eta": {"alpha": v, **_SOLVED}}
    ),
)
PLAIN: dict[str, dict[str, Any]] = {
    "constant": {},
    "η none": {"eta": {"normalization": "none"}},
    "η rows": {"eta": {"normalization": "rows"}},
    "η Sinkhorn": {"eta": {"normalization": "sinkhorn"}},
    "η columns": {},
    "mutual neighbors": {"weights": {"mutual": True}},
    "seeds reset": {"eta": {"normalization": "columns", "reset": True}},
}
# In place of an accuracy.
_NOT_RUN = "–"
# The order of the paper's table, with what it does not have behind.
_ROWS = (
    "constant",
    "Gaussian",
    "meaningful neighbors",
    "η none",
    "η Sinkhorn",
    "η columns",
    "η Γ_r",
    "η columns, prior",
    "η rows",
    "seeds reset",
    "mutual neighbors",
    "Zhou et al.",
    "Zhou et al., limit (CG)",
    "Zhou et al., limit (CG), mutual",
)


# What the paper says of two rows of table 1: where, what, the rows, how they are compared, and that in words.
_COMPARED: tuple[tuple[str, str, str, str, Callable[[Values, Values], Evidence], str], ...] = (
    (
        "Table 1",
        "Weighting edges by distance gains nothing: the best Gaussian is no better than constant weights.",
        "constant",
        "Gaussian",
        not_worse,
        f"constant weights are surely {AT_MOST} below the best Gaussian",
    ),
    (
        "Table 1, 3.4",
        "Columns must be normalized: without η the accuracy is lower.",
        "η columns",
        "η none",
        better,
        "the accuracy is surely higher with columns normalized than without η",
    ),
    (
        "Table 1",
        "Sinkhorn's normalization is no better than that of columns.",
        "η columns",
        "η Sinkhorn",
        not_worse,
        f"columns are surely {AT_MOST} below Sinkhorn",
    ),
    (
        "Table 1",
        "The non-linearity Γ_r gains nothing, even with its best r.",
        "η columns",
        "η Γ_r",
        not_worse,
        f"columns are surely {AT_MOST} below Γ_r with its best r",
    ),
    (
        "Table 1, appendix B",
        "A prior estimated by logistic regression gains nothing over columns that sum to one, even with its best power.",
        "η columns",
        "η columns, prior",
        not_worse,
        f"columns without a prior are surely {AT_MOST} below columns with one, with its best power",
    ),
    (
        "3.3",
        "The loss of Zhou et al. (fitting and smoothness) is no better than plain diffusion stopped early.",
        "η columns",
        "Zhou et al.",
        not_worse,
        f"plain diffusion is surely {AT_MOST} below that of Zhou et al. with its best α",
    ),
    (
        "3.3",
        "Resetting the labelled images in each iteration hurts.",
        "η columns",
        "seeds reset",
        better,
        "the accuracy is surely higher without reset than with it",
    ),
)


def smooth(runs: Runs) -> Chapter:
    """Logistic regression that is to be smooth over the graph."""
    found, n = runs.smooth(), runs.n_parameters
    accuracies = found.values("accuracy", n)[:, :, MEASURES.index(runs.measure)]
    values = {f"μ = {mu:g}": column.tolist() for mu, column in zip(found.record["mus"], accuracies.T, strict=True)}
    plain, *others = values.values()
    best = max(others, key=mean)
    claim = decide(
        "3.3, 4.4",
        "Regularizing logistic regression by the graph changes nothing, even with the best weight.",
        f"the accuracies with the best weight of the graph and without it surely differ by {AT_MOST}",
        equal(best, plain),
        [against("best weight against none", best, plain)],
        draws=len(plain),
        missing=unknown(runs, 1),
    )
    return Chapter(
        "smooth",
        "Logistic regression that is smooth over the graph",
        f"{n} labelled images per novel class, group 1, in-domain; μ weighs the differences of predictions along edges.",
        [Grid(f"{runs.label} accuracy in %", ["", *values], [("logistic", [mean_std(each) for each in values.values()])])],
        claims=[claim],
    )


def _settings(runs: Runs) -> list[tuple[str, str, int | None]]:
    found = runs.settings_of()
    return [found[0], *found[-2:-1], found[-1]] if runs.sizes else found


def table1(runs: Runs) -> Chapter:
    """Weights of edges, and η."""
    settings = _settings(runs)
    values: dict[str, dict[str, Values]] = {}
    best: dict[str, dict[str, float]] = {}
    n, measure = runs.n_parameters, runs.measure
    for name, setting, size in settings:
        for variant, options in PLAIN.items():
            found = runs.parameter(setting, size, **options)
            values.setdefault(variant, {})[name] = found.diffusion(n, measure)
        for swept in (swept for swept in SWEPT if swept.possible(runs, setting)):
            tried = {v: runs.parameter(setting, size, **swept.options(v)).diffusion(n, measure) for v in swept.values}
            v = max(tried, key=lambda value: mean(tried[value]))
            values.setdefault(swept.name, {})[name] = tried[v]
            best.setdefault(swept.name, {})[name] = v
    names = [name for name, _, _ in settings]
    rows: list[tuple[str, list[Cell]]] = [
        (variant, [mean_std(values[variant][name]) if name in values[variant] else _NOT_RUN for name in names])
        for variant in _ROWS
    ]
    chosen = [
        (
            f"{swept.parameter} of {swept.name}",
            [f"{best[swept.name][name]:g}" if name in best[swept.name] else _NOT_RUN for name in names],
        )
        for swept in SWEPT
    ]
    reported = [(variant, [*map(paper.fractions, figures)]) for variant, figures in paper.TABLE_1.items()]
    return Chapter(
        "table1",
        "Table 1: weights of edges, and η",
        f"{n} labelled images per novel class, group 1, the best number of iterations of each, but for limits of Zhou et al., "
        "solved for by conjugate gradients; where there is a parameter, the best value of those in figure 5."
        + other_measure(runs),
        [Grid(f"{runs.label} accuracy in %", ["", *names], rows), Grid("Best parameters", ["", *names], chosen)],
        [],
        [Grid("In the paper: top-5 accuracy in %, n = 2", ["", *paper.TABLE_1_COLUMNS], reported)],
        _table1_claims(values, names, unknown(runs, 1)),
    )


def _table1_claims(values: dict[str, dict[str, Values]], names: list[str], missing: str) -> list[Claim]:
    claims = [_meaningful_claim(values, names, missing)]
    for source, text, a, b, holds, rule in _COMPARED:
        ran = [name for name in names if name in values[a] and name in values[b]]
        good = every(holds(values[a][name], values[b][name]) for name in ran)
        figures = [against(name, values[a][name], values[b][name]) for name in ran]
        figures += [f"{name}: not run, its images have no descriptors" for name in names if name not in ran]
        draws = len(values[a][ran[0]])
        claims.append(decide(source, text, f"in each setting {rule}", good, figures, draws=draws, missing=missing))
    return claims


def _meaningful_claim(values: dict[str, dict[str, Values]], names: list[str], missing: str) -> Claim:
    text = "Meaningful neighbors do as well without background and in-domain, but lose on images of another collection."
    others = [name for name in names if name not in ("none", "in-domain")]
    a, b = values["meaningful neighbors"], values["constant"]
    found = every(invert(not_worse(a[name], b[name])) if name in others else not_worse(a[name], b[name]) for name in names)
    rule = (
        f"they are surely {AT_MOST} below constant weights without background and in-domain. Over another collection they are "
        f"surely more than {100 * MARGIN:g} point below"
    )
    figures = [against(name, a[name], b[name]) for name in names]
    missing = missing if others else NO_BACKGROUND
    return decide("Table 1", text, rule, found, figures, draws=len(a[names[0]]), missing=missing)


def figure5(runs: Runs) -> Chapter:
    """Accuracy over the values of each parameter."""
    settings = _settings(runs)
    n, measure = runs.n_parameters, runs.measure
    charts, grids = [], []
    for swept in SWEPT:
        lines = [
            Line(
                name,
                list(swept.values),
                [mean_std(runs.parameter(setting, size, **swept.options(v)).diffusion(n, measure)) for v in swept.values],
            )
            for name, setting, size in settings
            if swept.possible(runs, setting)
        ]
        charts.append(Chart(f"{swept.parameter} of {swept.name}", swept.parameter, f"{runs.label} accuracy (%)", lines))
        heads = [swept.parameter, *(f"{v:g}" for v in swept.values)]
        grids.append(Grid(f"{swept.name}: {runs.label} accuracy in %", heads, [(line.name, line.y) for line in lines]))
    return Chapter(
        "figure5",
        "Figure 5: parameters of weights and η",
        f"{n} labelled images per novel class, group 1, the best number of iterations of each, but for limits.",
        grids,
        charts,
    )
