"""What people see of a record."""

from ooc_diffusion.cli.tables import show


def test_a_recall_that_was_measured_is_shown(capsys):
    recall = {"recall": 0.95126, "uncertainty": 0.004913, "samples": 1000}
    record = {"stage": "neighbors.background", "images": 20_000, "short": 5e-05, "recall": recall, "seconds": 1.0}
    show({**record, "peak_memory_bytes": 2**20})
    assert capsys.readouterr().out.startswith("neighbors.background: images 20,000, short 5e-05, recall 0.9513 ± 0.0049, 1.0 s")
    show({**record, "recall": recall | {"visited": 0.952}, "peak_memory_bytes": 2**20})
    assert "recall 0.9513 ± 0.0049 (0.9520 with the vectors in float32), 1.0 s" in capsys.readouterr().out
    show({"stage": "graph", "recall_of_seeds": {"background": recall}, "seconds": 1.0, "peak_memory_bytes": 2**20})
    assert capsys.readouterr().out.startswith("graph: recall of seeds among background 0.9513 ± 0.0049, 1.0 s")
