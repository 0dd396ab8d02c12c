"""The one gate for descriptors, computed here or brought along."""

from __future__ import annotations

import numpy as np

from ..errors import BadInput


def check_descriptors(block: np.ndarray, first_row: int, what: str) -> None:
    """Refuse descriptors that would poison all that follows.

    Parameters
    ----------
    block : float array (b, d)
        Consecutive descriptors; 16, 32 or 64 bits.
    first_row : int
        Row of the first of them in the whole collection, for the message.
    what : str
        What the array is, or its file, for the message.

    Raises
    ------
    BadInput
        Where the array is not two-dimensional or not of floats, or where a value is NaN or infinite; names the first such row.
    """
    if block.ndim != 2 or block.shape[1] == 0:
        raise BadInput(f"{what}: shape {block.shape} is not (images, values); give one row per image")
    if block.dtype.kind != "f":
        raise BadInput(f"{what}: values are {block.dtype}, not floating point; convert them to float32")
    finite = np.isfinite(block)
    if not finite.all():
        row, column = np.unravel_index(int(finite.argmin()), block.shape)
        raise BadInput(
            f"{what}: row {first_row + row} holds {block[row, column]} at column {column}; "
            "descriptors must be finite, remove or recompute that row"
        )
