"""From counts of work to seconds."""

from __future__ import annotations

from collections.abc import Mapping

from ..graph import GraphRates
from ..neighbors import Counts, Rates
from ..store import DiskRates

Seconds = dict[str, float]


def to_seconds(
    counts: Counts, rates: Rates | GraphRates, *, reads: Mapping[str, int], writes: Mapping[str, int], disk: DiskRates | None
) -> Seconds:
    """Turn counts of work, and bytes where these pass through a disk, into seconds by step.

    Parameters
    ----------
    counts : dict
        Of each step, by the names of rates.
    rates : Rates or GraphRates
        Seconds of one.
    reads, writes : mapping
        Bytes by step that pass through the disk: what the system's cache holds is read from memory, but all is synced that is
        written.
    disk : DiskRates or None
        None where there is none yet, and bytes do not count.
    """
    seconds = {step: sum(times * getattr(rates, name) for name, times in of.items()) for step, of in counts.items()}
    if disk is None:
        return seconds
    for step in seconds:
        reading = reads.get(step, 0) / disk.read
        # the next lists are read while one is searched
        seconds[step] = max(seconds[step], reading) if step == "searching" else seconds[step] + reading
        seconds[step] += writes.get(step, 0) / disk.write
    return seconds
