"""Labels for huge image collections from a handful of examples, on one workstation, in the memory you state."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["LabelDiffusion", "__version__", "build_graph", "diffuse"]

if TYPE_CHECKING:
    from .diffusion import diffuse
    from .estimator import LabelDiffusion
    from .graph import build_graph

_HOMES = {"LabelDiffusion": ".estimator", "build_graph": ".graph", "diffuse": ".diffusion"}


def __getattr__(name: str) -> Any:
    # Loading Numba and scikit-learn takes seconds; the command line must answer --help without them.
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name], __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
