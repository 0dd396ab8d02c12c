"""From neighbor tables to the symmetrized, normalized graph on disk."""

from .api import build_graph
from .build import check_table, graph_bytes, least_memory, table_passes, write_graph
from .graph import Graph

__all__ = [
    "Graph",
    "build_graph",
    "check_table",
    "graph_bytes",
    "least_memory",
    "table_passes",
    "write_graph",
]
