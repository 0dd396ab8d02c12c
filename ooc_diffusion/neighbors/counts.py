"""How much there is to do to find neighbors, step by step, from sizes alone: what `Rates` turn into seconds."""

from __future__ import annotations

import math

from .bounded import key_bytes
from .list_major import around
from .lists import bisections, n_lists, training_rows
from .recall import SAMPLES
from .training import ITERATIONS

Counts = dict[str, dict[str, float]]


def kept(k: int, compared: float) -> float:
    """Return how many of so many similarities, in any order, are good enough to be looked at again; see `Best`.

    The k best are sorted out whenever ``places`` are full. Those that come next must reach the least of them, which is reached
    by a part k / (compared so far): ``places - k`` more come while the number compared grows by ``places / k``.
    """
    places = key_bytes(k) // 8
    if compared <= places:
        return float(compared)
    return places + (places - k) * math.log(compared / places) / math.log(places / k)


def count_search(
    n: int, q: int, dim: int, *, k: int, width: int, index: str, train: bool, probes: int, sampled: bool, longer: float
) -> Counts:
    """Count the work of `neighbors` for the q images of a role.

    Parameters
    ----------
    n, q, dim : int
        Images of the background and of the role, and their dimensions.
    k, width : int
        Neighbors per image, and those that are stored.
    index : str
        ``"Flat"``, ``"IVFFlat"`` or ``"list-major"``.
    train : bool
        Whether the role is the background.
    probes : int
        Lists that are visited for each image.
    sampled : bool
        Whether the probes follow from a recall.
    longer : float
        See `Rates`.

    Returns
    -------
    dict
        For each step, how often there is what the `Rates` of these names are for.
    """
    lists = n_lists(n)
    counts: Counts = {}
    if train and lists:
        compared = float(training_rows(n, dim)) * lists
        counts["training"] = {"assign": ITERATIONS * compared, "split": bisections(lists)}
    if lists:
        counts["assigning"] = {"assign": float(q) * lists}
    if train and index != "Flat":
        samples = min(SAMPLES, n)
        counts["samples"] = {"exact": float(samples) * n * (2 if sampled else 1), "near": float(samples) * lists * sampled}
    if index == "list-major" and train:
        counts["ordering"] = {"moved": 4.0 * n * dim}
    visited = probes * n / max(1, lists) * longer
    if index == "Flat":
        counts["searching"] = {"flat": float(q) * n}
    elif index == "IVFFlat":
        counts["searching"] = {"exact": float(q) * lists, "inside": q * visited}
    else:
        compared = q * float(around(lists, probes, own=train))
        products = {"near": compared, "listed": q * visited, "kept": q * kept(width, visited), "sorted": float(q) * width}
        counts["searching"] = products
    if index == "list-major" and train:
        counts["putting back"] = {"moved": 8.0 * n * width}
    return counts
