"""The labelled images of the draws of the protocol, as files that `diffuse` reads."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from ..store import Store, Strings
from ..store.files import os_errors
from .class_names import class_names
from .low_shot import Labelled, Protocol
from .output_folder import check_output_folder, drafted
from .plans import BLOCK_ROWS

_OURS = re.compile(r"group-\d+-draw-\d+-n-\d+\.csv")


def check_draw_folder(store: Store, protocol: Protocol, folder: str | Path, *, overwrite: bool) -> None:
    """Refuse, before any work, a folder that cannot be made or that holds something, unless it may be overwritten.

    Files that are byte for byte those of these draws are no hindrance: what they hold does not depend on any result.
    """

    def other(there: Path) -> str:
        left = {file.name for file in there.iterdir()}
        for name, blocks in _files(store, protocol):
            if name in left and not _holds(there / name, blocks):
                return name
            left.discard(name)
        return min(left, default="")

    check_output_folder(folder, overwrite=overwrite, option="draws-to", what="draws", other=other)


def write_draws(store: Store, protocol: Protocol, folder: str | Path) -> str:
    """Write what is labelled in each draw, for each number of images per novel class; the folder appears whole.

    Parameters
    ----------
    store : Store
        Training images, with their classes.
    protocol : Protocol
        What is drawn.
    folder : str or Path
        Where ``group-<g>-draw-<d>-n-<n>.csv`` go, groups and draws counted from 1, with the columns ``path,label``, or
        ``row,label`` where images have no names; the images of base classes among them. Draws of before are replaced, all else
        is left alone.

    Returns
    -------
    str
        The folder.
    """
    with drafted(folder, store, _OURS) as draft:
        for name, blocks in _files(store, protocol):
            with (draft / name).open("wb") as file:
                file.writelines(blocks)
    return str(folder)


def _files(store: Store, protocol: Protocol) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the name of each file and, block by block, what it is to hold."""
    images, classes = Strings.open(store, "background/path") if "background/path_offsets" in store else None, class_names(store)
    for number, problem in zip(protocol.groups, protocol.problems(store), strict=True):
        group = protocol.split.groups[number - 1].classes
        names = [classes[c] if classes else str(c) for c in group]
        for d in range(protocol.draws):
            for n, labelled in zip(protocol.n_per_class, problem.labelled(d), strict=True):
                yield f"group-{number}-draw-{d + 1}-n-{n}.csv", _blocks(labelled, images, names)


def _blocks(labelled: Labelled, images: Strings | None, names: list[str]) -> Iterator[bytes]:
    for first in range(0, len(labelled.rows), BLOCK_ROWS):
        text = io.StringIO(newline="")
        # a lone carriage return ends a line for most readers, but csv quotes only the terminator that it writes itself
        lines = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        if first == 0:
            lines.writerow(["row" if images is None else "path", "label"])
        block = slice(first, first + BLOCK_ROWS)
        for row, column in zip(labelled.rows[block].tolist(), labelled.columns[block].tolist(), strict=True):
            lines.writerow([row if images is None else images[row], names[column]])
        yield text.getvalue().encode("utf-8", "surrogateescape")


def _holds(path: Path, blocks: Iterator[bytes]) -> bool:
    """Return whether a file holds just these blocks."""
    if not path.is_file():
        return False
    with os_errors(path, "reading"), path.open("rb") as file:
        return all(file.read(len(block)) == block for block in blocks) and not file.read(1)
