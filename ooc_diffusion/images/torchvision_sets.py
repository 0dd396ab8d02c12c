"""The data sets of torchvision, by name."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from ..errors import BadInput
from .arrays import CACHE_ROOT
from .decode import plain_image
from .source import UnreadableImage, locate_row

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

# Where a class of torchvision takes a flag instead of the name of a split.
_FLAGS = {"train": ("train", "test"), "background": ("background", "evaluation")}
# The attributes under which the classes of torchvision keep the labels, the better-documented first.
_LABELS = ("targets", "labels", "_labels", "y")
_PAIRS = ("samples", "_samples", "_flat_character_images")


class TorchvisionSource:
    """A data set of torchvision.

    Parameters
    ----------
    name : str
        Name of a class of ``torchvision.datasets`` that holds images; case, hyphens and underscores do not matter
        (``cifar-10`` is CIFAR10).
    root : path, optional
        The folder that the class is given, and where it downloads what is missing. Default ``~/.cache/ooc_diffusion``.
    split : str, optional
        Default: train, then test, where the class knows these two; what the class itself defaults to otherwise.

    Raises
    ------
    BadInput
        For an unknown name or split, or where the data cannot be had.
    """

    def __init__(self, name: str, root: str | os.PathLike[str] | None = None, split: str | None = None) -> None:
        kind = _find_class(name)
        folder = CACHE_ROOT.expanduser() if root is None else Path(root)
        self._parts = [(label, _open(kind, folder, options)) for label, options in _splits(kind, split)]
        self._lengths = [len(part) for _, part in self._parts]
        self.truth, self.class_names = _classes([part for _, part in self._parts])
        self.description = {
            "spec": kind.__name__,
            "root": os.fspath(root) if root is not None else None,
            "split": split,
        }
        self.fingerprint = self._fingerprint()

    def __len__(self) -> int:
        return sum(self._lengths)

    def name(self, i: int) -> str:
        """Return the name of row ``i``, such as ``train/00012``."""
        part, row = self._locate(i)
        return f"{self._parts[part][0]}/{row:05d}"

    def read(self, i: int) -> Image.Image:
        """Return the image of row ``i``; raise `UnreadableImage` where torchvision cannot read it."""
        from PIL import Image

        part, row = self._locate(i)
        try:
            image = self._parts[part][1][row][0]
        except Exception as error:  # the loaders behind torchvision raise anything
            raise UnreadableImage(" ".join(str(error).split()) or type(error).__name__) from error
        if not isinstance(image, Image.Image):
            raise UnreadableImage(f"torchvision gives a {type(image).__name__} here, not an image")
        return plain_image(image)

    def _locate(self, i: int) -> tuple[int, int]:
        return locate_row(i, self._lengths)

    def _fingerprint(self) -> str:
        # Where the pixels are in memory they are hashed; data sets of separate files are known by name, length and classes.
        stream = xxhash.xxh3_128(str((self.description["spec"], [label for label, _ in self._parts])).encode())
        stream.update(np.array(self._lengths, np.int64).data)
        if self.truth is not None:
            stream.update(self.truth.data)
        for _, part in self._parts:
            if hasattr(part, "data"):
                stream.update(np.ascontiguousarray(part.data).data)
        return stream.hexdigest()


def has_train_and_test(name: str) -> bool:
    """Return whether a data set of torchvision has training images and tests, not neither of them, or other parts."""
    return not {"split", "train"}.isdisjoint(inspect.signature(_find_class(name)).parameters)


def _find_class(name: str) -> Any:
    from torchvision import datasets

    known = {_key(each): each for each in datasets.__all__}
    found = known.get(_key(name))
    if found is None:
        close = difflib.get_close_matches(_key(name), ["digits", *known], n=3)
        hint = ", ".join(known.get(each, each) for each in close)
        raise BadInput(
            f"{name!r} is neither a folder nor a known data set; "
            + (f"did you mean {hint}?" if hint else "give a folder, digits, fashion-mnist or a data set of torchvision")
        )
    return getattr(datasets, found)


def _key(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _splits(kind: Any, split: str | None) -> list[tuple[str, dict[str, Any]]]:
    """Return name and constructor arguments of each part to open."""
    parameters = inspect.signature(kind).parameters
    if "root" not in parameters:
        raise BadInput(f"{kind.__name__} of torchvision is not opened from a folder; choose another data set")
    if "split" in parameters:
        if split is None and parameters["split"].default is inspect.Parameter.empty:
            raise BadInput(f"{kind.__name__} has no default split; give --split")
        name = parameters["split"].default if split is None else split
        return [(name, {"split": name})]
    for flag, names in _FLAGS.items():
        if flag in parameters:
            if split not in (None, *names):
                raise BadInput(f"{kind.__name__} has no split {split!r}; give {names[0]} or {names[1]}")
            return [(name, {flag: name == names[0]}) for name in names if split in (None, name)]
    if split is not None:
        raise BadInput(f"{kind.__name__} has no splits; leave --split out")
    return [("all", {})]


def _open(kind: Any, folder: Path, options: dict[str, Any]) -> Any:
    try:
        try:
            return _in_order(kind(folder, **options))
        except RuntimeError:  # not there, or not whole
            if "download" not in inspect.signature(kind.__init__).parameters and kind.__name__ != "EMNIST":
                raise
        logger.info("downloading %s to %s", kind.__name__, folder)
        return _in_order(kind(folder, **options, download=True))
    except (OSError, RuntimeError, TypeError, ValueError, ModuleNotFoundError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"{kind.__name__} cannot be opened in {folder} ({reason}); give --root FOLDER that holds it, or a folder of images"
        ) from error


def _in_order(dataset: Any) -> Any:
    """Put classes and images of Omniglot in the order of their names: torchvision leaves them as the file system lists them."""
    characters = getattr(dataset, "_characters", None)
    if characters is not None:
        order = sorted(range(len(characters)), key=characters.__getitem__)
        place = {old: new for new, old in enumerate(order)}
        dataset._characters = [characters[old] for old in order]
        images = ((place[old], image) for image, old in dataset._flat_character_images)
        dataset._flat_character_images = [(image, number) for number, image in sorted(images)]
    return dataset


def _classes(parts: list[Any]) -> tuple[np.ndarray | None, list[str] | None]:
    """Return the classes of all images, and their names; None where some part does not know them."""
    truths = [_part_truth(part) for part in parts]
    known = [truth for truth in truths if truth is not None]
    if len(known) < len(parts):
        return None, None
    names = [_class_names(part, truth) for part, truth in zip(parts, known, strict=True)]
    named = [part for part in names if part is not None]
    if len(named) < len(parts) or all(part == named[0] for part in named):
        return np.concatenate(known), names[0]
    # The parts of Omniglot have classes of their own, each numbered from 0 on.
    together = list(dict.fromkeys(name for part in named for name in part))
    number = {name: i for i, name in enumerate(together)}
    moved = [np.array([number[name] for name in part], np.int32)[truth] for part, truth in zip(named, known, strict=True)]
    return np.concatenate(moved), together


def _part_truth(dataset: Any) -> np.ndarray | None:
    """Return the classes as the data set keeps them, without decoding an image; None where it keeps none in plain sight."""
    for attribute in _LABELS:
        labels = getattr(dataset, attribute, None)
        if labels is not None and len(labels) == len(dataset):
            array = np.asarray(labels)
            return array.astype(np.int32) if array.ndim == 1 and array.dtype.kind in "iu" else None
    for attribute in _PAIRS:
        pairs = getattr(dataset, attribute, None)
        if pairs is not None and len(pairs) == len(dataset):
            return np.fromiter((pair[1] for pair in pairs), np.int32, len(pairs))
    return None


def _class_names(dataset: Any, truth: np.ndarray) -> list[str] | None:
    names = getattr(dataset, "classes", getattr(dataset, "_characters", None))
    if names is None or len(names) <= truth.max(initial=-1):
        return None
    return [name if isinstance(name, str) else ", ".join(name) for name in names]
