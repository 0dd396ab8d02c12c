"""Splitting the classes of a collection for the protocol."""

from __future__ import annotations

from pathlib import Path

from ..errors import BadInput
from ..evaluation import random_split, write_split
from ..images import ClassFolders, is_archive, is_folder, open_source, scan_folder
from .settings import Record


def split(
    images: str,
    *,
    output: str | Path,
    root: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Record:
    """Split the classes of a data set at random into two groups of base and novel classes, in the proportions of the paper.

    Parameters
    ----------
    images : str
        A data set with classes, or a folder whose classes are the folders in it.
    output : str or Path
        JSON file to write; see `read_split`.
    root : str, optional
        Where the files of the data set are.
    seed : int
        Seed of the split, default 0.
    overwrite : bool
        Replace the file where there is one. Default False.

    Returns
    -------
    dict
        Number of classes in each part.
    """
    if not Path(output).absolute().parent.is_dir():
        raise BadInput(f"{Path(output).parent} is no folder; make it, or give another --output")
    names, n_classes = _classes(images, root)
    found = random_split(n_classes, seed=seed)
    if Path(output).exists() and not overwrite:
        raise BadInput(f"{output} exists; give another --output, or --overwrite to replace it")
    write_split(output, found, class_names=names)
    return {
        "stage": "split",
        "classes": n_classes,
        **{key: len(part) for key, part in found.as_json().items()},
        "file": str(output),
    }


def _classes(images: str, root: str | None) -> tuple[list[str] | None, int]:
    """Return the names of the classes, where they are known, and their number."""
    if is_folder(images) and not is_archive(images):
        if root is not None:
            raise BadInput(f"--root is for data sets; leave it out with the folder {images}")
        folders = ClassFolders()
        for batch in scan_folder(images):
            folders.number(batch)
        if not folders.names:
            raise BadInput(f"{images} has no folders with images; give a folder with a folder for each class, four at least")
        return folders.names, len(folders.names)
    source = open_source(images, root=root)
    if source.truth is None:
        raise BadInput(
            f"{images} does not know the classes of its images; give one that does, or a folder with a folder for each class"
        )
    names = source.class_names
    return names, len(names) if names else int(source.truth.max()) + 1
