"""From neighbor tables to the symmetrized, normalized graph on disk."""

from .api import build_graph
from .build import check_table, graph_bytes, least_memory, write_graph
from .graph import Graph
from .order import bisect_centroids, locality_order

__all__ = [
    "Graph",
    "bisect_centroids",
    "build_graph",
    "check_table",
    "graph_bytes",
    "least_memory",
    "locality_order",
    "write_graph",
]
