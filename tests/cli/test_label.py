"""The main job: a folder of images and a few labels in, a label for every image out, the same whatever happens on the way."""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ooc_diffusion import diffuse
from ooc_diffusion.store import Store

from ..report.samples import parse
from .helpers import COMMAND, Ran, digit_images, done, files_below, read_csv, run, spawn, write_csv, write_images

REPOSITORY = Path(__file__).parents[2]
STAGES = ["list.background", "extract.background", "reduce.background", "neighbors.background", "graph", "diffuse", "classify"]
CLASS_NAMES = ["T-shirt/top", "007", "7", "ünïcode 猫", "with, comma", 'quo"te', "new\nline", "True", "1e5", " space"]
ODD_NAMES = [
    b"with space.png",
    b"com,ma.png",
    b'quo"te.png',
    b"'single'.PNG",
    b"new\nline.png",
    b"car\rriage.png",
    b"tab\t.png",
    "ünï 猫.png".encode(),
    b"caf\xe9/\xff\xfe.png",
    b"-1.png",
    b"=cmd().png",
    b".hidden.png",
    b"a/b/c/d/e.jpeg",
    b"<b>&amp;.png",
    b"007",
]
ISLAND = 12


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """300 digits in folders, the first with odd names; 12 images that resemble no digit; 2 that are none; 100 labels."""
    root = tmp_path_factory.mktemp("collection")
    images, truth = digit_images(300)
    names = [name if b"." in name else name + b".png" for name in ODD_NAMES]
    names += [b"%d/im%03d.png" % (i % 3, i) for i in range(len(names), 300)]
    write_images(root / "images", images, names)
    noise = np.random.default_rng(0).integers(0, 20, (ISLAND, 16, 16), dtype=np.uint8)
    stripes = np.where(np.arange(16) % 2, 220, 0).astype(np.uint8) + noise
    write_images(root / "images", stripes, [b"stripes/%02d.png" % i for i in range(ISLAND)])
    (root / "images" / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (root / "images" / "empty.png").touch()
    (root / "images" / "notes.txt").write_text("no image")
    seeds = np.concatenate([np.flatnonzero(truth == c)[:10] for c in range(10)])
    write_csv(root / "few.csv", [(os.fsdecode(names[i]), CLASS_NAMES[truth[i]]) for i in seeds])
    expected = {os.fsdecode(name): CLASS_NAMES[c] for name, c in zip(names, truth, strict=True)}
    return root, expected


def words(root, *more, output="out.csv"):
    fixed = ("--model", "pixels", "--k", "10", "--memory-budget", "4GiB")
    return ["label", root / "images", "--labels", root / "few.csv", "--output", root / output, *fixed, *more]


@pytest.fixture(scope="module")
def labelled(collection):
    """The collection labelled, and the record."""
    root, truth = collection
    ran = run(*words(root, "--json"))
    assert (ran.code, ran.err) == (0, "")
    return root, truth, json.loads(ran.out)


def test_every_image_has_a_row_in_the_order_of_the_store(labelled):
    root, truth, record = labelled
    rows = read_csv(root / "out.csv")
    names = [row["path"] for row in rows]
    assert record["images"] == len(names) == len(set(names)) == 300 + ISLAND + 2
    assert set(names) == {*truth, "0/broken.png", "empty.png", *(f"stripes/{i:02d}.png" for i in range(ISLAND))}
    parts = [tuple(os.fsencode(part) for part in name.split("/")) for name in names]
    assert parts == sorted(parts, key=lambda path: [*((1, folder) for folder in path[:-1]), (0, path[-1])])


def test_seeds_keep_their_label_as_it_was_written(labelled):
    root, _, record = labelled
    few = {row["path"]: row["label"] for row in read_csv(root / "few.csv")}
    given = {row["path"]: row for row in read_csv(root / "out.csv") if row["origin"] == "given"}
    assert {path: row["label"] for path, row in given.items()} == few
    assert {row["confidence"] for row in given.values()} == {"1.000000"}
    assert record["classes"] == sorted(CLASS_NAMES)
    assert record["seeds"] == len(few) == 100
    assert {row["label"] for row in read_csv(root / "out.csv")} == {*CLASS_NAMES, "-1"}


def test_the_labels_are_right_most_of_the_time(labelled):
    root, truth, _ = labelled
    rows = [row for row in read_csv(root / "out.csv") if row["path"] in truth and row["origin"] != "given"]
    assert len(rows) == 200
    assert {row["origin"] for row in rows} <= {"fusion", "diffusion"}
    right = np.array([row["label"] == truth[row["path"]] for row in rows])
    confidence = np.array([float(row["confidence"]) for row in rows])
    assert right.mean() > 0.85
    assert confidence.min() > 0
    assert confidence.max() <= 1
    assert confidence[right].mean() > confidence[~right].mean()


def test_unreached_images_have_no_label(labelled):
    root, _, record = labelled
    rows = {row["path"]: row for row in read_csv(root / "out.csv")}
    unreached = [path for path, row in rows.items() if row["origin"] == "unreached"]
    assert unreached == [f"stripes/{i:02d}.png" for i in range(ISLAND)]
    assert {(rows[path]["label"], rows[path]["confidence"]) for path in unreached} == {("-1", "0.000000")}
    assert record["unreached"] == ISLAND


def test_unreadable_images_keep_their_row(labelled):
    root, _, record = labelled
    assert record["unreadable"] == 2
    listed = record["stages"]["extract.background"]["first_unreadable"]
    written = read_csv(root / "out.csv")
    unreadable = [(row["path"], row["label"], row["confidence"]) for row in written if row["origin"] == "unreadable"]
    assert unreadable == [("empty.png", "-1", "0.000000"), ("0/broken.png", "-1", "0.000000")]
    rows = [row["path"] for row in written]
    assert [(rows[number], name) for number, name, _ in listed] == [("empty.png",) * 2, ("0/broken.png",) * 2]
    assert listed[0][2] == "empty file"


def test_the_record_tells_plan_and_cost_of_every_stage(labelled):
    root, _, record = labelled
    assert list(record["stages"]) == [*STAGES, "output"]
    assert record["done_before"] == []
    for name in STAGES:
        stage = record["stages"][name]
        assert 0 < stage["peak_memory_bytes"] <= stage["memory_budget_bytes"] == 4 * 2**30
        assert stage["peak_memory_bytes"] <= stage["plan"]["memory_bytes"] + 256 * 2**20
        assert stage["seconds"] > 0
    assert record["output"] == str(root / "out.csv")
    assert record["report"] == str(root / "out.html")
    assert record["store"] == str(root / "out.csv.store")


def test_the_page_has_its_parts_and_opens(labelled):
    root = labelled[0]
    page = parse((root / "out.html").read_text(encoding="utf-8"))
    text = (root / "out.html").read_text(encoding="utf-8")
    for part in ("summary", "classes", "unreached", "unreadable", "stages", "about"):
        assert f'id="{part}"' in text
    assert page.one("h1").text.strip() == "Labels for 314 images"
    assert text.count('class="class-name"') == len(CLASS_NAMES)
    assert text.count("data:image/") > 100
    assert "<b>&amp;.png" not in text  # a file name is not markup
    assert "&lt;b&gt;&amp;amp;.png" in text
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text


def test_the_same_command_again_changes_nothing(labelled):
    root, _, record = labelled
    before, data = (root / "out.csv").read_bytes(), files_below(root / "out.csv.store" / "data")
    started = time.monotonic()
    ran = run(*words(root, "--json"))
    assert time.monotonic() - started < 5
    assert (ran.code, ran.err) == (0, "")
    assert record["done_before"] == []
    # the seconds are those of the first run, and said to be
    assert json.loads(ran.out) == {**record, "done_before": [*STAGES, "output"]}
    assert (root / "out.csv").read_bytes() == before
    assert files_below(root / "out.csv.store" / "data") == data


def test_paths_may_be_fed_back(labelled, tmp_path):
    """The output, odd names and all, is a file of labels."""
    root = labelled[0]
    rows = [(row["path"], row["label"]) for row in read_csv(root / "out.csv")]
    shutil.copytree(root / "images", tmp_path / "images", symlinks=True)
    with (tmp_path / "few.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    ran = run(*words(tmp_path, "--json", "--n-iter", "1", "--method", "diffusion"))
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["seeds"] == len([label for _, label in rows if label != "-1"])
    assert [(row["path"], row["label"]) for row in read_csv(tmp_path / "out.csv") if row["origin"] == "given"] == [
        (path, label) for path, label in rows if label != "-1"
    ]


def test_overwrite_does_again_only_what_the_new_labels_change(labelled, tmp_path):
    root = labelled[0]
    few = [(row["path"], row["label"]) for row in read_csv(root / "few.csv")]
    shutil.copy(root / "few.csv", tmp_path / "few.csv")
    command = words(root, "--n-iter", "3", "--method", "diffusion", output="again.csv")
    command[command.index(root / "few.csv")] = tmp_path / "few.csv"
    assert run(*command).code == 0
    store = Store(root / "again.csv.store")
    before = {name: stage["id"] for name, stage in store.manifest.stages.items()}
    write_csv(tmp_path / "few.csv", [(path, "even" if i % 2 else "odd") for i, (path, _) in enumerate(few[:50])])
    ran = run(*command)
    assert ran.code == 3
    assert "stage diffuse in " in ran.error
    assert "class_names = " in ran.error
    ran = run(*command, "--overwrite", "--json")
    assert (ran.code, ran.err) == (0, "")
    after = {name: stage["id"] for name, stage in store.manifest.stages.items()}
    assert [name for name in after if after[name] != before[name]] == ["diffuse", "classify", "output"]
    record = json.loads(ran.out)
    assert record["classes"] == ["even", "odd"]
    kept = [name for name in after if after[name] == before[name]]
    assert record["done_before"] == kept
    stages = parse((root / "again.html").read_text(encoding="utf-8")).one("table", id="stages-table").one("tbody").find("tr")
    tags = {row.one("th").text.split()[0]: row.text.count("done before") for row in stages}
    assert tags == {name: int(name in kept) for name in STAGES}
    assert f"done before, and measured then: {', '.join([*STAGES, 'output'])}" in done(*command)
    assert {row["label"] for row in read_csv(root / "again.csv")} == {"even", "odd", "-1"}


def test_what_another_process_did_meanwhile_is_never_written_as_ones_own(digit_folder, tmp_path, monkeypatch):
    """Between two stages of this run another run wants to diffuse other labels in the same store."""
    from ooc_diffusion.stages import label as stage
    from ooc_diffusion.stages.settings import Settings

    (tmp_path / "other.csv").write_text("path,label\n00.png,x\n01.png,y\n")
    classify = stage.classify

    def intruded(store, **options):
        stage.diffuse(store.path, labels=tmp_path / "other.csv", rows="nodes", n_iter=2, settings=Settings(overwrite=True))
        return classify(store, **options)

    monkeypatch.setattr(stage, "classify", intruded)
    fixed = ["--model", "pixels", "--k", "10", "--n-iter", "2", "--method", "diffusion", "--output", tmp_path / "out.csv"]
    ran = run("label", digit_folder / "images", "--labels", digit_folder / "few.csv", *fixed)
    assert ran.code == 5
    assert "is being written by another process" in ran.error
    assert not (tmp_path / "out.csv").exists()


def test_a_dry_run_writes_nothing_at_all(collection, tmp_path, monkeypatch):
    root, _ = collection
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    command = ["label", root / "images", "--labels", root / "few.csv", "--output", "out.csv", "--model", "pixels", "--dry-run"]
    ran = run(*command, "--json")
    assert (ran.code, ran.err) == (0, "")
    record = json.loads(ran.out)
    assert [plan["stage"] for plan in record["plans"]] == [name.partition(".")[0] for name in STAGES]
    assert record["images"] == 314
    extract = record["plans"][1]
    assert (extract["work"], extract["disk_bytes"]) == ("314 images to 256 values each", 4 * 314 * 256)
    assert record["plans"][6]["work"] == "314 images, 10 classes"
    ran = run(*command, "--memory-budget", "100MiB")
    assert ran.code == 7
    assert re.fullmatch(r"error: this does not fit the budget of 100 MiB; give --memory-budget \d+MiB or more", ran.error)
    assert list(tmp_path.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_any_budget_and_thread_count_gives_the_same_bytes(labelled):
    root = labelled[0]
    assert run(*words(root, "--memory-budget", "1GiB", "--threads", "1", output="small.csv")).code == 0
    assert (root / "small.csv").read_bytes() == (root / "out.csv").read_bytes()
    assert contents(root / "small.csv.store") == contents(root / "out.csv.store")


def contents(store: Path) -> dict[str, str]:
    """Return type, shape and checksums of every array in a store."""
    return {name: entry.identity for name, entry in sorted(Store(store).manifest.arrays.items())}


KILLS = [
    *("list:unpublished", "extract:half", "extract:published", "reduce:begun", "neighbors:half", "graph:unpublished"),
    *("diffuse:half", "classify:unpublished", "output:unpublished", "output:published", "page:begun"),
]


@pytest.mark.faults
def test_killed_in_every_stage_it_ends_with_the_same_bytes(labelled, tmp_path):
    """One store, killed with -9 eleven times on its way, in each stage."""
    root = labelled[0]
    command = words(root)
    command[command.index(root / "out.csv")] = tmp_path / "out.csv"
    for kill in KILLS:
        killed = [sys.executable, "-m", "tests.cli.killed", kill, *map(str, command), "-q"]
        ran = subprocess.run(killed, cwd=REPOSITORY, capture_output=True, text=True)
        assert ran.returncode == -signal.SIGKILL, f"{kill}: {ran.stderr}"
        left = tmp_path / "out.csv.store"
        assert (tmp_path / "out.csv").exists() == (kill == "page:begun")
        assert json.loads(run("verify", "--store", left, "--data", "--json").out)["problems"] == []
    ran = spawn(*command, "-q", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert (tmp_path / "out.csv").read_bytes() == (root / "out.csv").read_bytes()
    assert contents(left) == contents(root / "out.csv.store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.csv.store", "out.html"]
    assert list((left / "jobs").glob("*.journal")) == []
    named = {entry.file for entry in Store(left).manifest.arrays.values()}
    assert {f"data/{path.name}" for path in (left / "data").iterdir()} == named


def start(*command: object, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen([*COMMAND, *map(str, command)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_in(stage: str, wait: float, command: list[object], cwd: Path) -> bool:
    """Start the command and kill it ``wait`` seconds after the journal of a stage appears; return whether that hit the stage."""
    (store,) = [Path(str(command[i + 1])) for i, word in enumerate(command) if word == "--store"]
    journal = cwd / store / "jobs" / f"{stage}.journal"
    before = journal.stat().st_ino if journal.exists() else None
    process = start(*command, cwd=cwd)
    while process.poll() is None and not (journal.exists() and journal.stat().st_ino != before):
        time.sleep(0.002)
    time.sleep(wait)
    hit = process.poll() is None and journal.exists()
    process.kill()
    process.communicate()
    return hit and process.returncode == -signal.SIGKILL


@pytest.mark.faults
@pytest.mark.slow
def test_fashion_mnist_as_70_000_files_killed_in_each_stage(tmp_path):
    """The main job at the size of the issue: 100 labels, 2 GiB; killed in each stage it ends with the same bytes."""
    tool = [sys.executable, REPOSITORY / "tools" / "write_fashion_mnist_folder.py", "images", "--labels", "100"]
    made = subprocess.run([*tool, "--labels-csv", "few.csv"], cwd=tmp_path, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"Fashion-MNIST is not to be had here: {made.stderr}")
    fixed = ["label", "images", "--labels", "few.csv", "--model", "pixels", "--memory-budget", "2GiB", "-q", "--json"]
    whole = spawn(*fixed, "--output", "whole.csv", "--store", "whole", cwd=tmp_path, timeout=1200)
    assert (whole.code, whole.err) == (0, "")
    record = json.loads(whole.out)
    assert record["peak_memory_bytes"] <= 2 * 2**30
    assert (record["images"], record["seeds"], record["unreached"], record["unreadable"]) == (70_000, 100, 0, 0)
    truth = {row["path"]: row["label"] for row in read_csv(tmp_path / "images" / "truth.csv")}
    rows = read_csv(tmp_path / "whole.csv")
    accuracy = np.mean([row["label"] == truth[row["path"]] for row in rows if row["origin"] != "given"])
    assert accuracy > 0.70

    again = [*fixed, "--output", "again.csv", "--store", "again"]
    random_waits = random.Random(0)
    hits = {}
    for stage in [*STAGES, "output"]:
        seconds = record["stages"][stage].get("seconds", 0.0)
        for _ in range(5):
            if kill_in(stage, random_waits.uniform(0, 0.7) * seconds, again, tmp_path):
                hits[stage] = hits.get(stage, 0) + 1
                break
    (tmp_path / "figures.json").write_text(json.dumps({"accuracy": accuracy, "kills": hits, "stages": record["stages"]}))
    assert set(hits) >= set(STAGES)
    ended: Ran = spawn(*again, cwd=tmp_path, timeout=1200)
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["peak_memory_bytes"] <= 2 * 2**30
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_bfloat16_is_that_of_the_engine(collection, tmp_path):
    root = collection[0]
    words = ["label", root / "images", "--labels", root / "few.csv", "--output", tmp_path / "o.csv", "--model", "pixels"]
    words += ["--k", "10", "--n-iter", "3", "--precision", "bfloat16"]
    assert run(*words).code == 0
    store = Store(tmp_path / "o.csv.store")
    seeds = store.arrays("diffusion/seed_nodes", "diffusion/seed_classes")
    options = {"n_iter": 3, "precision": "bfloat16"}
    assert store.array("diffusion/scores").tobytes() == diffuse(store.path, *seeds, 10, **options).tobytes()
    assert store.array("diffusion/scores").tobytes() != diffuse(store.path, *seeds, 10, n_iter=3).tobytes()
    ran = run(*words, "--device", "cuda")
    assert (ran.code, ran.error) == (
        3,
        "error: --precision bfloat16 runs on the CPU, but --device is cuda; give --device cpu",
    )
