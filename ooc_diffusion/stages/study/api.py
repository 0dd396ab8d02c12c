"""The door of the study."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import BadInput, BadOption
from ...report import StudyPage, chapter_text, write_study
from ...store.files import os_errors, require_writable
from ..low_shot import make_protocol
from ..low_shot_variant import MAX_ITER
from ..neighbors import DEFAULT_K
from ..page import library_versions
from ..seen_classes import seen_novel_classes, tests_are_seen
from ..settings import Record, Settings
from ..temporary_graphs import GraphKeeper
from .accuracies import knn, table2, table3, table5, transductive
from .claims import RULE
from .data import open_images, open_other, possible_sizes, refuse_no_data, split_file
from .graphs import figure2, figure3, figure6, table4, widest_table
from .parameters import figure5, smooth, table1
from .planning import plan_study
from .runs import Place, Runs
from .saved import PAGE, save_chapter, saved_chapters

CHAPTERS = {
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "figure2": figure2,
    "figure3": figure3,
    "figure5": figure5,
    "figure6": figure6,
    "knn": knn,
    "transductive": transductive,
    "smooth": smooth,
}
ALL = "all"
DEFAULT_DIM = 64


def study(
    names: Sequence[str],
    *,
    data: str,
    output: str | Path,
    background: str | None = None,
    size: int | Sequence[int] | None = None,
    split: str | None = None,
    root: str | None = None,
    n_per_class: Sequence[int] = (1, 2, 5, 10, 20),
    draws: int = 5,
    k: int = DEFAULT_K,
    max_iter: int = MAX_ITER,
    dim: int = DEFAULT_DIM,
    command: str = "",
    settings: Settings | None = None,
) -> Record:
    """Repeat tables and figures of the paper on a set of images with classes.

    Parameters
    ----------
    names : sequence of str
        Of `CHAPTERS`, or ``"all"``.
    data : str
        A data set, or a part of one such as ``omniglot:evaluation``, described by its pixels, or the folder of a store. Where
        there are no tests, they are the later half of the images of each class.
    output : str or Path
        Folder for what is made.
    background : str, optional
        Another collection: a store whose descriptors are like those of the images, or, where these are pixels, a data set.
        Without it the parts that need one are left out.
    size : int or sequence of int, optional
        Most images of it, the first ones; several numbers: the sizes of growing backgrounds, each of the first images. Default:
        all. With one number or none the backgrounds are a sixteenth, a fourth and all of them.
    split : str, optional
        File with the split of the classes. Default: one at random, by the seed.
    root : str, optional
        Where the files of data sets are.
    n_per_class : sequence of int
        Labelled images per novel class; those that a class has not are left out. Default 1, 2, 5, 10, 20.
    draws : int
        Draws of the labelled images, default 5.
    k : int
        Neighbors per node, fewer than the smallest graph has nodes. Default 30.
    max_iter : int
        Largest number of iterations, default 15.
    dim : int
        Dimensions after PCA where vectors are made here, default 64.
    command : str
        The command line, for the page.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        Tables as text, claims with their verdicts, the ``rule`` that these follow, and the page, ``study.html``; written are,
        too, for each name ``NAME.json``, ``NAME.csv`` and an SVG for each plot. The page has all chapters whose JSON lies in
        the folder and says that it was made with the same parameters from the same images, and judged by the same rules,
        those of earlier calls too.
    """
    settings = settings or Settings()
    chosen = list(CHAPTERS) if ALL in names else list(dict.fromkeys(names))
    _check_names(chosen)
    refuse_no_data(data, background)
    if size is not None and background is None:
        raise BadInput("`size` is a number of images of a `background`; give that as well")
    folder = Path(output)
    wanted = () if size is None else (size,) if isinstance(size, int) else tuple(sorted(set(size)))
    _check_output(folder)
    asked: dict[str, Any] = {"background": background, "wanted": wanted, "split": split, "root": root, "folder": folder}
    asked |= {"n_per_class": n_per_class, "draws": draws, "k": k, "max_iter": max_iter, "widest": widest_table(chosen, k)}
    # what a run would refuse, or has no room for, is refused before anything is made
    planned = plan_study({name: CHAPTERS[name] for name in chosen}, data, **asked, dim=dim, settings=settings)
    if settings.dry_run:
        return planned.record
    planned.require_budget()
    started = time.monotonic()
    with os_errors(folder, "making"):
        folder.mkdir(parents=True, exist_ok=True)
    images = open_images(data, folder, root=root, dim=dim, settings=_naming(data, settings))
    other = open_other(background, images, folder, root=root, settings=_naming(background, settings))
    file = split_file(split, images, folder, seed=settings.seed)
    sizes = possible_sizes(images, file, n_per_class, settings.seed)
    protocol = make_protocol(images, file, seed=settings.seed, n_per_class=sizes, draws=draws)
    seen = seen_novel_classes(images, protocol.split)
    chapters = []
    with GraphKeeper(widest_table(chosen, k)) as keeper:
        course = planned.course
        how = course.telling(settings, lambda: runs.place.chapter)
        runs = Runs(images, protocol, other, wanted, k, max_iter, how, keeper, Place(course=course))
        for name in chosen:
            runs.place.chapter = name
            chapters.append(CHAPTERS[name](runs))
            save_chapter(chapters[-1], folder, run=runs.parameters, neighbors=runs.neighbors(), command=command)
    saved, page = saved_chapters(folder, list(CHAPTERS), run=runs.parameters), folder / PAGE
    about, commands = _summary(runs, data, background, seen, saved.neighbors), "\n".join(saved.commands)
    write_study(StudyPage(_title(data), about, saved.chapters, library_versions(), commands, RULE), page)
    return {
        "stage": "study",
        "tables": [chapter_text(chapter) for chapter in chapters],
        "claims": [asdict(claim) for chapter in chapters for claim in chapter.claims],
        "rule": RULE,
        "measure": runs.measure,
        "neighbors": runs.neighbors(),
        "seconds": time.monotonic() - started,
        "report": str(page),
        "folder": str(folder),
    }


def _check_names(chosen: Sequence[str]) -> None:
    for name in chosen or [""]:
        if name not in CHAPTERS:
            close = difflib.get_close_matches(name.lower(), [*CHAPTERS, ALL], n=3)
            hint = f"did you mean {', '.join(close)}?" if close else f"give some of {', '.join((*CHAPTERS, ALL))}"
            raise BadOption(f"there is no study {name!r}; {hint}")


def _naming(data: str | None, settings: Settings) -> Settings:
    """Return options whose progress says which images it is about."""
    return settings.named(lambda stage: f"{Path(data or '').name}: {stage}")


def _check_output(folder: Path) -> None:
    """Refuse a folder that cannot be made, or not be written to."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise BadInput(f"{there} is a file; give a folder as `output`")
    require_writable(there)


def _title(data: str) -> str:
    return f"Study: {Path(data).name}"


def _summary(
    runs: Runs, data: str, background: str | None, seen: Sequence[str], neighbors: Sequence[str]
) -> list[tuple[str, str | int]]:
    groups = runs.protocol.split.groups
    warned = [("Novel classes that the network was trained on", f"{len(seen)}: these are no low-shot figures")] if seen else []
    if tests_are_seen(runs.store):
        warned.append(("Tests of base classes", "the network may have been trained on them; those of novel classes count"))
    return [
        ("Images", data),
        ("Other collection", background or "none"),
        *[("Neighbors among other images", "; ".join(neighbors))] * bool(neighbors),
        ("Group 1: base + novel classes", f"{len(groups[0].base)} + {len(groups[0].novel)}"),
        ("Group 2: base + novel classes", f"{len(groups[1].base)} + {len(groups[1].novel)}"),
        *warned,
        ("Neighbors", runs.k),
        ("Draws", runs.protocol.draws),
        ("Accuracy", runs.label),
        ("Seed", str(runs.protocol.seed)),
    ]
