"""What is demanded of a neighbor table."""

from __future__ import annotations

import logging

import numpy as np

from ..errors import BadInput
from .plans import BLOCK_ROWS

logger = logging.getLogger(__name__)

# A table with less of the true neighbors deserves a warning.
_LOW_RECALL = 0.5


def share_of_short(ids: np.ndarray, k: int) -> float:
    """Return the share of the rows with less than k neighbors."""
    short = sum(int((ids[first : first + BLOCK_ROWS, k - 1] < 0).sum()) for first in range(0, len(ids), BLOCK_ROWS))
    return short / len(ids)


def require_recall(found: dict[str, float], min_recall: float | None, *, better: str) -> None:
    """Raise `BadInput`, with what would be better, where a recall that was measured is below what was asked for."""
    if min_recall is not None and found["recall"] < min_recall:
        raise BadInput(
            f"the recall is {found['recall']:.4f} ± {found['uncertainty']:.4f}, below the {min_recall} that was asked for; "
            f"{better}"
        )


def warn_of_low_recall(found: dict[str, float]) -> None:
    """Say it where a table has few of the true neighbors."""
    if found["recall"] < _LOW_RECALL:
        logger.warning("only %.1f %% of the true nearest neighbors are in the table", 100 * found["recall"])
