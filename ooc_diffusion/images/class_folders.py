"""Folders as classes: an image is of the class of the folder that it lies in."""

from __future__ import annotations

import numpy as np

from .scan import PathBatch, printable


class ClassFolders:
    """Numbers the folders of a scan in its order, which is that of their names.

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
        classes = np.empty(len(batch.lengths), np.int32)
        paths, end = batch.paths.tobytes(), 0
        for i, length in enumerate(batch.lengths.tolist()):
            folder = paths[end : end + length].rpartition(b"/")[0]
            end += length
            if folder != self._folder:  # a scan lists the files of a folder one after the other
                self._folder = folder
                self.names.append(printable(folder))
            classes[i] = len(self.names) - 1
        return classes
