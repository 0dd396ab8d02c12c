"""Arrays at rest: immutable ``.npy`` files that a manifest makes visible, journals, locks, verification.

See ``docs/architecture.md`` for the protocol and why it survives a crash at any point.
"""

from .adopt import adopt
from .foreign import file_bytes, load_npy, load_raw, what_it_is
from .job import ArrayWriter, Job
from .manifest import ArrayEntry, Manifest
from .rates import DiskRates, measure_disk
from .store import Store
from .strings import Strings, append_strings, path_key
from .upkeep import CleanReport, Problem, clean, status, verify

__all__ = [
    "ArrayEntry",
    "ArrayWriter",
    "CleanReport",
    "DiskRates",
    "Job",
    "Manifest",
    "Problem",
    "Store",
    "Strings",
    "adopt",
    "append_strings",
    "clean",
    "file_bytes",
    "load_npy",
    "load_raw",
    "measure_disk",
    "path_key",
    "status",
    "verify",
    "what_it_is",
]
