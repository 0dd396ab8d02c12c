"""The engine: L ← W L out of core, normalization, reading of scores."""

from .api import NORMALIZATIONS, check_seeds, diffuse, diffuse_once
from .engine import FIXED_BYTES, column_bytes, columns_per_batch
from .scores import Diffusion, write_scores

__all__ = [
    "FIXED_BYTES",
    "NORMALIZATIONS",
    "Diffusion",
    "check_seeds",
    "column_bytes",
    "columns_per_batch",
    "diffuse",
    "diffuse_once",
    "write_scores",
]
