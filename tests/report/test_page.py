import re
from dataclasses import replace

import pytest

from ooc_diffusion.report import ClassPanel, Evaluation, Gallery, MethodCurve, Page, StageLine, Tile, render_page, write_page

from .samples import MiB, gallery, parse, picture, sample_page

SECTIONS = ["summary", "accuracy", "classes", "unreached", "unreadable", "stages", "about"]


def rows(table):
    return [[cell.text for cell in row.walk() if cell.tag in ("th", "td")] for row in table.find("tr")]


@pytest.fixture(scope="module")
def html():
    return render_page(sample_page())


@pytest.fixture(scope="module")
def tree(html):
    return parse(html)


def test_sections_and_contents_agree(tree):
    assert [section.attributes["id"] for section in tree.find("section")] == SECTIONS
    assert [link.attributes["href"] for link in tree.one("nav").find("a")] == [f"#{name}" for name in SECTIONS]


def test_ids_are_unique_and_references_resolve(html, tree):
    ids = [e.attributes["id"] for e in tree.walk() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)
    assert references
    assert {a or b for a, b in references} <= set(ids)


def test_nothing_is_fetched(html, tree):
    for element in tree.walk():
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert re.match(r"#|data:", element.attributes.get(name) or "#")
    assert "http" not in html.replace("http-equiv", "")
    assert "@import" not in html
    assert not tree.find("script")


def test_summary(tree):
    facts = tree.one("dl", cls="facts")
    assert [dt.text for dt in facts.find("dt")] == ["Images", "Memory budget"]
    assert [dd.text for dd in facts.find("dd")] == ["12,345", "2 GiB"]
    assert tree.one("title").text == tree.one("h1").text == "Labels for 12,345 images"
    assert [li.text for li in tree.one("ul", cls="notes").find("li")] == ["1,500 images were not reached."]


def test_accuracy_table(tree):
    table = tree.one("table", id="accuracy-table")
    assert rows(table) == [
        ["Labels per class", "1", "5", "20"],
        ["top-1"],
        ["logistic regression", "42.1 ± 5.2", "65.0 ± 3.0", "90.0 ± 1.1"],
        ["diffusion", "57.3 ± 2.1", "70.0 ± 2.0", "80.0"],
        ["top-5"],
        ["diffusion", "90.0 ± 1.0", "95.0 ± 1.0", "100.0 ± 0.0"],
    ]
    best = [cell.text for cell in table.one("tbody", cls="top-1").find("td", cls="best")]
    assert best == ["90.0 ± 1.1", "57.3 ± 2.1", "70.0 ± 2.0"]


def test_plots_keep_the_look_of_a_method(tree):
    plots = tree.find("figure", cls="plot")
    assert len([plot.one("svg") for plot in plots]) == 3
    legends = [[li.text for li in plot.find("li")] for plot in plots]
    assert legends == [["● logistic regression", "■ diffusion"], ["■ diffusion"], ["● n = 1", "■ n = 20"]]
    ticks = [text.text for text in plots[0].one("svg").find("text")]
    assert {"1", "5", "20", "labels per class", "top-1 accuracy (%)"} <= set(ticks)


def test_class_panels(tree):
    cat, dog = tree.find("details", cls="class")
    assert cat.one("summary").text == "cat 1,234 images 2 seeds mean confidence 0.812"
    assert dog.one("summary").text == "dog 0 images 1 seed"
    assert {kind: len(cat.one("div", cls=kind).find("li", cls="tile")) for kind in ("seeds", "most", "least")} == {
        "seeds": 2,
        "most": 3,
        "least": 1,
    }
    assert cat.one("div", cls="most").one("h3").text == "Most confident 3 of 1,234"
    assert dog.one("div", cls="most").one("p").text == "No image was given this label."
    assert [e.attributes["id"] for e in (cat, dog)] == ["class-0", "class-1"]


def test_a_tile_tells_its_name_confidence_and_truth(tree):
    (wrong,) = tree.find("li", cls="wrong")
    assert wrong.text == "0.125 is dog odd.png"
    assert wrong.attributes["title"] == "folder/odd.png · label cat · confidence 0.125 · truth dog"
    assert wrong.one("img").attributes["src"].startswith("data:image/png;base64,")


def test_true_and_unlabeled_tiles_are_not_wrong():
    assert not Tile(None, "a", "cat", 0.5, "cat").wrong
    assert not Tile(None, "a", "cat", 0.5).wrong
    assert not Tile(None, "a", "", 0.0, "cat").wrong


def test_unreached(tree):
    section = tree.one(id="unreached")
    assert "No label arrived at 1,500 images" in section.text
    assert section.one("h3").text == "Examples 2 of 1,500"
    assert len(section.find("li", cls="tile")) == 2
    assert section.one("span", cls="no-picture").text == "no picture"


def test_unreadable(tree):
    section = tree.one(id="unreadable")
    assert rows(section.one("table")) == [["Image", "Reason"], ["broken.jpg", "truncated"], ["notes.txt", "not an image"]]
    assert "2 images could not be read and have no label." in section.text


def test_many_unreadable_images_are_folded_and_counted():
    many = replace(sample_page(), unreadable=[(f"{i}.png", "empty") for i in range(50)], unreadable_count=1234)
    section = parse(render_page(many)).one(id="unreadable")
    assert [len(table.find("tr")) - 1 for table in section.find("table")] == [20, 30]
    assert section.one("summary").text == "30 more"
    assert "1,184 more are not listed here." in section.text


def test_stages_table(tree):
    table = tree.one("table", id="stages-table")
    assert rows(table)[2:] == [
        ["extract resumed 12,345 descriptors", "800 MiB", "600 MiB", "40 MiB", "39 MiB", "45.0 s", "30.0 s", ""],
        ["neighbors done before 30 nearest", "500 MiB", "512 MiB", "3 MiB", "3 MiB", "–", "10.0 s", ""],
        ["Total", "800 MiB", "600 MiB", "43 MiB", "42 MiB", "≥ 45.0 s", "40.0 s", ""],
    ]
    assert [cell.text for cell in table.find("td", cls="over")] == ["512 MiB"]
    assert "What was done before has the figures of the run that did it." in tree.one(id="stages").text
    bars = [bar.one(cls="bar").children[0].attributes["style"] for bar in table.find("td", cls="share")]
    assert bars == ["width:75.0%", "width:25.0%"]


def test_stages_of_which_nothing_is_known():
    table = parse(render_page(Page("t", stages=[StageLine("graph", "edges")]))).one("table", id="stages-table")
    assert rows(table)[-1] == ["Total", *["–"] * 6, ""]
    assert "done before" not in render_page(Page("t", stages=[StageLine("graph", "edges", resumed=True)]))


def test_about(tree):
    about = tree.one(id="about")
    assert about.one("code").text == "ooc-diffusion label photos --labels few.csv"
    assert about.one("dt").text == "numpy"


def test_empty_parts_say_so():
    tree = parse(render_page(Page("nothing")))
    assert {s.attributes["id"]: [p.text for p in s.find("p", cls="nothing")] for s in tree.find("section")} == {
        "summary": ["There is nothing to sum up."],
        "accuracy": ["The truth is not known, so there is no accuracy to show."],
        "classes": ["There are no classes."],
        "unreached": ["Every image was reached."],
        "unreadable": ["Every image could be read."],
        "stages": ["No stage ran."],
        "about": ["The command is not known.", "The versions are not known."],
    }


def test_an_evaluation_without_methods_says_so():
    section = parse(render_page(Page("t", evaluation=Evaluation([1], [])))).one(id="accuracy")
    assert section.one("p").text == "No method was evaluated."


HOSTILE = "a\nb\"'><script>alert(1)</script>{{ 7*7 }}&\x00\udcff\ud800\u202egpj.png"
HARMLESS = "a\\nb\"'><script>alert(1)</script>{{ 7*7 }}&\\x00\\xff\\ud800\\u202egpj.png"


def test_hostile_names_are_shown_and_do_nothing(tmp_path):
    tile = Tile(picture(0), HOSTILE, HOSTILE, 0.5, "x" + HOSTILE)
    page = Page(
        HOSTILE,
        [(HOSTILE, HOSTILE)],
        [StageLine(HOSTILE, HOSTILE)],
        [ClassPanel(HOSTILE, 1, 1, 0.5, Gallery([tile], 1))],
        Gallery([tile], 1),
        [(HOSTILE, HOSTILE)],
        1,
        Evaluation([1], [MethodCurve(HOSTILE, [(0.5, 0.1)])]),
        [HOSTILE],
        {HOSTILE: HOSTILE},
        HOSTILE,
    )
    write_page(page, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    tree = parse(html)
    assert not tree.find("script")
    assert tree.one("h1").text == HARMLESS
    assert rows(tree.one(id="unreadable").one("table"))[1] == [HARMLESS, HARMLESS]
    assert tree.one(id="class-0").one("li").attributes["title"].startswith(f"{HARMLESS} · label {HARMLESS} ·")
    assert HARMLESS in tree.one("ul", cls="legend").text
    assert tree.one("code").text == HARMLESS


def test_many_classes_are_folded_and_small():
    panels = [ClassPanel(f"class {i}", i, 5, 0.5, *(gallery(8, 100, size=(160, 120)) for _ in range(3))) for i in range(60)]
    # 60 panels shown over again make 500 classes without the time that random pictures take.
    html = render_page(Page("many", classes=[panels[i % 60] for i in range(500)]))
    tree = parse(html)
    details = tree.find("details", cls="class")
    assert len(details) == 500
    assert ["open" in d.attributes for d in details] == [True] * 20 + [False] * 480
    assert len(tree.one(id="class-499").find("img")) == 9
    assert len(html) < 25 * MiB


def test_ten_classes_of_noise_stay_below_two_megabytes():
    # Noise does not compress: no photograph is larger.
    panels = [ClassPanel(str(i), 9, 9, 0.5, *(gallery(20, 99, size=(200, 200)) for _ in range(3))) for i in range(10)]
    html = render_page(replace(sample_page(), classes=panels))
    assert len(parse(html).one(id="class-9").find("img")) == 24
    assert len(html.encode()) < 2_000_000


def test_same_contents_same_bytes(html):
    assert render_page(sample_page()) == html


def test_missing_accuracies_are_dashes():
    nan = float("nan")
    evaluation = Evaluation([1, 2], [MethodCurve("m", [(nan, nan), (0.5, nan)]), MethodCurve("o", [(nan, None)] * 2)])
    table = parse(render_page(Page("t", evaluation=evaluation))).one("table", id="accuracy-table")
    assert rows(table)[2:] == [["m", "–", "50.0"], ["o", "–", "–"]]
    assert [cell.text for cell in table.find("td", cls="best")] == ["50.0"]


def test_curve_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="1 accuracies for 2"):
        Evaluation([1, 2], [MethodCurve("m", [(0.5, 0.1)])])


def test_writing_replaces_the_old_page_or_leaves_it(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError("disk is gone")))
    with pytest.raises(OSError, match="disk is gone"):
        write_page(sample_page(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_page(sample_page(), str(path))
    assert path.read_text(encoding="utf-8") == render_page(sample_page())
    assert list(tmp_path.iterdir()) == [path]
