"""From neighbor tables to the symmetrized, normalized graph on disk."""

from .api import build_graph
from .build import check_table, graph_bytes, least_memory, table_passes, write_graph
from .clusters import least_cluster_memory, markov_clusters
from .graph import Graph
from .rates import GraphRates, measure_building

__all__ = [
    "Graph",
    "GraphRates",
    "build_graph",
    "check_table",
    "graph_bytes",
    "least_cluster_memory",
    "least_memory",
    "markov_clusters",
    "measure_building",
    "table_passes",
    "write_graph",
]
