"""The command that trains a network: train."""

# ruff: noqa: D301 - \b must reach click as the character that it is

from __future__ import annotations

from typing import Any

import click

from .options import STORE, Number, common_options


@click.command("train")
@click.argument("images")
@STORE
@click.option(
    "--classes",
    required=True,
    type=click.Path(),
    help="The base classes: a text file with one per line, a name or a number from 0 on; or a split, JSON with the list "
    "base_classes or the lists base_classes_1 and base_classes_2.",
)
@click.option("--output", required=True, type=click.Path(), help="File of weights to write, .safetensors.")
@click.option("--root", metavar="DIR", help="For data sets: where their files are or are downloaded to.")
@click.option("--split", metavar="NAME", help="For data sets: which part, such as train or background.")
@click.option(
    "--model",
    default="resnet10-small",
    show_default=True,
    metavar="NAME",
    help="resnet10-small or resnet18-small, for images of 28 to 64 pixels, or a torchvision classification network.",
)
@click.option(
    "--weights",
    default="none",
    show_default=True,
    metavar="none|DEFAULT|FILE",
    help="Where to start: random weights, published ones, or a file. The last layer starts anew, unless it is of these classes.",
)
@click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Side in pixels.  [default: small networks: that of the images, at most 32; others: that of published weights]",
)
@click.option(
    "--color",
    type=click.Choice(["auto", "gray", "rgb"]),
    default="auto",
    show_default=True,
    help="For small networks: gray values or colors.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=30, show_default=True, help="How often each image is seen.")
@click.option("--batch-size", type=click.IntRange(min=2), default=64, show_default=True, help="Images at a time.")
@click.option(
    "--learning-rate",
    type=Number(min=0, min_open=True),
    default=0.1,
    show_default=True,
    help="Highest learning rate; it rises to that over a twentieth of the steps and falls to 0 as half a cosine.",
)
@click.option("--weight-decay", type=Number(min=0), default=5e-4, show_default=True, help="Weight decay.")
@click.option(
    "--held-out",
    type=Number(0, 0.9),
    default=0.1,
    show_default=True,
    help="Share of the images of each base class that is only tested on, for the learning curve.",
)
@click.option("--balanced", is_flag=True, help="Show equally many images of every class.")
@click.option(
    "--augment",
    "augmentation",
    type=click.Choice(["none", "shift", "affine", "crop"]),
    default="shift",
    show_default=True,
    help="Change images at random: move them by up to an eighth; that, turn by up to 15 degrees and scale by up to a quarter; "
    "or show a rectangle of a quarter of the area at least, for photographs.",
)
@click.option("--flip", is_flag=True, help="Mirror every other image; not for characters.")
@click.option(
    "--max-failures",
    type=Number(0, 1),
    default=0.01,
    show_default=True,
    help="Share of unreadable images above which to stop.",
)
@common_options
def train_command(images: str, **options: Any) -> dict[str, Any]:
    """Train a network on the base classes of IMAGES alone, so that its descriptors never saw a novel class.

    IMAGES is a folder with a folder for each class (Greek/character01 is a class, too), digits, or the name of a torchvision
    data set. Of other classes no image is opened. Beside the weights the learning curve is written, .curve.csv and .curve.png.
    The same command goes on where an earlier one stopped, or at most a minute before. On a CPU the same seed and number of
    threads give the same bytes on the same machine, stopped or not; on a GPU not always. `extract --weights` takes the file.

    \b
    Examples:
      ooc-diffusion train omniglot/ --store s --classes base.txt --output net.safetensors --augment affine
      ooc-diffusion train photos/ --store s --classes split.json --model resnet18 --augment crop --flip --output net.safetensors
    """
    from ..stages.train import train

    return train(images, **options)
