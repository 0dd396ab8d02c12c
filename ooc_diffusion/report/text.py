"""The accuracy table for terminals."""

from __future__ import annotations

from .contents import Evaluation
from .wording import accuracy, visible


def accuracy_table_text(evaluation: Evaluation) -> str:
    """Return the accuracy table as plain text.

    Parameters
    ----------
    evaluation : Evaluation
        The methods and their accuracies.

    Returns
    -------
    str
        One block for top-1 and, where there is any, one for top-5: methods as rows, labels per class as columns, mean ± standard
        deviation in percent. The columns of both blocks stand below one another.
    """
    blocks = [(metric, [[visible(name), *map(accuracy, curve)] for name, curve in rows]) for metric, rows in evaluation.blocks()]
    header = ["n =", *map(str, evaluation.n_per_class)]
    lines = [header, *(line for _, rows in blocks for line in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "\n".join([f"{metric} accuracy in %", *(_aligned(line, widths) for line in (header, *rows))]) for metric, rows in blocks
    ]
    return "\n\n".join(texts) or "No method was evaluated."


def _aligned(cells: list[str], widths: list[int]) -> str:
    name, *values = cells
    return "  ".join([name.ljust(widths[0]), *(v.rjust(w) for v, w in zip(values, widths[1:], strict=True))])
