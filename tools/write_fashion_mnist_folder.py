"""Write Fashion-MNIST as a folder of 70 000 PNG files, with the truth beside them, to try the package on files.

The classes are not in the names: train/00000.png to train/59999.png, then test/00000.png to test/09999.png. OUTDIR/truth.csv has
the class of every file. With --labels N a few images, equally many of each class, are drawn as the labels to start from.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np

from ooc_diffusion.errors import OocDiffusionError
from ooc_diffusion.images import MnistSource


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("outdir", type=click.Path(file_okay=False, path_type=Path))
@click.option("--root", type=click.Path(exists=True, file_okay=False), help="Folder with the four files of the data set.")
@click.option("--labels", type=click.IntRange(min=1), help="Number of labeled images to draw.")
@click.option("--labels-csv", type=click.Path(dir_okay=False, path_type=Path), help="Where to. [default: OUTDIR/few.csv]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draw.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads that write.")
def main(outdir: Path, root: str | None, labels: int | None, labels_csv: Path | None, seed: int, threads: int) -> None:
    """Write the folder."""
    if labels_csv is not None and labels is None:
        raise click.UsageError("--labels-csv needs --labels N")
    try:
        source = MnistSource("fashion-mnist", root)
    except OocDiffusionError as error:
        raise click.ClickException(str(error)) from error
    if labels is not None and labels > len(source):
        raise click.UsageError(f"--labels {labels} is more than the {len(source)} images")
    write_images(source, outdir, threads)
    write_labels(source, range(len(source)), outdir / "truth.csv")
    if labels is not None:
        write_labels(source, balanced_rows(source.truth, labels, seed), labels_csv or outdir / "few.csv")
    click.echo(f"{len(source)} images in {outdir}", err=True)


def write_images(source: MnistSource, outdir: Path, threads: int) -> None:
    """Write every image of the source as a PNG file of its name."""
    for part in ("train", "test"):
        (outdir / part).mkdir(parents=True, exist_ok=True)

    def write(rows: range) -> None:
        for row in rows:
            source.read(row).save(outdir / f"{source.name(row)}.png", compress_level=1)

    pieces = [range(first, min(first + 1000, len(source))) for first in range(0, len(source), 1000)]
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(write, pieces):
            pass


def write_labels(source: MnistSource, rows: Iterable[int], path: Path) -> None:
    """Write path and class name of some rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "label"])
        table.writerows((f"{source.name(row)}.png", source.class_names[source.truth[row]]) for row in rows)


def balanced_rows(truth: np.ndarray, count: int, seed: int) -> list[int]:
    """Draw ``count`` rows so that no class has two more than another (as far as there are enough); ascending."""
    random = np.random.default_rng(seed)
    turns = np.empty(len(truth), np.int64)
    for label in np.unique(truth):
        members = np.flatnonzero(truth == label)
        turns[members] = random.permutation(len(members))
    return sorted(np.lexsort((random.permutation(len(truth)), turns))[:count].tolist())


if __name__ == "__main__":
    main()
