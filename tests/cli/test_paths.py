"""The command paths on digits: the CSV is that of brute force, the pictures have a tile for each stop, the page all walks."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from ooc_diffusion.diffusion import scores
from ooc_diffusion.diffusion.room import Room
from ooc_diffusion.graph import Graph
from ooc_diffusion.report.walks import GAP, SIDE, tile_left
from ooc_diffusion.stages import output_folder
from ooc_diffusion.store import Store, Strings
from tests.reference import naive_diffuse_rounded, naive_float32, naive_w0, naive_walk

from ..report.samples import parse
from .helpers import digit_images, done, files_below, read_csv, run, write_csv, write_images

N, TESTS, T = 90, 30, 2


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A store with 90 digits as background, 30 as tests (one is unreadable), 2 labels per class, classified by diffusion."""
    root = tmp_path_factory.mktemp("paths")
    images, truth = digit_images(N + TESTS)
    names = [b"im%03d.png" % i for i in range(N + TESTS)]
    for folder, part in (("background", slice(N)), ("tests", slice(N, N + TESTS))):
        write_images(root / folder, images[part], names[part])
    (root / "tests" / "im110.png").write_bytes(b"no image")
    seeds = np.concatenate([np.flatnonzero(truth[:N] == c)[:2] for c in range(10)])
    write_csv(root / "few.csv", [(f"im{i:03d}.png", str(truth[i])) for i in seeds])
    for role in ("background", "tests"):
        done("extract", root / role, "--store", root / "s", "--role", role, "--model", "pixels", "--max-failures", "0.1")
    done("reduce", "--store", root / "s", "--dim", "16")
    done("neighbors", "--store", root / "s", "--k", "6")
    done("graph", "--store", root / "s")
    classified(root / "s", root / "few.csv")
    return root


def classified(store, labels, *options):
    done("diffuse", "--store", store, "--labels", labels, "--n-iter", T, *options)
    done("classify", "--store", store, "--method", "diffusion", *[word for word in options if word == "--overwrite"])


def paths(store, output, *options):
    return json.loads(done("paths", "--store", store, "--output", output, "--json", *options))


def oracle(store, start, label):
    """The walk by brute force from the neighbor table: names and shares."""
    store = Store(store)
    nodes, classes = store.array("diffusion/seed_nodes"), store.array("diffusion/seed_classes")
    table = store.array("background/neighbor_ids")[:, :6]
    order = Graph(store).order
    L = naive_diffuse_rounded(table, nodes, classes, 10, T, order=order, rounded=naive_float32)
    W0 = naive_w0(table, N).toarray()
    return naive_walk(W0 + W0.T, L, start, label)


def test_the_csv_is_the_walk_of_brute_force(digits, tmp_path):
    chosen = ",".join(f"im{i:03d}.png" for i in range(N, N + TESTS) if i != 110)
    record = paths(digits / "s", tmp_path / "p", "--images", chosen)
    rows = read_csv(tmp_path / "p" / "paths.csv")
    assert list(rows[0]) == ["walk", "image", "class", "kind", "hop", "iteration", "role", "path", "share"]
    store = Store(digits / "s")
    names, neighbors = Strings.open(store, "background/path"), store.array("tests/neighbor_ids")[:, :6]
    predicted = store.array("predictions/labels")
    test_names = Strings.open(store, "tests/path")
    walks = {i: [row for row in rows if row["walk"] == str(i)] for i in range(record["walks"])}
    assert sum(map(len, walks.values())) == len(rows)
    seen = {"predicted": 0}
    for walk in walks.values():
        assert [int(row["hop"]) for row in walk] == list(range(T + 2))
        assert [row["iteration"] for row in walk] == [*map(str, range(T + 1)), ""]
        test = test_names.find(walk[0]["image"])
        label = int(walk[0]["class"])
        assert (label == predicted[test]) == (walk[0]["kind"] == "predicted")
        seen[walk[0]["kind"]] = seen.get(walk[0]["kind"], 0) + 1
        expected = oracle(digits / "s", neighbors[test], label)
        assert [row["path"] for row in walk] == [names[node] for node, _ in expected] + [walk[0]["image"]]
        assert [row["role"] for row in walk] == ["background"] * (T + 1) + ["tests"]
        np.testing.assert_allclose([float(row["share"]) for row in walk[:-1]], [share for _, share in expected], rtol=1e-5)
        assert walk[-1]["share"] == ""
    assert seen["predicted"] == record["walks"]  # a folder knows no truth
    assert seen["predicted"] > 20


def tiles(picture):
    """The number of frames that stand side by side where tiles belong."""
    values = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    frame = (values == (0xB9, 0xB9, 0xB0)).all(axis=2)
    columns = np.flatnonzero(frame.sum(axis=0) >= SIDE)
    assert columns[::2].tolist() == [tile_left(i) - 1 for i in range(len(columns) // 2)]
    assert (columns[1::2] - columns[::2] == SIDE + 1).all()
    assert values.shape[1] < tile_left(len(columns) // 2) + SIDE + GAP
    return len(columns) // 2


def test_a_picture_for_each_walk_and_a_page_with_all(digits, tmp_path):
    record = paths(digits / "s", tmp_path / "p", "--number", "5", "--class", "3")
    rows = read_csv(tmp_path / "p" / "paths.csv")
    walks = sorted({int(row["walk"]) for row in rows})
    pictures = sorted(file.name for file in (tmp_path / "p").glob("*.png"))
    assert pictures == [f"walk-{walk:03d}.png" for walk in walks]
    assert [tiles(tmp_path / "p" / name) for name in pictures] == [T + 2] * len(walks)
    assert len({row["image"] for row in rows}) == 5
    assert {row["kind"] for row in rows} == {"predicted", "given"}
    assert all(row["class"] == "3" for row in rows if row["kind"] == "given")
    assert record["report"] == str(tmp_path / "p" / "paths.html")
    page = parse((tmp_path / "p" / "paths.html").read_text(encoding="utf-8"))
    shown = page.find("article", cls="walk")
    assert len(shown) == record["walks"] == len(walks) + record["without_path"]
    assert len(page.find("img")) == (T + 2) * len(walks)
    shares = [element.text for element in page.find("span", cls="share")]
    expected = [float(row["share"]) for row in rows if row["share"]]
    assert len(shares) == len(expected)
    assert max(abs(float(text.removesuffix(" %")) - 100 * share) for text, share in zip(shares, expected, strict=True)) <= 0.5
    assert "src=" not in re.sub(r'src="data:image/png;base64,[^"]*"', "", (tmp_path / "p" / "paths.html").read_text())


def test_an_unreadable_image_is_a_placeholder(digits, tmp_path):
    """It stands as a white image outside the graph: labels come to it, but it has no prediction."""
    ran = run("paths", "--store", digits / "s", "--images", "im110.png", "--output", tmp_path / "p")
    assert ran.code == 3
    assert "no predicted class" in ran.error
    reached = 0
    for label in map(str, range(10)):
        record = paths(
            digits / "s", tmp_path / "p", "--images", "im110.png", "--class", label, "--overwrite", "--memory-budget", "1GiB"
        )
        page = parse((tmp_path / "p" / "paths.html").read_text())
        assert len(page.find("span", cls="no-picture")) == 1 - record["without_path"]
        assert len(page.find("p", cls="nothing")) == record["without_path"]
        for picture in (tmp_path / "p").glob("*.png"):
            assert tiles(picture) == T + 2
            reached += 1
    assert 0 < reached < 10


def test_nodes_where_there_are_no_tests_and_true_classes(tmp_path):
    """A data set knows its classes: a wrong prediction has two walks, and each ends in the image itself."""
    done("extract", "digits", "--store", tmp_path / "s", "--model", "pixels")
    done("reduce", "--store", tmp_path / "s", "--dim", "16")
    done("neighbors", "--store", tmp_path / "s", "--k", "6")
    done("graph", "--store", tmp_path / "s")
    store = Store(tmp_path / "s")
    truth = store.array("background/truth")
    write_csv(tmp_path / "few.csv", [(str(np.flatnonzero(truth == c)[0]), str(c)) for c in range(10)], ("row", "label"))
    classified(tmp_path / "s", tmp_path / "few.csv")
    predicted = np.array(store.array("predictions/labels"))
    wrong, right = (np.flatnonzero((predicted >= 0) & (same == (predicted == truth))) for same in (False, True))
    chosen = [*wrong[:6].tolist(), *right[10:13].tolist()]
    record = paths(tmp_path / "s", tmp_path / "p", "--rows", ",".join(map(str, chosen)))
    assert record["walks"] == 2 * 6 + 3
    rows = read_csv(tmp_path / "p" / "paths.csv")
    names = Strings.open(store, "background/path")
    for row in rows:
        i = names.find(row["image"])
        assert i in chosen
        assert int(row["class"]) == (truth if row["kind"] == "true" else predicted)[i]
        if int(row["hop"]) == T:
            assert (row["path"], row["iteration"], row["share"]) == (row["image"], str(T), "")
    assert {int(row["hop"]) for row in rows} == set(range(T + 1))
    page = parse((tmp_path / "p" / "paths.html").read_text())
    assert len(page.find("article", cls="wrong")) == 6


def test_any_budget_and_thread_count_gives_the_same_files(digits, tmp_path):
    found = []
    for i, (budget, threads) in enumerate([("1GiB", 1), ("1GiB", 2), ("4GiB", 2)]):
        shutil.copytree(digits / "s", tmp_path / f"s{i}")
        paths(tmp_path / f"s{i}", tmp_path / f"p{i}", "--number", "9", "--memory-budget", budget, "--threads", threads)
        found.append(files_below(tmp_path / f"p{i}"))
        found[-1].pop("paths.html")  # which has the command
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("width", [1, 3])
def test_narrow_batches_that_were_interrupted_give_the_same_files(digits, tmp_path, monkeypatch, width):
    """Killed after the first batch, and again between the walks and the files."""
    paths(digits / "s", tmp_path / "whole", "--number", "6", "--overwrite")
    expected = files_below(tmp_path / "whole")
    shutil.copytree(digits / "s", tmp_path / "s")
    command = ["paths", "--store", tmp_path / "s", "--output", tmp_path / "p", "--rows", "1,2,3"]
    assert run(*command).code == 0  # other walks, which are replaced
    command[-2:] = ["--number", "6", "--overwrite"]
    monkeypatch.setattr(scores, "make_room", lambda n, left, **sizes: Room(min(width, left), False, 999, 99))
    for module, name in ((scores, "_assemble"), (output_folder, "_put_in_place")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stop)
            assert run(*command).code == 130
    assert sorted(read_csv(tmp_path / "p" / "paths.csv"), key=str) != sorted(read_csv(tmp_path / "whole" / "paths.csv"), key=str)
    record = json.loads(done(*command, "--json"))
    assert record["column_batches"] > 1
    assert record["skipped"]
    found = files_below(tmp_path / "p")
    for files in (found, expected):
        files.pop("paths.html")  # which has the command
    assert found == expected
    assert not list(tmp_path.glob(".*"))


def stop(*arguments):
    raise KeyboardInterrupt


def test_the_folder_is_not_overwritten_unasked(digits, tmp_path):
    paths(digits / "s", tmp_path / "p", "--number", "4")
    (tmp_path / "p" / "mine.txt").write_text("mine")
    before = files_below(tmp_path / "p")
    again = ["paths", "--store", digits / "s", "--output", tmp_path / "p", "--number", "2"]
    assert "is not empty" in run(*again).error
    assert files_below(tmp_path / "p") == before
    done(*again, "--overwrite")
    after = files_below(tmp_path / "p")
    assert sorted(after) == ["mine.txt", "paths.csv", "paths.html", "walk-000.png", "walk-001.png"]
    assert [file.name for file in tmp_path.iterdir()] == ["p"]
    assert "paths" in done("status", "--store", digits / "s")


def test_a_dry_run_writes_nothing(digits, tmp_path):
    before = files_below(digits / "s")
    plan = paths(digits / "s", tmp_path / "p", "--dry-run")["plan"]
    assert plan["scratch_bytes"] >= 2 * 4 * N * (T + 1)
    assert not (tmp_path / "p").exists()
    assert files_below(digits / "s") == before


def test_what_is_wrong_is_said_in_a_line(digits, tmp_path):
    output = ["--output", tmp_path / "p"]
    for options, said in [
        (["--images", "none.png"], "no image of the tests has the path 'none.png'"),
        (["--rows", "30"], "30 is not a row of the 30 images"),
        (["--rows", "x"], "--rows 'x' is no list of numbers"),
        (["--class", "ten"], "'ten' is not among the classes"),
        (["--memory-budget", "100MiB"], "stage paths needs a memory budget of"),
    ]:
        ran = run("paths", "--store", digits / "s", *output, *options)
        assert ran.code in (2, 3, 7)
        assert said in ran.error
    assert not (tmp_path / "p").exists()


def test_no_paths_where_the_classes_meet_or_nothing_is_classified(digits, tmp_path):
    shutil.copytree(digits / "s", tmp_path / "s")
    for options in (["--normalization", "sinkhorn"], ["--alpha", "0.9"]):
        said = " ".join(options[:2] if options[0] == "--normalization" else options[:1])
        classified(tmp_path / "s", digits / "few.csv", "--overwrite", *options)
        ran = run("paths", "--store", tmp_path / "s", "--output", tmp_path / "p")
        assert ran.code == 3
        assert f"was diffused with {said}, " in ran.error
        assert "there are no paths" in ran.error
    done("diffuse", "--store", tmp_path / "s", "--labels", digits / "few.csv", "--n-iter", "1", "--overwrite")
    assert run("paths", "--store", tmp_path / "s", "--output", tmp_path / "p").code == 3  # the predictions are outdated


def test_descriptors_without_images_give_the_csv_alone(vectors, tmp_path):
    shutil.copytree(vectors, tmp_path / "s")
    write_csv(tmp_path / "few.csv", [("0", "a"), ("7", "b")], ("row", "label"))
    classified(tmp_path / "s", tmp_path / "few.csv")
    record = paths(tmp_path / "s", tmp_path / "p")
    assert "report" not in record
    assert [file.name for file in (tmp_path / "p").iterdir()] == ["paths.csv"]
    rows = read_csv(tmp_path / "p" / "paths.csv")
    assert {row["path"] for row in rows if row["hop"] == "0"} <= {"0", "7"}
