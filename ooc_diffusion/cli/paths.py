"""The command paths: from which labelled images a label came."""

# ruff: noqa: D301 - \b must reach click as the character that it is

from __future__ import annotations

import csv
from typing import Any

import click

from ..errors import BadOption
from .options import STORE, command_line, cpu_options


@click.command("paths")
@STORE
@click.option(
    "--images",
    metavar="PATH,...",
    default="",
    help="Images to walk back from: tests where these were classified, else images of the graph.",
)
@click.option("--rows", metavar="N,...", default="", help="The same by their numbers, from 0.")
@click.option(
    "--number",
    type=click.IntRange(1, 200),
    default=12,
    show_default=True,
    help="How many are drawn where none is named, from those that were given a label.",
)
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="Walk for this class besides the predicted one.  [default: the true class, where it is known]",
)
@click.option(
    "--output", required=True, type=click.Path(), help="Folder to write: paths.csv, a picture for each walk, paths.html."
)
@cpu_options
def paths_command(store: str, images: str, rows: str, **options: Any) -> dict[str, Any]:
    """Walk back from images to the labelled images that their labels came from.

    At each iteration the walk goes to the neighbor, or stays at the image itself, that contributed most to the score of the
    class; of equal ones to the first. It ends in a labelled image. Quote a path that holds a comma.

    \b
    Examples:
      ooc-diffusion paths --store s --output paths
      ooc-diffusion paths --store s --images holiday/0001.jpg --class beach --output paths
    """
    from ..stages.paths import paths

    try:
        named = next(csv.reader([images], strict=True), [])
    except csv.Error as error:
        raise BadOption(f"--images {images!r} is no list of paths such as a.jpg,b.jpg: {error}") from None
    try:
        numbers = [int(row) for row in rows.split(",") if row]
    except ValueError:
        raise BadOption(f"--rows {rows!r} is no list of numbers such as 0,17") from None
    return paths(store, images=named, rows=numbers, command=command_line(), **options)
