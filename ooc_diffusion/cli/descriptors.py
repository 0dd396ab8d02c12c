"""Commands from images to vectors: extract, import, reduce."""

# ruff: noqa: D301 - \b must reach click as the character that it is

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from .options import STORE, Number, common_options

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
        type=Number(0, 1),
        default=0.01,
        show_default=True,
        help="Share of unreadable or missing images above which to stop.",
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
@click.option(
    "--class-folders", is_flag=True, help="For folders and archives: an image is of the class of the folder that it lies in."
)
@click.option("--layout", type=click.Choice(["yfcc"]), help="Folder of zip archives: image 12345678 is 678.jpg in 12/345.zip.")
@click.option(
    "--number", type=click.IntRange(1, 10**8), help="For --layout yfcc: images.  [default: up to the last that is there]"
)
@model_options
@common_options
def extract_command(images: str, store: str, **options: Any) -> dict[str, Any]:
    """Describe every image of IMAGES: a folder, a zip or tar archive, digits, or the name of a torchvision data set.

    Archives are read where they are; a .tar may not be compressed as a whole. Unreadable images stand as white ones, which
    are given no label. In --layout yfcc each number is an image: those that are missing count as unreadable, so let
    --max-failures be the share of the collection that you have not fetched.

    \b
    Examples:
      ooc-diffusion extract photos/ --store s --model pixels
      ooc-diffusion extract photos.zip --store s --model pixels
      ooc-diffusion extract yfcc100m/ --layout yfcc --number 1000000 --max-failures 0.1 --store s
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
@click.option(
    "--format",
    type=click.Choice(["npy", "hdf5", "raw", "fvecs", "bvecs", "parquet"]),
    help="What FILE is.  [default: as its ending says]",
)
@click.option("--dim", type=click.IntRange(min=1), help="For raw files: values in each row.")
@click.option("--field", metavar="NAME", help="HDF5 data set or parquet column.  [default: all_feats; the only one of lists]")
@click.option("--names", type=click.Path(), help="Text file with the name of each row, sorted.")
@click.option("--names-field", metavar="NAME", help="Or: parquet column with the names.")
@click.option("--truth", type=click.Path(), help=".npy with the true class of each row, for evaluate; -1 = unknown.")
@click.option(
    "--truth-field",
    metavar="NAME",
    help="Or: HDF5 data set or parquet column with the classes: numbers, or names, numbered in their order.  "
    "[default: all_labels of HDF5]",
)
@click.option(
    "--size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Take the first N rows; --names and --truth may be those of all.  [default: all]",
)
@common_options
def import_command(file: str, store: str, **options: Any) -> dict[str, Any]:
    """Take descriptors from FILE: one row per image, checked, as float32.

    \b
    .npy              array of shape (images, dimensions)
    .hdf5 .h5         all_feats (capacity, d) or (capacity, d, 1, 1), all_labels, count: the first count rows
    .raw .bin         float32, row after row, without a header; --dim says how many in each
    .fvecs .bvecs     each vector with its length before it
    .parquet .pq      a column of lists of one length

    \b
    Examples:
      ooc-diffusion import features.npy --store s
      ooc-diffusion import concatenated_PCAR256.raw --dim 256 --store s
      ooc-diffusion import concatenated_PCAR256.raw --dim 256 --size 1000000 --store s
      ooc-diffusion import train.hdf5 --store s --role seeds
      ooc-diffusion import photos.parquet --store s --names-field path --truth-field label
      ooc-diffusion import test.npy --store s --role tests --truth classes.npy
    """
    from ..stages.import_descriptors import import_descriptors

    return import_descriptors(file, store=store, **options)


@click.command("reduce")
@STORE
@DIM
@click.option("--transform", metavar="FILE", help="Apply this linear transform, as faiss.write_VectorTransform wrote it.")
@common_options
def reduce_command(store: str, dim: int, transform: str | None, **options: Any) -> dict[str, Any]:
    """Reduce the descriptors of all roles by PCA (trained on the background) to unit vectors.

    With --transform, descriptors that have as many values already as it gives are only brought to unit length.

    \b
    Examples:
      ooc-diffusion reduce --store s --dim 64
      ooc-diffusion reduce --store s --transform PCAR256.vt
    """
    from ..stages.reduce import reduce

    typed = click.get_current_context().get_parameter_source("dim") is ParameterSource.COMMANDLINE
    return reduce(store, dim=dim if typed or transform is None else None, transform=transform, **options)
