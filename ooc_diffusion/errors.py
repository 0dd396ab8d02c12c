"""The exceptions of the package and the exit codes that the command line turns them into.

Each is also the builtin that a caller would expect, so that ``except ValueError`` keeps working. A message is one line: what is
wrong, where (file, row), what to do. Parameters stand in backticks, `dim`; the command line shows its options there, --dim.
"""

from __future__ import annotations

__all__ = [
    "BadInput",
    "BadOption",
    "CorruptStore",
    "DoesNotFit",
    "NoSpace",
    "OocDiffusionError",
    "StorageFailure",
    "StoreLocked",
]


class OocDiffusionError(Exception):
    """Base of all errors that the package raises on purpose."""

    exit_code = 1


class BadInput(OocDiffusionError, ValueError):
    """A file, an array or an option of the user cannot be used."""

    exit_code = 3


class BadOption(BadInput):
    """The command line itself is wrong: an option cannot be read, or nothing would read it."""

    exit_code = 2


class CorruptStore(OocDiffusionError, ValueError):
    """An array at rest differs from what the manifest says of it, or a finished one contradicts what it was made from."""

    exit_code = 4


class StoreLocked(OocDiffusionError, RuntimeError):
    """Another living process writes to the store."""

    exit_code = 5


class NoSpace(OocDiffusionError, OSError):
    """The disk has not the space that a stage needs."""

    exit_code = 6


class DoesNotFit(OocDiffusionError, MemoryError):
    """The memory budget is below the smallest that would do."""

    exit_code = 7


class StorageFailure(OocDiffusionError, OSError):
    """The operating system refused to read, write or sync a file."""

    exit_code = 8
