from ooc_diffusion.report import Evaluation, MethodCurve, accuracy_table_text

from .samples import sample_evaluation


def test_both_blocks_are_aligned():
    assert accuracy_table_text(sample_evaluation()).splitlines() == [
        "top-1 accuracy in %",
        "n =                           1           5           20",
        "logistic regression  42.1 ± 5.2  65.0 ± 3.0   90.0 ± 1.1",
        "diffusion            57.3 ± 2.1  70.0 ± 2.0         80.0",
        "",
        "top-5 accuracy in %",
        "n =                           1           5           20",
        "diffusion            90.0 ± 1.0  95.0 ± 1.0  100.0 ± 0.0",
    ]


def test_without_top5_there_is_one_block():
    text = accuracy_table_text(Evaluation([2], [MethodCurve("kNN", [(0.573, 0.021)])]))
    assert text == "top-1 accuracy in %\nn =           2\nkNN  57.3 ± 2.1"


def test_control_characters_do_not_reach_the_terminal():
    text = accuracy_table_text(Evaluation([2], [MethodCurve("a\x1b[31m\nb", [(0.5, None)])]))
    assert text.splitlines()[-1] == "a\\x1b[31m\\nb  50.0"


def test_no_method():
    assert accuracy_table_text(Evaluation([1, 2], [])) == "No method was evaluated."
