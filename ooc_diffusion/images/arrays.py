"""Collections that are one array in memory: scikit-learn's digits, the MNIST family."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from ..errors import BadInput
from .idx import idx_shape, read_idx
from .source import check_row, locate_row

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

CACHE_ROOT = Path("~/.cache/ooc_diffusion")

# Name for people: name of the class in torchvision, and of the folder where torchvision keeps the files.
MNIST_FAMILY = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "kmnist": "KMNIST"}

_DEBIAN_FOLDERS = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}
_FILE_PREFIXES = {"train": "train", "test": "t10k"}
_DIGITS_SPLITS = {"train": slice(0, 1297), "test": slice(1297, None)}
_DIGITS = [str(digit) for digit in range(10)]
_CLASS_NAMES = {
    "fashion-mnist": [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
    "mnist": _DIGITS,
    "kmnist": ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
}


class ArraySource:
    """Images of one size in one array.

    Parameters
    ----------
    images : uint8 array (n, h, w)
        Gray images.
    truth : int array (n,)
        Class of each image.
    class_names : list of str
        Name of each class.
    parts : sequence of (str, int)
        Name and number of images of the consecutive parts; rows are named ``part/00012``, counted anew in each part.
    description : dict
        Arguments of `open_source` that open this collection again.
    """

    def __init__(
        self,
        images: np.ndarray,
        truth: np.ndarray,
        class_names: list[str],
        *,
        parts: Sequence[tuple[str, int]],
        description: dict[str, Any],
    ) -> None:
        self.images = images
        self.truth = truth.astype(np.int32)
        self.class_names = class_names
        self.description = description
        self.fingerprint = _fingerprint(str((description["spec"], list(parts))).encode(), images, self.truth)
        self._parts = tuple(parts)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, i: int) -> str:
        """Return the name of row ``i``, such as ``train/00012``."""
        part, row = locate_row(i, [length for _, length in self._parts])
        return f"{self._parts[part][0]}/{row:05d}"

    def read(self, i: int) -> Image.Image:
        """Return the image of row ``i``, of mode L."""
        from PIL import Image

        return Image.fromarray(self.images[check_row(i, len(self))])


class DigitsSource(ArraySource):
    """The 1797 gray images of 8×8 pixels that ship with scikit-learn; their values 0..16 are stored times 15 as 0..240.

    Parameters
    ----------
    split : {"train", "test"}, optional
        The first 1297 or the last 500 images, by other writers. Default: all.
    """

    def __init__(self, split: str | None = None) -> None:
        from sklearn.datasets import load_digits

        if split not in (None, *_DIGITS_SPLITS):
            raise BadInput(f"digits have no split {split!r}; use train or test, or leave it out for all")
        digits = load_digits()
        rows = _DIGITS_SPLITS[split] if split else slice(None)
        images = (digits.images[rows] * 15).astype(np.uint8)
        super().__init__(
            images,
            digits.target[rows],
            list(_DIGITS),
            parts=[(split or "digits", len(images))],
            description={"spec": "digits"} | ({"split": split} if split else {}),
        )


class MnistSource(ArraySource):
    """A data set of the MNIST family, read from its idx files without torch.

    Parameters
    ----------
    name : {"fashion-mnist", "mnist", "kmnist"}
        The data set.
    root : path, optional
        A folder with the four idx files, or with torchvision's layout (``FashionMNIST/raw``). Default: the folder of Debian's
        package where it is installed, else ``~/.cache/ooc_diffusion``. What is not there is downloaded into it.
    split : {"train", "test"}, optional
        Default: both, train first.

    Raises
    ------
    BadInput
        For an unknown split, where the files cannot be had, or where they are corrupt.
    """

    def __init__(self, name: str, root: str | os.PathLike[str] | None = None, split: str | None = None) -> None:
        if split not in (None, *_FILE_PREFIXES):
            raise BadInput(f"{name} has no split {split!r}; give train or test, or leave it out for both")
        splits = list(_FILE_PREFIXES) if split is None else [split]
        files = [_mnist_files(name, root, each) for each in splits]
        shapes = [idx_shape(images, ndim=3) for images, _ in files]
        lengths = [shape[0] for shape in shapes]
        pixels = np.empty((sum(lengths), *shapes[0][1:]), np.uint8)
        classes = np.empty(sum(lengths), np.uint8)
        start = 0
        for (images, labels), length in zip(files, lengths, strict=True):
            read_idx(images, pixels[start : start + length])
            read_idx(labels, classes[start : start + length])
            start += length
        if classes.size and classes.max() >= len(_CLASS_NAMES[name]):
            raise BadInput(f"the labels of {name} in {files[0][1].parent} reach {classes.max()}, 9 is the largest known")
        super().__init__(
            pixels,
            classes,
            list(_CLASS_NAMES[name]),
            parts=list(zip(splits, lengths, strict=True)),
            description={"spec": name, "root": os.fspath(root) if root is not None else None, "split": split},
        )


def mnist_name(spec: str) -> str | None:
    """Return the name of the MNIST family that is meant by ``spec``, whatever its case and hyphens; None for any other."""
    return next((name for name in MNIST_FAMILY if name.replace("-", "") == spec.lower().replace("-", "")), None)


def _mnist_files(name: str, root: str | os.PathLike[str] | None, split: str) -> tuple[Path, Path]:
    folders = [CACHE_ROOT.expanduser()] if root is None else [Path(root)]
    if root is None and name in _DEBIAN_FOLDERS:
        folders.insert(0, _DEBIAN_FOLDERS[name])
    found = _find_pair(folders, name, split)
    if found is None:
        _download(name, folders[-1])
        found = _find_pair(folders, name, split)
    if found is None:
        raise BadInput(f"{name}: {folders[-1]} holds no {_FILE_PREFIXES[split]}-*-ubyte files; {_choices(name)}")
    return found


def _find_pair(folders: list[Path], name: str, split: str) -> tuple[Path, Path] | None:
    stems = [f"{_FILE_PREFIXES[split]}-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]
    for folder in folders:
        for place in (folder / MNIST_FAMILY[name] / "raw", folder):
            for ending in ("", ".gz"):
                images, labels = (place / (stem + ending) for stem in stems)
                if images.is_file() and labels.is_file():
                    return images, labels
    return None


def _download(name: str, root: Path) -> None:
    import torchvision

    logger.info("downloading %s to %s", name, root)
    try:
        getattr(torchvision.datasets, MNIST_FAMILY[name])(root, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{name} is not in {root} and cannot be downloaded ({reason}); {_choices(name)}") from error


def _choices(name: str) -> str:
    package = f"apt-get install dataset-{name}, or " if name in _DEBIAN_FOLDERS else ""
    return f"{package}give --root FOLDER with its four idx files"


def _fingerprint(identity: bytes, *arrays: np.ndarray) -> str:
    stream = xxhash.xxh3_128(identity)
    for array in arrays:
        stream.update(np.ascontiguousarray(array).data)
    return stream.hexdigest()
