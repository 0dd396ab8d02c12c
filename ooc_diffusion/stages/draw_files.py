"""The labelled images of the draws of the protocol, as files that `diffuse` reads."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from ..store import Store, Strings
from .class_names import class_names
from .low_shot import Labelled, Protocol
from .output_folder import check_output_folder, drafted

_OURS = re.compile(r"group-\d+-draw-\d+-n-\d+\.csv")


def check_draw_folder(folder: str | Path, *, overwrite: bool) -> None:
    """Refuse, before any work, a folder that cannot be made or that holds something, unless it may be overwritten."""
    check_output_folder(folder, overwrite=overwrite, option="draws-to", what="draws")


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
    images, classes = Strings.open(store, "background/path") if "background/path_offsets" in store else None, class_names(store)
    with drafted(folder, store, _OURS) as draft:
        for number, problem in zip(protocol.groups, protocol.problems(store), strict=True):
            group = protocol.split.groups[number - 1].classes
            names = [classes[c] if classes else str(c) for c in group]
            for d in range(protocol.draws):
                for n, labelled in zip(protocol.n_per_class, problem.labelled(d), strict=True):
                    _write(draft / f"group-{number}-draw-{d + 1}-n-{n}.csv", labelled, images, names)
    return str(folder)


def _write(file: Path, labelled: Labelled, images: Strings | None, names: list[str]) -> None:
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as text:
        # a lone carriage return ends a line for most readers, but csv quotes only the terminator that it writes itself
        lines = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        lines.writerow(["row" if images is None else "path", "label"])
        for row, column in zip(labelled.rows.tolist(), labelled.columns.tolist(), strict=True):
            lines.writerow([row if images is None else images[row], names[column]])
