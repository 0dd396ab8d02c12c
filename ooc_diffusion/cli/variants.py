"""Options of the variants of the paper, which graph, diffuse and evaluate share: weights of edges, and what is iterated."""

from __future__ import annotations

from typing import Any

import click

from .options import Command, Number, refuse_unread

_EDGES = [
    click.option(
        "--weighting",
        type=click.Choice(["constant", "gaussian", "meaningful"]),
        default="constant",
        show_default=True,
        help="Weight of an edge: 1, exp(-x²/σ²) of the distance x, or s (1 - exp(-λ s))^k, s falling from 1 at the first "
        "neighbor to 0 at the last.",
    ),
    click.option("--sigma", type=Number(0, min_open=True), default=0.5, show_default=True, help="σ of --weighting gaussian."),
    click.option("--rate", type=Number(0, min_open=True), default=10.0, show_default=True, help="λ of --weighting meaningful."),
    click.option(
        "--mutual", is_flag=True, help="Keep an edge only where both images list each other; images may then lose all edges."
    ),
]
_ETA = [
    click.option(
        "--normalization",
        type=click.Choice(["columns", "none", "rows", "sinkhorn", "gamma"]),
        default="columns",
        show_default=True,
        help="η: every class has the same mass (columns), every image (rows), both (sinkhorn); none; or Γ_r of Markov "
        "clustering. rows, sinkhorn, gamma and --reset take all classes in every iteration, with 8 bytes of disk per "
        "image and class.",
    ),
    click.option("--reset", is_flag=True, help="Set labelled images back to their labels after each iteration."),
    click.option(
        "--power",
        type=Number(1, 2, min_open=True),
        default=2.0,
        show_default=True,
        help="r of gamma, the power of each entry.",
    ),
    click.option(
        "--prior",
        metavar="FILE|estimate",
        help="How frequent the classes are, for columns and sinkhorn: a CSV class,frequency, or what logistic regression on the "
        "labelled images predicts for all in the graph.  [default: all the same]",
    ),
    click.option(
        "--prior-power",
        type=Number(0),
        default=1.0,
        show_default=True,
        help="Power that these frequencies are raised to.",
    ),
    click.option(
        "--alpha",
        type=Number(0, 1, min_open=True, max_open=True),
        help="α of Zhou's diffusion, L ← α 𝒲 L + (1 - α) L_0 with the symmetric 𝒲, for columns and none.  [default: L ← W L]",
    ),
    click.option(
        "--solver",
        type=click.Choice(["iterate", "conjugate-gradient"]),
        default="iterate",
        show_default=True,
        help="With --alpha: iterations, or their limit, with twice the memory for each column.",
    ),
    click.option(
        "--tolerance",
        type=Number(0, 1, min_open=True, max_open=True),
        default=1e-5,
        show_default=True,
        help="Residual of each entry, relative to the entry itself, at which conjugate-gradient ends.",
    ),
    click.option(
        "--max-steps",
        type=click.IntRange(min=1),
        default=1000,
        show_default=True,
        help="Steps after which it ends with a warning.",
    ),
]
# Their parameters, in the order of the help.
EDGE_NAMES = ("weighting", "sigma", "rate", "mutual")
ETA_NAMES = ("normalization", "reset", "power", "alpha", "solver", "tolerance", "max_steps")
PRIOR_NAMES = ("prior", "prior_power")


def edge_options(command: Command) -> Command:
    """Add the options that say how edges are weighted."""
    for option in reversed(_EDGES):
        command = option(command)
    return command


def eta_options(command: Command) -> Command:
    """Add the options that say what is iterated, and the prior."""
    for option in reversed(_ETA):
        command = option(command)
    return command


def refuse_unread_edges(options: dict[str, Any]) -> None:
    """Refuse parameters of weights that are not those of the weighting."""
    refuse_unread(options["weighting"] == "gaussian", "sigma", "--weighting gaussian")
    refuse_unread(options["weighting"] == "meaningful", "rate", "--weighting meaningful")


def refuse_unread_eta(options: dict[str, Any]) -> None:
    """Refuse parameters that nothing reads with the η, prior and solver that were given."""
    refuse_unread(options["normalization"] == "gamma", "power", "--normalization gamma")
    refuse_unread(options["prior"] is not None, "prior_power", "--prior")
    refuse_unread(options["alpha"] is not None, "solver", "--alpha")
    for name in ("tolerance", "max_steps"):
        refuse_unread(options["solver"] == "conjugate-gradient", name, "--solver conjugate-gradient")


def edge_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return what makes edges other than they are by default."""
    read = {"gaussian": ("sigma",), "meaningful": ("rate",)}.get(options["weighting"], ())
    found = {"weighting": options["weighting"], **{name: options[name] for name in read}} if read else {}
    return {**found, "mutual": True} if options["mutual"] else found


def eta_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return what makes iterations other than they are by default."""
    found = {"normalization": options["normalization"]} if options["normalization"] != "columns" else {}
    if options["normalization"] == "gamma":
        found["power"] = options["power"]
    if options["reset"]:
        found["reset"] = True
    if options["alpha"] is not None:
        found["alpha"] = options["alpha"]
    if options["solver"] != "iterate":
        found |= {name: options[name] for name in ("solver", "tolerance", "max_steps")}
    return found
