import numpy as np
import pytest

from ooc_diffusion.evaluation import rows, summarize


def test_mean_and_sample_deviation():
    summary = summarize([{"top1": 0.5, "top5": 0.9}, {"top1": 0.7, "top5": 0.9}])
    assert summary["top1"] == pytest.approx({"mean": 0.6, "std": np.std([0.5, 0.7], ddof=1), "draws": 2})
    assert summary["top5"]["std"] == 0
    assert np.isnan(summarize([{"top1": 0.5}])["top1"]["std"])
    assert summarize([]) == {}


def test_cells_in_percent():
    summaries = {"diffusion": summarize([{"top1": 0.5}, {"top1": 0.7}]), "logistic": summarize([{"top5": 0.25}])}
    assert rows(summaries, ["top1", "top5"], decimals=1) == [
        ["method", "top1", "top5"],
        ["diffusion", "60.0 ± 14.1", "–"],
        ["logistic", "–", "25.0"],
    ]
