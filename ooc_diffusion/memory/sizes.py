"""The one grammar of sizes: a number with a unit, a percentage of the memory, or ``auto``."""

from __future__ import annotations

import math
import re
from pathlib import Path

import psutil

from ..errors import BadInput

_GRAMMAR = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|[KMGT]i?B?|%)\s*", re.IGNORECASE | re.ASCII)
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
_SMALLEST = 64 * 2**20
_AUTO_SHARE = 0.6
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def machine_memory() -> int:
    """Return the bytes of memory of this machine, or of the cgroup where that is less."""
    total = psutil.virtual_memory().total
    for path in _CGROUP_LIMITS:
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):
            continue
    return total


def parse_size(text: str, *, total: int | None = None) -> int:
    """Turn what a user wrote into bytes.

    Parameters
    ----------
    text : str
        A number with a unit: ``KB MB GB TB`` (also ``K M G T``) are powers of 1000, ``KiB MiB GiB TiB`` powers of 1024, ``%``
        is a share of ``total``; or ``auto``, 60 % of the memory that is available now. Case does not matter. The decimal
        reading of ``4G`` is the smaller of the two in use, so that a budget is never exceeded by a misunderstanding.
    total : int, optional
        Bytes that ``100%`` stands for. Default: the memory of the machine or of its cgroup.

    Returns
    -------
    int
        Bytes, at least 64 MiB.

    Raises
    ------
    BadInput
        For a bare number, a sign, an unknown unit, more than 100 %, or less than 64 MiB.
    """
    total = machine_memory() if total is None else total
    if text.strip().lower() == "auto":
        return max(_SMALLEST, int(_AUTO_SHARE * min(total, psutil.virtual_memory().available)))
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        hint = f"; did you mean {text.strip()}GiB?" if re.fullmatch(r"\s*\d+(\.\d+)?\s*", text, re.ASCII) else ""
        raise BadInput(f"size {text!r} is not a number with a unit such as 8GiB, 500MB or 80%, nor auto{hint}")
    number, unit = float(match[1]), match[2].upper()
    if unit == "%":
        if number > 100:
            raise BadInput(f"size {text!r} is more than all of the memory; give at most 100%")
        size = total * number / 100
    else:
        base = 1024 if "I" in unit else 1000
        size = number * base ** _POWERS.get(unit[0], 0)
    if math.isinf(size):
        raise BadInput(f"size {text[:20]!r}... is too large to be meant")
    if size < _SMALLEST:
        raise BadInput(f"size {text!r} is below the smallest that makes sense, 64MiB")
    return int(size)


def format_size(size: float) -> str:
    """Write bytes for people, in binary units with three digits: ``7.45 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1023.5:
            return _three_digits(size, unit) if unit != "B" else f"{size:.0f} B"
        size /= 1024
    return _three_digits(size, "TiB")


def _three_digits(size: float, unit: str) -> str:
    return f"{size:.3g} {unit}" if abs(size) < 999.5 else f"{size:.0f} {unit}"
