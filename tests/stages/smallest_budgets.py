"""Run by the tests in a process of its own: each stage under the smallest budget that its error names. Prints JSON.

``python -m tests.stages.smallest_budgets STORE LABELS k dim n_iter index``: the store has descriptors.
"""

import json
import re
import sys
from functools import partial

from ooc_diffusion.errors import DoesNotFit
from ooc_diffusion.stages.classify import classify
from ooc_diffusion.stages.diffuse import diffuse
from ooc_diffusion.stages.graph import graph
from ooc_diffusion.stages.neighbors import neighbors
from ooc_diffusion.stages.reduce import reduce
from ooc_diffusion.stages.settings import Settings


def smallest(stage):
    """Return the records and the budget that worked; a stage of several parts is refused once for each."""
    budget, refusals = "64MiB", []
    while True:
        try:
            record = stage(settings=Settings(memory_budget=budget))
        except DoesNotFit as error:
            refusals.append(str(error))
            budget = re.search(r"give --memory-budget (\d+MiB)", str(error))[1]
        else:
            return {"records": [record] if "plan" in record else list(record.values()), "budget": budget, "refusals": refusals}


def main(folder, labels, k, dim, n_iter, index):
    stages = {
        "reduce": partial(reduce, folder, dim=int(dim)),
        "neighbors": partial(neighbors, folder, k=int(k), index=index),
        "graph": partial(graph, folder),
        "diffuse": partial(diffuse, folder, labels=labels, n_iter=int(n_iter)),
        "classify": partial(classify, folder, method="diffusion"),
    }
    sys.stdout.write(json.dumps({name: smallest(stage) for name, stage in stages.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
