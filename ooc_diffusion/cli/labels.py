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
@click.option(
    "--prior",
    metavar="FILE|estimate",
    help="How frequent the classes are, for columns and sinkhorn: a CSV class,frequency, or what logistic regression on the "
    "labelled images predicts for all in the graph.  [default: all the same]",
)
@click.option(
    "--prior-power", type=click.FloatRange(0), default=1.0, show_default=True, help="Power that these frequencies are raised to."
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="α of Zhou's diffusion, L ← α 𝒲 L + (1 - α) L_0 with the symmetric 𝒲, for columns and none.  [default: L ← W L]",
)
@click.option(
    "--solver",
    type=click.Choice(["iterate", "conjugate-gradient"]),
    default="iterate",
    show_default=True,
    help="With --alpha: --n-iter iterations, or their limit, with twice the memory for each column.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=1e-5,
    show_default=True,
    help="Residual of each entry, relative to the entry itself, at which conjugate-gradient ends.",
)
@click.option(
    "--max-steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Steps after which it ends with a warning."
)
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

    refuse_unread(options["normalization"] == "gamma", "power", "--normalization gamma")
    refuse_unread(options["prior"] is not None, "prior_power", "--prior")
    refuse_unread(options["alpha"] is not None, "solver", "--alpha")
    for name in ("tolerance", "max_steps"):
        refuse_unread(options["solver"] == "conjugate-gradient", name, "--solver conjugate-gradient")
    return diffuse(store, **options)


@click.command("classify")
@STORE
@METHOD
@click.option(
    "--coefficient",
    type=click.FloatRange(0, 1),
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
    type=click.FloatRange(0),
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
@click.option("--k", type=click.IntRange(min=1), help="For paper: neighbors per image.  [default: 30]")
@common_options
def evaluate_command(store: str, n_per_class: str, protocol: str, **options: Any) -> dict[str, Any]:
    """Measure all methods with few labels per class, drawn several times.

    \b
    Examples:
      ooc-diffusion evaluate --store s --n-per-class 1,2,5 --json
      ooc-diffusion evaluate --store s --protocol paper --split split.json --setting in-domain
      ooc-diffusion evaluate --store s --protocol paper --split split.json --setting out-of-domain --background others
    """
    from ..stages.evaluate import evaluate
    from ..stages.evaluate_paper import evaluate_paper

    try:
        sizes = [int(n) for n in n_per_class.split(",")]
    except ValueError:
        raise BadOption(f"--n-per-class {n_per_class!r} is no list of numbers such as 1,2,5") from None
    given = {name: value for name, value in options.items() if value is not None}
    if protocol == "paper":
        if "split" not in given:
            raise BadOption("--protocol paper needs --split FILE; `ooc-diffusion split` writes one")
        if given.pop("precision") != "float32":
            raise BadOption("--precision is not for --protocol paper, which diffuses in float32; leave it out")
        return evaluate_paper(store, n_per_class=sizes, **given)
    more = [name for name in ("split", "setting", "background", "size", "k") if name in given]
    if more:
        raise BadOption(f"--{more[0]} is for --protocol paper; give both, or neither")
    return evaluate(store, n_per_class=sizes, **given)
