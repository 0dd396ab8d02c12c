"""The engine: L ← W L out of core, normalization, reading of scores."""

from .api import NORMALIZATIONS, check_normalization, check_prior, check_seeds, diffuse, diffuse_once
from .coupled import columns_at_once, coupled_bytes, least_coupled_bytes
from .forecast import forecast
from .gpu import gpu_host_bytes, resolve_device
from .needed import Needed
from .parts import copied_bytes
from .paths import walk_back
from .precision import ELEMENTS, check_precision
from .reading import reading_bytes
from .room import FIXED_BYTES, column_bytes, make_room, masks_bytes, room_bytes, seed_bytes
from .scores import Diffusion, rows_needed, write_scores
from .zhou import SOLVERS, check_alpha, most_passes, warn_of_unsolved, zhou_column_bytes, zhou_columns

__all__ = [
    "ELEMENTS",
    "FIXED_BYTES",
    "NORMALIZATIONS",
    "SOLVERS",
    "Diffusion",
    "Needed",
    "check_alpha",
    "check_normalization",
    "check_precision",
    "check_prior",
    "check_seeds",
    "column_bytes",
    "columns_at_once",
    "copied_bytes",
    "coupled_bytes",
    "diffuse",
    "diffuse_once",
    "forecast",
    "gpu_host_bytes",
    "least_coupled_bytes",
    "make_room",
    "masks_bytes",
    "most_passes",
    "reading_bytes",
    "resolve_device",
    "room_bytes",
    "rows_needed",
    "seed_bytes",
    "walk_back",
    "warn_of_unsolved",
    "write_scores",
    "zhou_column_bytes",
    "zhou_columns",
]
