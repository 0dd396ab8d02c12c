"""A trained network and its learning curve as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..report import learning_curve_png
from ..store import Store
from ..store.files import replace_file

# What is read from JSON need not come in the order in which it was measured.
_COLUMNS = ["epoch", "learning_rate", "loss", "accuracy", "held_out_loss", "held_out_accuracy"]


def write_network(store: Store, output: Path, curve: list[dict[str, Any]]) -> dict[str, str]:
    """Write the network that a store holds, and beside it its learning curve, ``.curve.csv`` and ``.curve.png``."""
    table, picture = output.with_suffix(".curve.csv"), output.with_suffix(".curve.png")
    values = ([epoch[name] for name in _COLUMNS] for epoch in curve)
    lines = [_COLUMNS, *(["" if value is None else repr(value) for value in row] for row in values)]
    replace_file(table, "".join(",".join(line) + "\n" for line in lines).encode())
    replace_file(picture, learning_curve_png(curve))
    replace_file(output, store.array("network/file").tobytes())
    return {"output": str(output), "curve_table": str(table), "curve_picture": str(picture)}
