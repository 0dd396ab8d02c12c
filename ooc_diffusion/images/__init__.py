"""Where pixels come from: folders and data sets, as numbered rows that one bad image never moves."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import BadInput
from .arrays import ArraySource, DigitsSource, MnistSource, mnist_name
from .class_folders import ClassFolders
from .decode import plain_image, read_image, white_image
from .folder import FolderSource, collect
from .joined import JoinedSource
from .scan import IMAGE_ENDINGS, PathBatch, ScanFingerprint, Skipped, printable, scan_folder
from .source import ImageSource, UnreadableImage
from .torchvision_sets import TorchvisionSource

__all__ = [
    "IMAGE_ENDINGS",
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
    "collect",
    "is_folder",
    "open_source",
    "plain_image",
    "printable",
    "read_image",
    "scan_folder",
    "white_image",
]


def open_source(
    spec: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None, split: str | None = None
) -> ImageSource:
    """Open a collection of images by name or path.

    Parameters
    ----------
    spec : str or path
        ``digits``, ``fashion-mnist``, ``mnist``, ``kmnist``, a folder of images, or the name of a data set of torchvision, tried
        in this order. Write ``./digits`` for a folder of that name.
    root : path, optional
        Where the files of a data set are, or are downloaded to. Default ``~/.cache/ooc_diffusion``.
    split : str, optional
        Part of a data set, such as ``train``. Default: all of it where the data set has only train and test.

    Returns
    -------
    ImageSource
        All paths of a folder are kept in memory; for large folders use `scan_folder` and `FolderSource`.

    Raises
    ------
    BadInput
        For a name that is neither a folder nor a data set, with close matches; where the images cannot be had; or where ``root``
        is given for a folder or for the digits, or ``split`` for a folder.
    """
    name = os.fspath(spec)
    folder = is_folder(spec)
    if folder or name == "digits":
        if root is not None or (folder and split is not None):
            raise BadInput(f"--root and --split are for downloaded data sets; leave them out with {printable(name)}")
        return collect(spec) if folder else DigitsSource(split)
    family = mnist_name(name)
    return TorchvisionSource(name, root, split) if family is None else MnistSource(family, root, split)


def is_folder(spec: str | os.PathLike[str]) -> bool:
    """Return whether `open_source` takes this for a path: it has a ``/``, or it exists and is not the name of a known set."""
    name = os.fspath(spec)
    if isinstance(spec, Path) or os.sep in name:
        return True
    return name != "digits" and mnist_name(name) is None and Path(name).exists()
