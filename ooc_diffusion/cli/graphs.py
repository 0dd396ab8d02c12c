"""Commands from vectors to the graph: neighbors, graph; and clusters of it."""

# ruff: noqa: D301 - \b must reach click as the character that it is

from __future__ import annotations

from typing import Any

import click

from .options import STORE, Number, common_options, refuse_unread, typed
from .variants import edge_options, refuse_unread_edges

K = click.option("--k", type=click.IntRange(min=1), default=30, show_default=True, help="Neighbors per image, itself included.")
INDEX = click.option(
    "--index",
    type=click.Choice(["auto", "Flat", "IVFFlat", "list-major"]),
    default="auto",
    show_default=True,
    help="Exact search, or inverted lists in memory (IVFFlat) or on disk; auto: Flat up to 100 000 images.",
)
SHARE = Number(0, 1, min_open=True)


@click.command("neighbors")
@STORE
@K
@INDEX
@click.option("--probes", type=click.IntRange(min=1), help="Lists visited per image.  [default: 256, at most 3/4 of all]")
@click.option("--target-recall", type=SHARE, help="Visit as many lists as this recall takes on a sample.")
@click.option("--min-recall", type=SHARE, help="Fail where the measured recall is lower.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of the vectors that list-major keeps on disk, or IVFFlat on a GPU.",
)
@click.option("--add", is_flag=True, help="Take the images of role added into the background, and update its table.")
@click.option("--table", metavar="FILE", help="Take the neighbors of the background from this .npy of ids, -1 = none.")
@click.option("--similarities", metavar="FILE", help="Their inner products, an .npy.  [default: they are computed]")
@click.option(
    "--table-width",
    type=click.IntRange(min=1),
    help="Neighbors in a row of a table without a header.  [default: the number at the end of names like x.int32, x.float32]",
)
@click.option("--index-file", metavar="FILE", help="Search with this index of the background, as faiss.write_index wrote it.")
@common_options
def neighbors_command(store: str, add: bool, **options: Any) -> dict[str, Any]:
    """Find the nearest neighbors of every image among the background.

    A --table (and its --similarities) is an .npy array, or a file without a header: int32 ids (float32 similarities), row
    after row. In names like ndis1000000_k32_I_11.int32 and ndis1000000_k32_D_11.float32 the last number is that of the
    neighbors in a row; a number is 4 bytes long, whatever it says.

    \b
    Examples:
      ooc-diffusion neighbors --store s --k 30 --target-recall 0.95 --memory-budget 4GiB
      ooc-diffusion neighbors --store s --table I_11.int32 --similarities D_11.float32
      ooc-diffusion neighbors --store s --add
    """
    if add:
        from ..stages.addition import SEARCHED, add_images

        given = click.get_current_context().params
        stated = {name: given[name] for name in SEARCHED if typed(name)}
        return add_images(store, stated=stated, min_recall=options["min_recall"], settings=options["settings"])
    from ..stages.neighbors import neighbors

    refuse_unread(options["table"] is not None, "similarities", "--table")
    return neighbors(store, **options)


@click.command("graph")
@STORE
@click.option("--k", type=click.IntRange(min=1), help="Neighbors per node.  [default: as many as were searched for]")
@edge_options
@click.option("--exact", is_flag=True, help="Look for the seeds among the neighbors of the background exactly, not by lists.")
@click.option(
    "--target-recall",
    type=SHARE,
    default=0.99,
    show_default=True,
    help="Compare seeds with as many lists of the background as this recall of W_BL takes on a sample.",
)
@common_options
def graph_command(store: str, **options: Any) -> dict[str, Any]:
    """Complete the neighbor table with the seeds, symmetrize and normalize it.

    \b
    Examples:
      ooc-diffusion graph --store s
      ooc-diffusion graph --store s --weighting gaussian --sigma 0.4 --mutual
    """
    from ..stages.graph import graph

    refuse_unread_edges(options)
    refuse_unread(not options["exact"], "target_recall", "search by lists, without --exact")
    return graph(store, **options)


@click.command("cluster")
@STORE
@click.option("--output", required=True, type=click.Path(), help="CSV to write: path,cluster.")
@click.option(
    "--power",
    type=Number(1, 2, min_open=True),
    default=2.0,
    show_default=True,
    help="r, the power of each entry: the larger, the more clusters.",
)
@click.option(
    "--threshold",
    type=Number(0, 1, min_open=True, max_open=True),
    default=1e-5,
    show_default=True,
    help="Entries below it are dropped in each step.",
)
@click.option(
    "--max-steps", type=click.IntRange(min=1), default=100, show_default=True, help="Steps after which it ends with a warning."
)
@common_options
def cluster_command(store: str, **options: Any) -> dict[str, Any]:
    """Cluster the images of a small graph by full Markov clustering, without labels.

    W is squared in memory until it changes no more; a graph that outgrows the budget on the way is refused.

    \b
    Example:
      ooc-diffusion cluster --store s --power 1.4 --output clusters.csv
    """
    from ..stages.cluster import cluster

    return cluster(store, **options)
