"""Chapters in the folder of a study: those of the same parameters belong together."""

import dataclasses
import shutil
from pathlib import Path

from ooc_diffusion.evaluation import paper
from ooc_diffusion.stages.study import claims
from ooc_diffusion.stages.study.rules import digest_of, rules
from ooc_diffusion.stages.study.saved import save_chapter, saved_chapters

from ...report.samples import sample_study


def test_chapters_of_the_same_run_come_back_in_the_order_of_the_names_and_others_are_named(tmp_path, caplog):
    table2, figure3 = sample_study().chapters
    run = {"k": 30, "other collection": None, "n_per_class": [1, 2]}
    save_chapter(figure3, tmp_path, run=run, neighbors=["b", "a"], command="first")
    save_chapter(table2, tmp_path, run=run, neighbors=["b"], command="second")
    save_chapter(dataclasses.replace(table2, name="knn"), tmp_path, run={**run, "k": 10}, neighbors=["c"], command="third")
    (tmp_path / "smooth.json").write_text("[1, ")
    (tmp_path / "table1.json").write_text("[1]")
    found = saved_chapters(tmp_path, ["table1", "table2", "figure3", "knn", "smooth", "table5"], run=run)
    assert found.chapters == [table2, figure3]
    assert found.commands == ["second", "first"]
    assert found.neighbors == ["a", "b"]
    (told,) = caplog.messages
    assert told.startswith(f"table1, knn, smooth in {tmp_path}: made with other options")
    caplog.clear()
    assert [chapter.name for chapter in saved_chapters(tmp_path, ["knn"], run={**run, "k": 10}).chapters] == ["knn"]
    assert caplog.messages == []


def test_another_rule_and_another_figure_of_the_paper_are_told_apart(tmp_path):
    study, figures = Path(claims.__file__).parent, Path(paper.__file__)
    shutil.copytree(study, tmp_path / "study")
    shutil.copy(figures, tmp_path)
    copies = [*(tmp_path / "study").glob("*.py"), tmp_path / figures.name]
    assert digest_of(copies) == rules()
    for file, before, after in ((tmp_path / "study" / "claims.py", "ERROR = 0.05", "ERROR = 0.01"), (copies[-1], "58.5", "58.6")):
        text = file.read_text(encoding="utf-8")
        assert text.count(before) == 1
        file.write_text(text.replace(before, after), encoding="utf-8")
        assert digest_of(copies) != rules()
        file.write_text(text, encoding="utf-8")
    assert digest_of(copies) == rules()
