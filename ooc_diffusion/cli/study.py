"""The command that repeats tables and figures of the paper."""

# ruff: noqa: D301 - \b must reach click as the character that it is

from __future__ import annotations

from typing import Any

import click

from .options import command_line, common_options, numbers


@click.command("study")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--data", required=True, help="A data set (digits, fashion-mnist), a part of one (omniglot:evaluation), or a store."
)
@click.option("--output", required=True, type=click.Path(), metavar="DIR", help="Folder for tables, plots and the page.")
@click.option("--background", metavar="DATA", help="Another collection: a store, or a data set where the images are pixels.")
@click.option(
    "--size",
    metavar="N[,N...]",
    help="Most images of the other collection, the first; several numbers: the sizes of growing backgrounds, in place of a "
    "sixteenth, a fourth and all.  [default: all]",
)
@click.option("--split", type=click.Path(), help="JSON file with base and novel classes.  [default: at random, by the seed]")
@click.option("--root", metavar="DIR", help="For data sets: where their files are or are downloaded to.")
@click.option(
    "--n-per-class",
    default="1,2,5,10,20",
    show_default=True,
    metavar="N,N,...",
    help="Labels per novel class; numbers above the images of a class are left out.",
)
@click.option("--draws", type=click.IntRange(min=1), default=5, show_default=True, help="Draws of the labelled images.")
@click.option(
    "--k",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Neighbors per image, fewer than the smallest graph has images.",
)
@click.option("--max-iter", type=click.IntRange(min=1), default=15, show_default=True, help="Largest number of iterations.")
@click.option(
    "--dim",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    help="Dimensions after PCA; 0: no PCA. A store with tests keeps its vectors.",
)
@common_options
def study_command(names: tuple[str, ...], n_per_class: str, size: str | None, **options: Any) -> dict[str, Any]:
    """Repeat tables and figures of the paper on images with classes.

    NAME is table1 to table5, figure2, figure3, figure5, figure6, knn, transductive, smooth, or all.

    A store or data set without tests, or one part of a data set, is halved: the later images of each class, in the order of
    their names, are the tests. What was run before is not run again; the same seed gives the same numbers, but for the times
    in table4. With --dry-run the runs that NAME asks for are counted and planned, those of a kind together, with the time that
    is left where some were done before.

    All of another store keep the neighbors that they have, where its own vectors are taken; fewer images are searched anew.

    DIR/study.html shows all that lies in DIR and was made with the same options from the same images, in earlier calls too;
    NAME.json and NAME.csv hold the figures of each. The exit code says whether the study ran, not which claims hold.

    \b
    Examples:
      ooc-diffusion study table2 --data digits --output digits-study --k 10
      ooc-diffusion study all --data digits --background fashion-mnist --output digits-study --k 10
      ooc-diffusion study all --data omniglot:evaluation --background omniglot:background --output omniglot-study --k 10
      ooc-diffusion study all --data images.store --background others.store --output images-study
      ooc-diffusion study table3 --data imagenet --background yfcc --size 1000000,10000000 --output table3
    """
    from ..stages.study import study

    images = None if size is None else numbers(size, "--size")
    return study(names, n_per_class=numbers(n_per_class, "--n-per-class"), size=images, command=command_line(), **options)
