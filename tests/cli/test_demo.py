"""The demo on digits: real images, numbers that are what the record says, a page with all its parts."""

import contextlib
import io
import json
import re

import pytest

from ooc_diffusion.cli.options import print_record

from ..report.samples import parse
from .helpers import run

SIZES = ["1", "2", "5", "10", "20"]
METHODS = ["kNN", "diffusion", "logistic regression", "fusion", "diffusion, best iteration"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    command = ["demo", "--draws", "1", "--store", root / "s", "--report", root / "page.html"]
    ran = run(*command, "--json")
    assert (ran.code, ran.err) == (0, "")
    return root, json.loads(ran.out)


def test_the_table_says_what_the_record_says(demo):
    _, record = demo
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_record(record, as_json=False)  # what the command does without --json
    assert out.getvalue().startswith(record["table"])
    assert list(record["accuracy"]) == METHODS
    blocks = re.split(r"\n(?=top-5)", record["table"])
    assert len(blocks) == 2
    for block, metric in zip(blocks, ("top1", "top5"), strict=True):
        for method, found in record["accuracy"].items():
            (line,) = [line for line in block.splitlines() if re.match(rf"\s*{method}  ", line)]
            assert re.findall(r"\d+\.\d+", line) == [f"{100 * found[n][metric][0]:.1f}" for n in SIZES]


def test_the_accuracies_are_those_of_the_draw(demo):
    _, record = demo
    (draw,) = record["evaluation"]["draws"]
    for n in SIZES:
        for method in METHODS:
            for metric in ("top1", "top5"):
                assert record["accuracy"][method][n][metric] == [draw[n]["methods"][method][metric], None]
    top1 = {method: [found[n]["top1"][0] for n in SIZES] for method, found in record["accuracy"].items()}
    assert top1["diffusion"][-1] > 0.85
    assert top1["fusion"][-1] > 0.85
    assert all(best >= chosen for best, chosen in zip(top1["diffusion, best iteration"], top1["diffusion"], strict=True))
    assert all(curve[-1] > curve[0] for curve in top1.values())
    assert all(found[n]["top1"][0] <= found[n]["top5"][0] <= 1 for found in record["accuracy"].values() for n in SIZES)


def test_the_page_has_its_parts(demo):
    root, record = demo
    text = (root / "page.html").read_text(encoding="utf-8")
    page = parse(text)
    assert page.one("h1").text.strip() == "Demo: digits"
    for part in ("summary", "accuracy", "classes", "unreached", "unreadable", "stages", "about"):
        assert f'id="{part}"' in text
    for method in METHODS:
        assert method in text
    assert text.count('class="class-name"') == 10
    assert text.count("<svg") >= 1
    assert f"{100 * record['accuracy']['fusion']['20']['top1'][0]:.1f}" in text


def test_a_dry_run_of_the_demo_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = run("demo", "--dry-run", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["images"] == 1797
    assert list(tmp_path.iterdir()) == []


def test_a_budget_too_small_for_the_demo_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = run("demo", "--memory-budget", "128MiB")
    assert ran.code == 7
    assert re.search(r"the memory budget of 128MiB is too small: stage \w+ needs \d+MiB; give --memory-budget", ran.error)
    assert list(tmp_path.iterdir()) == []
