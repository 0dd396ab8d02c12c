"""The k nearest neighbors: faiss indexes, searching in blocks, merging, recall."""

from .completion import Entering, entered_lists, entering, entering_bytes, reach_for
from .counts import Counts, count_search
from .exact import DATABASE_ROWS, QUERY_ROWS
from .foreign_index import ForeignIndex, foreign_bytes
from .gpu import MOST_GPU_SELECTED, NOT_ON_GPUS, missing_room, require_free
from .guess import guess_probes
from .kernels import take_entering
from .list_major import MOST_MEMORY_PROBES, OrderedLists, block_bytes, nearest_lists, part_visited, query_rows, search_lists
from .lists import Inverted, bisect_centroids, locality_order, n_lists, n_probes, training_rows
from .merge import merge_neighbors
from .nearest import assign_lists
from .own_table import best_first, check_ids, check_similarities, distinct, require_products
from .permute import inverse, permuted, row_bytes
from .rates import Rates, longer, measure_rates, some_vectors
from .recall import (
    CLOSE,
    SAMPLES,
    Sample,
    count_hits,
    draw_sample,
    measure_recall,
    measure_until_known,
    most_samples,
    probes_for,
    recall_of_table,
)
from .search import INDEXES, choose_index, index_bytes, resolve_device, search, search_bytes
from .training import train_centroids

__all__ = [
    "CLOSE",
    "DATABASE_ROWS",
    "INDEXES",
    "MOST_GPU_SELECTED",
    "MOST_MEMORY_PROBES",
    "NOT_ON_GPUS",
    "QUERY_ROWS",
    "SAMPLES",
    "Counts",
    "Entering",
    "ForeignIndex",
    "Inverted",
    "OrderedLists",
    "Rates",
    "Sample",
    "assign_lists",
    "best_first",
    "bisect_centroids",
    "block_bytes",
    "check_ids",
    "check_similarities",
    "choose_index",
    "count_hits",
    "count_search",
    "distinct",
    "draw_sample",
    "entered_lists",
    "entering",
    "entering_bytes",
    "foreign_bytes",
    "guess_probes",
    "index_bytes",
    "inverse",
    "locality_order",
    "longer",
    "measure_rates",
    "measure_recall",
    "measure_until_known",
    "merge_neighbors",
    "missing_room",
    "most_samples",
    "n_lists",
    "n_probes",
    "nearest_lists",
    "part_visited",
    "permuted",
    "probes_for",
    "query_rows",
    "reach_for",
    "recall_of_table",
    "require_free",
    "require_products",
    "resolve_device",
    "row_bytes",
    "search",
    "search_bytes",
    "search_lists",
    "some_vectors",
    "take_entering",
    "train_centroids",
    "training_rows",
]
