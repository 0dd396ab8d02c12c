"""Commands that go the whole way: label, demo."""

# ruff: noqa: D301 - \b must reach click as the character that it is

from __future__ import annotations

from typing import Any

import click

from .descriptors import DIM, model_options
from .graphs import INDEX, K
from .labels import CLASSES, LABELS, METHOD, N_ITER, precision
from .options import command_line, common_options


@click.command("label")
@click.argument("images")
@LABELS
@click.option("--output", required=True, type=click.Path(), help="CSV to write: path,label,confidence,origin.")
@click.option("--store", metavar="DIR", help="Folder of the arrays, to go on with after a stop.  [default: OUTPUT.store]")
@click.option("--report", type=click.Path(), help="HTML page to write.  [default: OUTPUT with the ending .html]")
@model_options
@CLASSES
@DIM
@K
@INDEX
@N_ITER
@METHOD
@precision("Not on a GPU.")
@common_options
def label_command(images: str, **options: Any) -> dict[str, Any]:
    """Label every image of IMAGES, a folder or a zip or tar archive, from the labels of a few.

    The same command goes on where an earlier one stopped; --overwrite does again only what has changed.

    \b
    Examples:
      ooc-diffusion label photos/ --labels few.csv --output out.csv --memory-budget 4GiB
      ooc-diffusion label photos/ --labels few.csv --output out.csv --model pixels --dry-run
    """
    from ..stages.label import label

    return label(images, command=command_line(), **options)


@click.command("demo")
@click.option(
    "--dataset",
    default="digits",
    show_default=True,
    metavar="NAME",
    help="digits (ships with scikit-learn), fashion-mnist, or another torchvision data set with train and test images.",
)
@click.option("--root", metavar="DIR", help="Where the files of the data set are or are downloaded to.")
@click.option("--store", metavar="DIR", help="Folder of the arrays.  [default: ooc-diffusion-demo/DATASET.store]")
@click.option("--report", type=click.Path(), help="HTML page to write.  [default: ooc-diffusion-demo/DATASET.html]")
@click.option("--draws", type=click.IntRange(min=1), default=5, show_default=True, help="Draws of the labelled images.")
@common_options
def demo_command(**options: Any) -> dict[str, Any]:
    """Go the whole way on real images and measure how right it is.

    \b
    Examples:
      ooc-diffusion demo
      ooc-diffusion demo --dataset fashion-mnist --memory-budget 2GiB
    """
    from ..stages.demo import demo

    return demo(command=command_line(), **options)
