"""A folder of image files as a collection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .decode import read_image
from .scan import ScanFingerprint, scan_folder
from .source import check_row

if TYPE_CHECKING:
    from PIL import Image


class FolderSource:
    """Images below a folder, in the order of `scan_folder`.

    Parameters
    ----------
    root : path
        The folder.
    path_bytes : uint8 array (total,)
        The relative paths one after the other; in memory or mapped, never copied.
    path_offsets : int64 array (n + 1,)
        Where each path begins in ``path_bytes``, and the end of the last.
    fingerprint : str
        `ScanFingerprint` of the scan that gave the paths.
    """

    truth: None = None
    class_names: None = None

    def __init__(self, root: str | os.PathLike[str], path_bytes: np.ndarray, path_offsets: np.ndarray, fingerprint: str) -> None:
        self.root = Path(os.fsdecode(root)).absolute()
        self.fingerprint = fingerprint
        self._path_bytes = path_bytes
        self._path_offsets = path_offsets
        self._root_bytes = os.fsencode(self.root)

    @property
    def description(self) -> dict[str, str]:
        """The folder, absolute, as an argument of `open_source` that cannot be taken for the name of a data set."""
        return {"spec": str(self.root)}

    def __len__(self) -> int:
        return len(self._path_offsets) - 1

    def name(self, i: int) -> str:
        """Return the path of row ``i`` relative to the root (bytes that are not UTF-8 as surrogates, see `os.fsdecode`)."""
        return os.fsdecode(self._path(i))

    def read(self, i: int) -> Image.Image:
        """Decode the image of row ``i``; raise `UnreadableImage` where that fails."""
        return read_image(os.path.join(self._root_bytes, self._path(i)))  # noqa: PTH118

    def _path(self, i: int) -> bytes:
        start, end = self._path_offsets[check_row(i, len(self)) :][:2]
        return self._path_bytes[start:end].tobytes()


def collect(root: str | os.PathLike[str]) -> FolderSource:
    """Scan a folder that is small enough for all its paths to be kept in memory.

    Parameters
    ----------
    root : path
        The folder.

    Returns
    -------
    FolderSource
        Its images.

    Raises
    ------
    BadInput
        See `scan_folder`.
    """
    fingerprint = ScanFingerprint()
    paths, lengths = [], [np.zeros(1, np.int64)]
    for batch in scan_folder(root):
        fingerprint.update(batch)
        paths.append(batch.paths)
        lengths.append(batch.lengths)
    offsets = np.cumsum(np.concatenate(lengths))
    return FolderSource(root, np.concatenate(paths), offsets, fingerprint.hexdigest())
