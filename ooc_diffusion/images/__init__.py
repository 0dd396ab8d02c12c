"""Where pixels come from: folders and data sets, as numbered rows that one bad image never moves."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import BadInput
from .archive import MISSING, ArchiveSource, YfccSource
from .arrays import ArraySource, DigitsSource, MnistSource, mnist_name
from .class_folders import ClassFolders
from .decode import plain_image, read_image, white_image
from .folder import FolderSource, collect
from .joined import JoinedSource
from .scan import IMAGE_ENDINGS, PathBatch, ScanFingerprint, Skipped, printable, scan_folder
from .source import ImageSource, UnreadableImage
from .torchvision_sets import TorchvisionSource, has_train_and_test

__all__ = [
    "IMAGE_ENDINGS",
    "MISSING",
    "ArchiveSource",
    "ArraySource",
    "ClassFolders",
    "DigitsSource",
    "FolderSource",
    "ImageSource",
    "JoinedSource",
    "MnistSource",
    "PathBatch",
    "ScanFingerprint",
    "Skipped",
    "TorchvisionSource",
    "UnreadableImage",
    "YfccSource",
    "collect",
    "has_tests",
    "held_bytes",
    "is_archive",
    "is_folder",
    "open_source",
    "plain_image",
    "printable",
    "read_image",
    "refuse_missing",
    "scan_folder",
    "white_image",
]


def open_source(
    spec: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    layout: str | None = None,
    number: int | None = None,
    most_bytes: int | None = None,
) -> ImageSource:
    """Open a collection of images by name or path.

    Parameters
    ----------
    spec : str or path
        ``digits``, ``fashion-mnist``, ``mnist``, ``kmnist``, a folder or archive of images, or the name of a data set of
        torchvision, tried in this order. Write ``./digits`` for a folder of that name.
    root : path, optional
        Where the files of a data set are, or are downloaded to. Default ``~/.cache/ooc_diffusion``.
    split : str, optional
        Part of a data set, such as ``train``. Default: all of it where the data set has only train and test.
    layout : {"yfcc"}, optional
        How a folder is laid out: as zip archives of numbered images (`YfccSource`). Default: as image files.
    number : int, optional
        Images of ``yfcc``.
    most_bytes : int, optional
        Memory that the index of an archive may take; `DoesNotFit` where it takes more. Default: any.

    Returns
    -------
    ImageSource
        All paths of a folder are kept in memory; for large folders use `scan_folder` and `FolderSource`.

    Raises
    ------
    BadInput
        For a path at which nothing is; for a name that is neither a folder nor a data set, with close matches; where the images
        cannot be had; or where ``root`` is given for a folder or for the digits, or ``split`` for a folder.
    """
    refuse_missing(spec)
    name = os.fspath(spec)
    if layout is not None or number is not None:
        if layout != "yfcc" or root is not None or split is not None:
            raise BadInput(
                f"--layout yfcc and its --number are for a folder of zip archives; leave out what else belongs to {name}"
            )
        return YfccSource(spec, number=number)
    folder = is_folder(spec)
    if folder or name == "digits":
        if root is not None or (folder and split is not None):
            raise BadInput(f"--root and --split are for downloaded data sets; leave them out with {printable(name)}")
        if not folder:
            return DigitsSource(split)
        return ArchiveSource(spec, most_bytes=most_bytes) if is_archive(spec) else collect(spec)
    family = mnist_name(name)
    return TorchvisionSource(name, root, split) if family is None else MnistSource(family, root, split)


def has_tests(name: str) -> bool:
    """Return whether a data set has the parts train and test, of the same classes."""
    return name == "digits" or mnist_name(name) is not None or has_train_and_test(name)


def held_bytes(source: ImageSource) -> int:
    """Return the memory that the index of a source takes."""
    if isinstance(source, JoinedSource):
        return sum(held_bytes(part) for part in source.sources)
    return source.held_bytes if isinstance(source, ArchiveSource) else 0


def is_archive(spec: str | os.PathLike[str]) -> bool:
    """Return whether `open_source` takes this for an archive of images: it is a path, of a file."""
    return is_folder(spec) and Path(os.fspath(spec)).is_file()


def refuse_missing(spec: str | os.PathLike[str]) -> None:
    """Raise `BadInput` where nothing is at a path: a name with a ``/`` or an ending, which no data set has."""
    if (is_folder(spec) or Path(spec).suffix) and not Path(spec).exists():
        raise BadInput(f"there is no file or folder {printable(os.fspath(spec))}; check the path")


def is_folder(spec: str | os.PathLike[str]) -> bool:
    """Return whether `open_source` takes this for a path: it has a ``/``, or it exists and is not the name of a known set."""
    name = os.fspath(spec)
    if isinstance(spec, Path) or os.sep in name:
        return True
    return name != "digits" and mnist_name(name) is None and Path(name).exists()
