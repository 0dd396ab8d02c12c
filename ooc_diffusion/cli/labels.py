"""Commands from the graph to labels: diffuse, classify, evaluate."""

# ruff: noqa: D301 - \b must reach click as the character that it is

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..errors import BadOption
from .options import STORE, Command, Number, common_options, numbers, refuse_unread, typed
from .variants import (
    EDGE_NAMES,
    ETA_NAMES,
    PRIOR_NAMES,
    edge_arguments,
    edge_options,
    eta_arguments,
    eta_options,
    refuse_unread_edges,
    refuse_unread_eta,
)

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


# Options of evaluate for the protocol of the paper alone.
_PAPER = ("split", "setting", "background", "size", "k", "draws_to")
METHOD = click.option(
    "--method",
    type=click.Choice(["fusion", "diffusion", "logistic", "graph-logistic", "knn"]),
    default="fusion",
    show_default=True,
    help="Diffusion fused with logistic regression, either alone, logistic regression that is smooth over the graph, or the 5 "
    "nearest labelled images.",
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
@eta_options
@precision("Not with rows, sinkhorn, gamma, --reset, --alpha or a GPU.")
@common_options
def diffuse_command(store: str, **options: Any) -> dict[str, Any]:
    """Diffuse the labels of a few images over the graph, L ← W L.

    \b
    Examples:
      ooc-diffusion diffuse --store s --labels few.csv --n-iter 3 --memory-budget 4GiB
      ooc-diffusion diffuse --store s --labels few.csv --prior estimate --prior-power 0.5
      ooc-diffusion diffuse --store s --labels few.csv --alpha 0.9 --solver conjugate-gradient
    """
    from ..stages.diffuse import diffuse

    refuse_unread_eta(options)
    return diffuse(store, **options)


@click.command("classify")
@STORE
@METHOD
@click.option(
    "--coefficient",
    type=Number(0, 1),
    help="Weight of logistic regression in the fusion.  [default: by cross-validation on the labelled images]",
)
@click.option(
    "--k",
    type=click.IntRange(min=1),
    help="With --method knn: so many nearest labelled images vote, and votes are divided by the number of labelled images of "
    "their class.  [default: 5, not divided]",
)
@click.option(
    "--smoothness",
    type=Number(0),
    default=1.0,
    show_default=True,
    help="With --method graph-logistic: weight μ of the differences between neighbors.",
)
@click.option("--output", type=click.Path(), help="CSV to write: path,label,confidence,origin.")
@common_options
def classify_command(store: str, **options: Any) -> dict[str, Any]:
    """Predict a class for every image that was given scores.

    \b
    Examples:
      ooc-diffusion classify --store s --output predictions.csv
      ooc-diffusion classify --store s --method knn --k 1000
      ooc-diffusion classify --store s --method graph-logistic --smoothness 0.1
    """
    from ..stages.classify import classify

    refuse_unread(options["method"] == "fusion", "coefficient", "--method fusion")
    refuse_unread(options["method"] == "knn", "k", "--method knn")
    refuse_unread(options["method"] == "graph-logistic", "smoothness", "--method graph-logistic")
    return classify(store, **options)


@click.command("evaluate")
@STORE
@click.option("--n-per-class", default="1,2,5,10,20", show_default=True, metavar="N,N,...", help="Labelled images per class.")
@click.option("--draws", type=click.IntRange(min=1), default=5, show_default=True, help="Draws of the labelled images.")
@click.option("--max-iter", type=click.IntRange(min=1), help="Largest number of iterations.  [default: 30; paper: 15]")
@precision("Diffusion runs on the CPU here; not with --protocol paper.")
@click.option(
    "--protocol",
    type=click.Choice(["seeds", "paper"]),
    default="seeds",
    show_default=True,
    help="Choose hyper-parameters on the labelled images themselves; or as the paper, on another group of classes.",
)
@click.option("--split", type=click.Path(), help="For paper: JSON file with the base and novel classes of both groups.")
@click.option(
    "--setting",
    type=click.Choice(["none", "in-domain", "out-of-domain", "transductive"]),
    help="For paper: what is unlabelled in the graph: nothing, other images of the novel classes, those of another store, the "
    "tests.  [default: none]",
)
@click.option("--background", metavar="DIR", help="For paper: the other store, its role background.")
@click.option(
    "--size",
    type=click.IntRange(min=1),
    help="For paper: images of that store, the first ones.  [default: all, with the neighbors that they have]",
)
@click.option(
    "--k",
    type=click.IntRange(min=1),
    help="For paper: neighbors per image, fewer than the smallest graph has images.  [default: 30]",
)
@click.option(
    "--draws-to",
    type=click.Path(),
    metavar="DIR",
    help="For paper: write the labelled images of each draw to this folder, as CSV files for diffuse --labels. Other files "
    "there need --overwrite.",
)
@edge_options
@eta_options
@common_options
def evaluate_command(store: str, n_per_class: str, protocol: str, **options: Any) -> dict[str, Any]:
    """Measure all methods with few labels per class, drawn several times.

    The options from --weighting to --max-steps are those of graph and diffuse, for --protocol paper: diffusion, alone and
    fused, is measured with the variant that they make.

    \b
    Examples:
      ooc-diffusion evaluate --store s --n-per-class 1,2,5 --json
      ooc-diffusion evaluate --store s --protocol paper --split split.json --setting in-domain
      ooc-diffusion evaluate --store s --protocol paper --split split.json --setting out-of-domain --background others
      ooc-diffusion evaluate --store s --protocol paper --split split.json --weighting gaussian --sigma 0.4
    """
    sizes = numbers(n_per_class, "--n-per-class")
    if protocol == "paper":
        return _evaluate_paper(store, n_per_class=sizes, **options)
    from ..stages.evaluate import evaluate

    for name in (*_PAPER, *EDGE_NAMES, *ETA_NAMES, *PRIOR_NAMES):
        if typed(name):
            raise BadOption(f"--{name.replace('_', '-')} is for --protocol paper; give both, or neither")
        del options[name]
    return evaluate(store, n_per_class=sizes, **{name: value for name, value in options.items() if value is not None})


def _evaluate_paper(store: str, **options: Any) -> dict[str, Any]:
    from ..stages.evaluate_paper import evaluate_paper

    if options["split"] is None:
        raise BadOption("--protocol paper needs --split FILE; `ooc-diffusion split` writes one")
    if options.pop("precision") != "float32":
        raise BadOption("--precision is not for --protocol paper, which diffuses in float32; leave it out")
    refuse_unread_edges(options)
    refuse_unread_eta(options)
    refuse_unread(options["solver"] == "iterate", "max_iter", "--solver iterate")
    made: dict[str, Any] = {"weights": edge_arguments(options), "eta": eta_arguments(options)}
    given = {name: value for name, value in options.items() if value is not None and name not in (*EDGE_NAMES, *ETA_NAMES)}
    return evaluate_paper(store, **given, **made)
