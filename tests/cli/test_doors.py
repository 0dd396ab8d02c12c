"""The doors: every command explains itself, starts at once, keeps its streams apart and ends with the right code."""

import json
import logging
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest

from ooc_diffusion.cli.main import COMMANDS, cli
from ooc_diffusion.store import Store

from .helpers import COMMAND, done, files_below, read_csv, run, spawn, write_csv

REPOSITORY = Path(__file__).parents[2]
CONTEXT = click.Context(cli, info_name="ooc-diffusion")
each_command = pytest.mark.parametrize("name", COMMANDS)


def options(name):
    return [parameter for parameter in command(name).params if isinstance(parameter, click.Option)]


def command(name):
    found = cli.get_command(CONTEXT, name)
    assert found is not None
    return found


def examples(name):
    text = command(name).help.partition("Example")[2]
    return [shlex.split(line) for line in text.splitlines() if line.strip().startswith("ooc-diffusion ")]


def test_the_commands_of_the_design_are_there():
    named = (
        "label demo extract import train reduce neighbors graph cluster diffuse classify evaluate split study paths "
        "plan status verify doctor clean"
    )
    assert list(COMMANDS) == named.split()


@each_command
def test_every_command_and_option_has_help(name):
    assert len(command(name).help.splitlines()[0]) > 20
    assert [option.name for option in options(name) if not option.help] == []
    assert command(name).help.splitlines()[0].endswith(".")


@each_command
def test_every_example_stands_on_its_own_line_and_parses(name):
    found = examples(name)
    assert found
    shown = command(name).get_help(click.Context(command(name), info_name=name, parent=CONTEXT))
    assert "\\b" not in shown  # the mark that keeps click from wrapping the lines
    for words in found:
        assert words[:2] == ["ooc-diffusion", name]
        assert shlex.join(words) in [line.strip() for line in shown.splitlines()]
        assert command(name).make_context(name, words[2:], parent=CONTEXT).params


@each_command
def test_every_command_and_option_is_in_the_docs(name):
    docs = (REPOSITORY / "docs" / "commands.md").read_text()
    assert f"## {name}\n" in docs
    section = docs.partition(f"## {name}\n")[2].partition("\n## ")[0]
    named = {word for option in options(name) for word in option.opts if word.startswith("--")}
    assert {word for word in named if re.search(rf"(?<![\w-]){word}(?![\w-])", section) is None} == set()


def test_the_docs_are_what_the_commands_say():
    tool = [sys.executable, REPOSITORY / "tools" / "write_command_docs.py", "--check"]
    ran = subprocess.run(tool, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_common_options_are_everywhere_a_stage_runs():
    common = {"memory_budget", "threads", "device", "seed", "overwrite", "dry_run", "as_json", "verbose", "quiet"}
    for name, module in COMMANDS.items():
        named = {option.name for option in options(name)}
        assert {"as_json", "verbose", "quiet"} <= named
        # walks are computed on the CPU alone
        assert common - ({"device"} if name == "paths" else set()) <= named or module == "upkeep"


HEAVY = ("numpy", "torch", "torchvision", "faiss", "numba", "sklearn", "scipy", "matplotlib", "pyarrow", "PIL", "rich")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["label", "--help"], ["nonsense"]])
def test_help_loads_nothing_heavy(arguments):
    ran = subprocess.run([sys.executable, "-X", "importtime", *COMMAND[1:], *arguments], capture_output=True, text=True)
    assert ran.returncode == (2 if arguments == ["nonsense"] else 0)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in ran.stderr.splitlines() if "|" in line}
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_help_answers_at_once():
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        assert "label" in spawn("--help").out
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5


DIFFUSE = """
import sys
import numpy as np
from ooc_diffusion import build_graph, diffuse
graph = build_graph(np.array([[0, 1], [1, 2], [2, 1]]), store=sys.argv[1])
print(np.array(diffuse(graph, [0], [0], 1, n_iter=1)).tolist())
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "torchvision", "matplotlib"}))
"""


def test_diffusing_in_python_never_loads_torch(tmp_path):
    ran = subprocess.run([sys.executable, "-c", DIFFUSE, tmp_path / "g"], capture_output=True, text=True)
    # W = D^-1 (W0 + W0^T): row 0 is (2 1 0)/3, row 1 is (1 2 2)/5, row 2 is (0 2 2)/4; column 0 of it, then each column to sum 1
    values, loaded = ran.stdout.splitlines()
    assert [row[0] for row in json.loads(values)] == pytest.approx([2 / 3 / (2 / 3 + 1 / 5), 1 / 5 / (2 / 3 + 1 / 5), 0])
    assert loaded == "[]"


def test_the_diffuse_command_never_loads_torch(vectors, tmp_path):
    (tmp_path / "few.csv").write_text("row,label\n0,a\n1,b\n2,a\n3,b\n")
    script = "import sys; from ooc_diffusion.cli.main import _run; print(_run(sys.argv[1:]), 'torch' in sys.modules)"
    words = ["diffuse", "--store", vectors, "--labels", tmp_path / "few.csv", "-q", "--dry-run"]
    ran = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1] == "0 False"
    copy = shutil.copytree(vectors, tmp_path / "s")
    words = ["diffuse", "--store", copy, "--labels", tmp_path / "few.csv", "-q"]
    ran = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert (ran.stdout.splitlines()[-1], ran.stderr) == ("0 False", "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["label", "photos", "--labels", "f.csv", "--output", "o.csv", "--modle", "pixels"], "--modle"),
        (["label", "photos", "--labels", "f.csv"], "--output"),
        (["label"], "IMAGES"),
        (["extract", "photos", "--store", "s", "--role", "king"], "'king'"),
        (["classify", "--store", "s", "--method", "magic"], "'magic'"),
        (["classify", "--store", "s", "--coefficient", "1.5"], "1.5"),
        (["neighbors", "--store", "s", "--k", "0"], "--k"),
        (["neighbors", "--store", "s", "--k", "many"], "'many'"),
        (["neighbors", "--store", "s", "--index", "HNSW"], "'HNSW'"),
        (["graph", "--store", "s", "--sigma", "0"], "--sigma"),
        (["diffuse", "--store", "s", "--labels", "l", "--n-iter", "-1"], "--n-iter"),
        (["extract", "photos", "--store", "s", "--max-failures", "2"], "--max-failures"),
        (["plan", "1"], "'N'"),
        (["status"], "--store"),
        (["demo", "--threads", "0"], "--threads"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_ends_before_anything_runs(arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = run(*arguments, quiet=False)
    assert ran.code == 2
    assert ran.out == ""
    assert named in ran.err.splitlines()[-1]
    assert ran.err.splitlines()[-1].startswith("Error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["graph", "--sigma", "0.5"], "--sigma belongs to --weighting gaussian"),
        (["graph", "--exact", "--target-recall", "0.99"], "--target-recall belongs to search by lists, without --exact"),
        (["diffuse", "--labels", "l", "--power", "2"], "--power belongs to --normalization gamma"),
        (["diffuse", "--labels", "l", "--power", "2", "--normalization", "rows"], "--power belongs to --normalization gamma"),
        (["classify", "--method", "knn", "--coefficient", "0.5"], "--coefficient belongs to --method fusion"),
        (["neighbors", "--similarities", "s.npy"], "--similarities belongs to --table"),
        (["verify", "--max-seconds", "9"], "--max-seconds belongs to --data"),
    ],
)
def test_options_that_nothing_would_read_are_refused(arguments, told, vectors):
    before = files_below(vectors)
    ran = run(arguments[0], "--store", vectors, *arguments[1:])
    assert (ran.code, ran.error) == (2, f"error: {told}; leave it out, or give that")
    assert files_below(vectors) == before


def test_options_that_are_read_are_taken(vectors):
    words = ["graph", "--store", vectors, "--dry-run"]
    for options in (["--weighting", "gaussian", "--sigma", "0.4"], ["--target-recall", "0.99"], ["--exact"], []):
        done(*words, *options)
    assert done("verify", "--store", vectors, "--data", "--max-seconds", "60").startswith("1")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["evaluate", "--store", "s", "--n-per-class", "1,two"], "--n-per-class '1,two' is no list of numbers such as 1,2,5"),
        (["reduce", "--store", "s", "--device", "tpu"], "--device 'tpu' is not one of auto, cpu, cuda"),
        (
            ["plan", "1000", "--memory-budget", "foo"],
            "--memory-budget: size 'foo' is not a number with a unit such as 8GiB, 500MB or 80%, nor auto",
        ),
    ],
)
def test_values_that_cannot_be_read_are_wrong_usage(arguments, told):
    ran = run(*arguments)
    assert (ran.code, ran.error) == (2, f"error: {told}")


def test_an_unreadable_size_in_the_environment_is_wrong_usage(tmp_path, monkeypatch):
    monkeypatch.setenv("OOC_DIFFUSION_MEMORY_BUDGET", "foo")
    assert run("reduce", "--store", tmp_path).code == 2


def test_status_speaks_in_lines(vectors, tmp_path):
    shown = done("status", "--store", vectors).splitlines()
    assert re.match(r"import.background +[\d.]+ KiB +done +background/descriptors 60 x 8$", shown[2])
    folder = shutil.copytree(vectors, tmp_path / "s")
    store = Store(folder)
    for array in ("<f4", "<i4"):
        with store.job(f"stage{array[1]}", parameters={}) as job:
            job.checkpoint(now=True)
            if array == "<f4":
                job.array("some/rows", array, (7000, 2)).append(np.zeros((1234, 2), array))
                job.array("other/rows", array, (70,)).append(np.zeros(5, array))
                job.checkpoint(now=True)
    shown = done("status", "--store", folder)
    assert re.search(r"^stagef +interrupted +some/rows 1,234 rows, other/rows 5 rows$", shown, re.MULTILINE)
    assert re.search(r"^stagei +interrupted +nothing kept yet$", shown, re.MULTILINE)
    assert not set("{}()[]") & set(shown)


def test_graph_says_how_often_images_are_listed(vectors):
    ids = Store(vectors).array("background/neighbor_ids")[:, :5]
    listed = np.sort(np.bincount(ids.ravel(), minlength=len(ids)))
    expected = [f"{q}: {listed[int(np.ceil(q * len(ids))) - 1]}" for q in (0.5, 0.9, 0.99, 0.999)]
    assert f"in-degree {', '.join(expected)}, largest: {listed[-1]}," in done("graph", "--store", vectors)


def test_rows_of_two_roles_without_names_are_told_apart(vectors, tmp_path):
    store = shutil.copytree(vectors, tmp_path / "s")
    np.save(tmp_path / "seeds.npy", np.random.default_rng(2).normal(size=(4, 8)).astype(np.float32))
    labels = write_csv(tmp_path / "few.csv", [("0", "a"), ("3", "b")], header=("row", "label"))
    done("import", tmp_path / "seeds.npy", "--store", store, "--role", "seeds")
    words = ["--store", store, "--overwrite"]
    done("reduce", *words, "--dim", "4")
    done("neighbors", *words, "--k", "5")
    done("graph", *words)
    done("diffuse", *words, "--labels", labels, "--rows", "nodes", "--n-iter", "3")
    done("classify", *words, "--method", "diffusion", "--output", tmp_path / "o.csv")
    rows = read_csv(tmp_path / "o.csv")
    assert [row["path"] for row in rows] == [f"seeds/{i}" for i in range(4)] + [f"background/{i}" for i in range(60)]
    assert [row["path"] for row in rows if row["origin"] == "given"] == ["seeds/0", "seeds/3"]


def test_json_is_all_there_is_on_stdout(tmp_path):
    ran = spawn("extract", "digits", "--store", tmp_path / "s", "--model", "pixels", "--json", "-v")
    record = json.loads(ran.out)
    assert (ran.code, record["stage"], record["images"], record["dim"]) == (0, "extract.background", 1797, 64)
    assert record["peak_memory_bytes"] < record["memory_budget_bytes"]
    lines = ran.err.splitlines()
    assert lines[0].startswith("memory budget: ")
    assert "list.background: 1,797 images" in lines  # progress
    assert any(re.match(r"extract\.background: done in .* s, peak memory .*iB", line) for line in lines)  # log


@pytest.mark.parametrize(
    "arguments",
    [["plan", "1000000"], ["doctor"], ["status", "--store", "{s}"], ["verify", "--store", "{s}"], ["clean", "--store", "{s}"]],
)
def test_json_of_the_commands_around(arguments, vectors):
    words = [word.format(s=vectors) for word in arguments]
    words += ["--dry-run"] if words[0] == "clean" else []
    ran = run(*words, "--json", quiet=False)
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["stage"] == words[0]
    shown = run(*words)
    assert (shown.code, shown.err) == (0, "")
    assert len(shown.out) > 10


def test_a_dry_run_is_a_plan_in_both_forms(vectors):
    before = sorted(vectors.rglob("*"))
    plan = json.loads(run("graph", "--store", vectors, "--dry-run", "--json").out)["plan"]
    assert plan["least_bytes"] <= plan["memory_bytes"]
    assert plan["disk_bytes"] > 60 * 5 * 4
    shown = run("graph", "--store", vectors, "--dry-run").out.splitlines()
    heads = ["stage", "memory", "smallest budget", "disk", "scratch disk", "reads", "writes", "multiply-adds", "work"]
    assert re.split("  +", shown[0]) == heads
    assert shown[1].startswith("graph ")
    assert [line.startswith("all: memory ") for line in shown].count(True) == 1
    assert re.split("  +", shown[-2])[0] == "building"
    assert sorted(vectors.rglob("*")) == before


def test_an_error_is_one_line_and_a_story_only_with_v(tmp_path):
    ran = spawn("reduce", "--store", tmp_path / "none")
    assert ran.code == 3
    assert ran.out == ""
    assert ran.error == f"error: {tmp_path}/none holds no store; run `ooc-diffusion extract` or `import` first, or check --store"
    told = spawn("reduce", "--store", tmp_path / "none", "-v")
    assert told.code == 3
    assert ran.error in told.err.splitlines()
    assert "Traceback (most recent call last):" in told.err.splitlines()


@pytest.mark.parametrize(
    ("error", "code"),
    [(RuntimeError("broken\nin two"), 1), (OSError(5, "Input/output error"), 8), (MemoryError(), 7), (ZeroDivisionError(), 1)],
)
def test_errors_that_nobody_foresaw_are_one_line_too(monkeypatch, error, code):
    def fail(**options):
        raise error

    monkeypatch.setattr("ooc_diffusion.stages.doctor.doctor", fail)
    ran = run("doctor")
    assert ran.code == code
    assert ran.error.startswith(f"error: {type(error).__name__}: ")
    assert ran.error.endswith("(run again with -v for the whole story)")


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_with_130_and_says_how_to_go_on(tmp_path, number):
    """The signal comes while the images are described; the next run goes on."""
    words = ["extract", "digits", "--store", tmp_path / "s", "--model", "pixels"]
    # what a shell starts in the background ignores SIGINT, and its children inherit that
    process = subprocess.Popen(
        COMMAND + list(map(str, words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr.readline() == "list.background: 1,797 images\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; the same command goes on where it stopped"
    assert "Traceback" not in err
    if number == signal.SIGINT:
        assert spawn(*words, "-q").code == 0


@pytest.mark.faults
def test_a_broken_pipe_is_no_traceback():
    words = [*COMMAND, "plan", "1000000", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    with process.stderr:
        err = process.stderr.read()
    assert process.wait(60) == 8
    assert err == ""


def test_python_m_is_the_command():
    installed = subprocess.run([Path(sys.executable).with_name("ooc-diffusion"), "--version"], capture_output=True, text=True)
    assert installed.stdout == spawn("--version").out == "ooc-diffusion, version 0.1.0\n"


def test_logging_of_others_is_left_alone(vectors):
    before = list(logging.getLogger().handlers)
    run("status", "--store", vectors, quiet=False)
    assert logging.getLogger().handlers == before
