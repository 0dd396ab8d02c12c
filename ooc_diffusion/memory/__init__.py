"""The memory budget: reading sizes, measuring what is used, turning a budget into rows and columns."""

from .budget import MemoryBudget, StagePlan
from .clock import Clock
from .meter import MemoryMeter, anonymous_bytes, disk_bytes_read
from .sizes import format_size, machine_memory, parse_size

__all__ = [
    "Clock",
    "MemoryBudget",
    "MemoryMeter",
    "StagePlan",
    "anonymous_bytes",
    "disk_bytes_read",
    "format_size",
    "machine_memory",
    "parse_size",
]
