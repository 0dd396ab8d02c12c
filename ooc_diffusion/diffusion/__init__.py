"""The engine: L ← W L out of core, normalization, reading of scores."""

from .api import NORMALIZATIONS, check_seeds, diffuse, diffuse_once
from .gpu import gpu_host_bytes, resolve_device
from .room import FIXED_BYTES, column_bytes, make_room, masks_bytes, room_bytes
from .scores import Diffusion, write_scores

__all__ = [
    "FIXED_BYTES",
    "NORMALIZATIONS",
    "Diffusion",
    "check_seeds",
    "column_bytes",
    "diffuse",
    "diffuse_once",
    "gpu_host_bytes",
    "make_room",
    "masks_bytes",
    "resolve_device",
    "room_bytes",
    "write_scores",
]
