"""How an entry of L is stored: as float32, or as bfloat16, which is its upper half."""

from __future__ import annotations

import numpy as np

from ..errors import BadInput

# NumPy has no bfloat16: its bits are kept as integers
ELEMENTS: dict[str, np.dtype] = {"float32": np.dtype("<f4"), "bfloat16": np.dtype("<u2")}


def check_precision(precision: str, *, unskipped: bool) -> None:
    """Raise `BadInput` unless the precision is one there is, and one that the diffusion allows (`Diffusion.unskipped`)."""
    if precision not in ELEMENTS:
        raise BadInput(f"precision {precision!r} is not one of {', '.join(ELEMENTS)}")
    if unskipped and precision != "float32":
        raise BadInput(f"rows, sinkhorn, gamma, `reset` and `alpha` take no {precision}; give `precision` float32")


def widened(rows: np.ndarray) -> np.ndarray:
    """Return rows of L as float32: themselves, or what their bfloat16 bits stand for."""
    if rows.dtype == ELEMENTS["bfloat16"]:
        return (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return rows
