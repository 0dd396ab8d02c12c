"""Folders as classes: an image is of the class of the folder that it lies in."""

from __future__ import annotations

import numpy as np

from .scan import PathBatch, printable


class ClassFolders:
    """Numbers the folders of a scan, or of an archive, in its order, which is that of their names.

    Attributes
    ----------
    names : list of str
        Path of each class relative to the root of the scan, such as ``cat`` or ``Greek/character01``; one for each folder that
        holds an image itself.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._folder = b""

    def number(self, batch: PathBatch) -> np.ndarray:
        """Return the classes of the next batch of `scan_folder`, int32 (b,); -1 for images right below the root."""
        paths, ends = batch.paths.tobytes(), np.cumsum(batch.lengths)
        starts = ends - batch.lengths
        return np.array([self.add(paths[start:end]) for start, end in zip(starts, ends, strict=True)], np.int32)

    def add(self, path: bytes) -> int:
        """Return the class of the next image by its path relative to the root."""
        folder = path.rpartition(b"/")[0]
        if folder != self._folder:  # a scan lists the files of a folder one after the other
            self._folder = folder
            self.names.append(printable(folder))
        return len(self.names) - 1
