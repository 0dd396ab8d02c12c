"""Commands from images to vectors: extract, import, reduce."""

# ruff: noqa: D301 - \b must reach click as the character that it is

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from .options import STORE, common_options

Command = TypeVar("Command", bound=Callable[..., Any])

ROLE = click.option(
    "--role",
    type=click.Choice(["background", "seeds", "tests", "added"]),
    default="background",
    show_default=True,
    help="What the images are for: the collection itself, labelled images apart from it, images that stay outside the graph, or "
    "images that `neighbors --add` takes into the collection.",
)
_MODEL = [
    click.option(
        "--model",
        metavar="NAME",
        help="A torchvision classification network, cut before its last layer, resnet10-small or resnet18-small, or pixels.  "
        "[default: that of FILE where `train` wrote it; resnet50]",
    ),
    click.option("--weights", default="DEFAULT", show_default=True, metavar="DEFAULT|FILE|none", help="Weights of the network."),
    click.option("--image-size", type=click.IntRange(min=1), help="For --model pixels: side in pixels.  [default: at most 32]"),
    click.option(
        "--color",
        type=click.Choice(["auto", "gray", "rgb"]),
        default="auto",
        show_default=True,
        help="For --model pixels: gray values or colors.",
    ),
    click.option(
        "--max-failures",
        type=click.FloatRange(0, 1),
        default=0.01,
        show_default=True,
        help="Share of unreadable images above which to stop.",
    ),
]


def model_options(command: Command) -> Command:
    """Add the options that say how an image is described."""
    for option in reversed(_MODEL):
        command = option(command)
    return command


DIM = click.option(
    "--dim", type=click.IntRange(min=0), default=256, show_default=True, help="Dimensions to keep by PCA; 0: no PCA."
)


@click.command("extract")
@click.argument("images")
@STORE
@ROLE
@click.option("--root", metavar="DIR", help="For data sets: where their files are or are downloaded to.")
@click.option("--split", metavar="NAME", help="For data sets: which part, such as train or test.")
@click.option("--class-folders", is_flag=True, help="For folders: an image is of the class of the folder that it lies in.")
@model_options
@common_options
def extract_command(images: str, store: str, **options: Any) -> dict[str, Any]:
    """Describe every image of IMAGES: a folder, digits, or the name of a torchvision data set.

    \b
    Examples:
      ooc-diffusion extract photos/ --store s --model pixels
      ooc-diffusion extract photos/ --store s --model resnet18 --weights resnet18.safetensors
      ooc-diffusion extract photos/ --store s --weights trained.safetensors --class-folders
      ooc-diffusion extract fashion-mnist --split test --store s --role tests --model pixels
    """
    from ..stages.extract import extract

    return extract(images, store=store, **options)


@click.command("import")
@click.argument("file", type=click.Path())
@STORE
@ROLE
@click.option("--names", type=click.Path(), help="Text file with the name of each row, sorted.")
@click.option("--truth", type=click.Path(), help=".npy with the true class of each row, for evaluate; -1 = unknown.")
@common_options
def import_command(file: str, store: str, **options: Any) -> dict[str, Any]:
    """Take descriptors from FILE, an .npy array of shape (images, dimensions).

    \b
    Examples:
      ooc-diffusion import features.npy --store s
      ooc-diffusion import test.npy --store s --role tests --truth classes.npy
    """
    from ..stages.import_descriptors import import_descriptors

    return import_descriptors(file, store=store, **options)


@click.command("reduce")
@STORE
@DIM
@common_options
def reduce_command(store: str, **options: Any) -> dict[str, Any]:
    """Reduce the descriptors of all roles by PCA (trained on the background) to unit vectors.

    \b
    Example:
      ooc-diffusion reduce --store s --dim 64
    """
    from ..stages.reduce import reduce

    return reduce(store, **options)
