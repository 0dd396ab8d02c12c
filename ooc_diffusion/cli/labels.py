"""Commands from the graph to labels: diffuse, classify, evaluate."""

# ruff: noqa: D301 - \b must reach click as the character that it is

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..errors import BadOption
from .options import STORE, Command, common_options, refuse_unread

LABELS = click.option(
    "--labels", required=True, type=click.Path(), help="CSV with the columns path,label (or row,label): the few labelled images."
)
CLASSES = click.option(
    "--classes", type=click.Path(), help="Text file with all classes, one per line.  [default: those in --labels]"
)
N_ITER = click.option(
    "--n-iter", type=click.IntRange(min=0), help="Number of iterations.  [default: by cross-validation on the labelled images]"
)
_STORED = "How L is stored; bfloat16 takes half the memory and rounds each entry to 8 bits in each iteration. "


def precision(limits: str) -> Callable[[Command], Command]:
    """Return the option ``--precision`` with what its help says of its limits."""
    kinds = click.Choice(["float32", "bfloat16"])
    return click.option("--precision", type=kinds, default="float32", show_default=True, help=_STORED + limits)


METHOD = click.option(
    "--method",
    type=click.Choice(["fusion", "diffusion", "logistic", "knn"]),
    default="fusion",
    show_default=True,
    help="Diffusion fused with logistic regression, either alone, or the 5 nearest labelled images.",
)


@click.command("diffuse")
@STORE
@LABELS
@CLASSES
@click.option(
    "--rows",
    type=click.Choice(["auto", "tests", "nodes"]),
    default="auto",
    show_default=True,
    help="Which images get scores: the tests, or all in the graph; auto: tests where there are any.",
)
@N_ITER
@click.option(
    "--normalization",
    type=click.Choice(["columns", "none", "rows", "sinkhorn", "gamma"]),
    default="columns",
    show_default=True,
    help="η: every class has the same mass (columns), every image (rows), both (sinkhorn); none; or Γ_r of Markov clustering. "
    "rows, sinkhorn, gamma and --reset take all classes in every iteration, with 8 bytes of disk per image and class.",
)
@click.option("--reset", is_flag=True, help="Set labelled images back to their labels after each iteration.")
@click.option(
    "--power",
    type=click.FloatRange(1, 2, min_open=True),
    default=2.0,
    show_default=True,
    help="r of gamma, the power of each entry.",
)
@precision("Not with rows, sinkhorn, gamma, --reset or a GPU.")
@common_options
def diffuse_command(store: str, **options: Any) -> dict[str, Any]:
    """Diffuse the labels of a few images over the graph, L ← W L.

    \b
    Example:
      ooc-diffusion diffuse --store s --labels few.csv --n-iter 3 --memory-budget 4GiB
    """
    from ..stages.diffuse import diffuse

    refuse_unread(options["normalization"] == "gamma", "power", "--normalization gamma")
    return diffuse(store, **options)


@click.command("classify")
@STORE
@METHOD
@click.option(
    "--coefficient",
    type=click.FloatRange(0, 1),
    help="Weight of logistic regression in the fusion.  [default: by cross-validation on the labelled images]",
)
@click.option("--output", type=click.Path(), help="CSV to write: path,label,confidence,origin.")
@common_options
def classify_command(store: str, **options: Any) -> dict[str, Any]:
    """Predict a class for every image that was given scores.

    \b
    Example:
      ooc-diffusion classify --store s --output predictions.csv
    """
    from ..stages.classify import classify

    refuse_unread(options["method"] == "fusion", "coefficient", "--method fusion")
    return classify(store, **options)


@click.command("evaluate")
@STORE
@click.option("--n-per-class", default="1,2,5,10,20", show_default=True, metavar="N,N,...", help="Labelled images per class.")
@click.option("--draws", type=click.IntRange(min=1), default=5, show_default=True, help="Draws of the labelled images.")
@click.option("--max-iter", type=click.IntRange(min=1), default=30, show_default=True, help="Largest number of iterations.")
@precision("Diffusion runs on the CPU here.")
@common_options
def evaluate_command(store: str, n_per_class: str, **options: Any) -> dict[str, Any]:
    """Measure all methods with few labels per class, drawn several times.

    \b
    Example:
      ooc-diffusion evaluate --store s --n-per-class 1,2,5 --json
    """
    from ..stages.evaluate import evaluate

    try:
        sizes = [int(n) for n in n_per_class.split(",")]
    except ValueError:
        raise BadOption(f"n-per-class {n_per_class!r} is no list of numbers such as 1,2,5") from None
    return evaluate(store, n_per_class=sizes, **options)
