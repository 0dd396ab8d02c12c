"""What the paper reports, as it is shown."""

import pytest

from ooc_diffusion.evaluation import paper
from ooc_diffusion.report import Chapter, Grid, chapter_csv, chapter_text
from ooc_diffusion.report.study_page import cell_text


@pytest.mark.parametrize(
    ("reported", "expected", "shown"),
    [
        (paper.TABLE_2["none"][0], (0.585, 0.0052), "58.5 ± 0.5"),
        (paper.TABLE_2["in-domain + logistic"][4], (0.8672, 0.0009), "86.7 ± 0.1"),
        (paper.TABLE_3["F100M"][2], (0.752, 0.004), "75.2 ± 0.4"),
        (paper.TABLE_3["F10M"][2], (0.74, 0.0035), "74.0 ± 0.4"),
        (paper.TABLE_5["F10M"][0], (0.463, 0.0128), "46.3 ± 1.3"),
        (paper.TABLE_1["constant"][2], (0.733, 0.0072), "73.3 ± 0.7"),
        (paper.TABLE_1["Gaussian"][2], (0.736, None), "73.6"),
        (paper.KNN, (0.605, None), "60.5"),
    ],
)
def test_means_and_deviations_are_shown_as_those_measured_here(reported, expected, shown):
    assert paper.fractions(reported) == expected
    assert cell_text(paper.fractions(reported)) == shown


def test_with_and_without_deviation_stand_in_one_table():
    row = [paper.fractions(paper.TABLE_1["constant"][0]), paper.fractions(paper.TABLE_1["Gaussian"][0]), None]
    chapter = Chapter("t", "T", "", paper=[Grid("paper", ["", "a", "b", "c"], [("row", row)])])
    assert "62.7 ± 0.7  62.7  –" in chapter_text(chapter)
    assert "paper,paper,row,a,0.627,0.0068,\npaper,paper,row,b,0.627,,\npaper,paper,row,c,,,\n" in chapter_csv(chapter)


@pytest.mark.parametrize("table", [paper.TABLE_2, paper.TABLE_3, paper.TABLE_5])
def test_each_row_has_a_mean_and_a_deviation_for_each_n(table):
    for row in table.values():
        assert len(row) == len(paper.N_PER_CLASS)
        means, deviations = zip(*row, strict=True)
        assert sorted(means) == list(means)  # all grow with n
        assert min(deviations) > 0.05
        assert max(deviations) < 1.5
