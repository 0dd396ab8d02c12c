"""Pages to test with, and readers of what was made."""

from html.parser import HTMLParser

import numpy as np
from PIL import Image

from ooc_diffusion.report import (
    FAILS,
    HOLDS,
    UNTESTED,
    Chapter,
    Chart,
    Claim,
    ClassPanel,
    Evaluation,
    Gallery,
    Grid,
    Line,
    MethodCurve,
    Page,
    StageLine,
    StudyPage,
    Tile,
)

_VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
MiB = 2**20


class Element:
    def __init__(self, tag, attributes):
        self.tag = tag
        self.attributes = dict(attributes)
        self.children = []

    @property
    def text(self):
        return " ".join(" ".join(c if isinstance(c, str) else c.text for c in self.children).split())

    def walk(self):
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def find(self, tag=None, *, id=None, cls=None):
        return [
            e
            for e in self.walk()
            if (tag is None or e.tag == tag)
            and (id is None or e.attributes.get("id") == id)
            and (cls is None or cls in e.attributes.get("class", "").split())
        ]

    def one(self, tag=None, **how):
        (found,) = self.find(tag, **how)
        return found


class _Tree(HTMLParser):
    """A tree in which every tag that opens must close, in order."""

    def __init__(self):
        super().__init__()
        self.stack = [Element("document", [])]

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"attribute twice in {self.get_starttag_text()}"
        element = Element(tag, attrs)
        self.stack[-1].children.append(element)
        if tag not in _VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag, attrs):
        self.stack[-1].children.append(Element(tag, attrs))

    def handle_endtag(self, tag):
        assert self.stack[-1].tag == tag, f"</{tag}> at {self.getpos()} closes <{self.stack[-1].tag}>"
        self.stack.pop()

    def handle_data(self, data):
        self.stack[-1].children.append(data)


def parse(html):
    tree = _Tree()
    tree.feed(html)
    tree.close()
    assert len(tree.stack) == 1, f"<{tree.stack[-1].tag}> stays open"
    return tree.stack[0]


def picture(seed, size=(40, 30)):
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def gallery(n, total, *, label="cat", confidence=0.9, truth=None, size=(40, 30)):
    tiles = [Tile(picture(i, size), f"folder/{label}-{i}.png", label, confidence, truth) for i in range(n)]
    return Gallery(tiles, total)


def sample_page():
    wrong = Tile(picture(99), "folder/odd.png", "cat", 0.125, "dog")
    cat = ClassPanel("cat", 1234, 2, 0.8125, gallery(2, 2, confidence=None), gallery(3, 1234), Gallery([wrong], 1234))
    dog = ClassPanel("dog", 0, 1, None, gallery(1, 1, label="dog", confidence=None))
    return Page(
        title="Labels for 12,345 images",
        summary=[("Images", 12345), ("Memory budget", "2 GiB")],
        stages=[
            StageLine("extract", "12,345 descriptors", 800 * MiB, 600 * MiB, 40 * MiB, 39 * MiB, 30.0, True, 45.0),
            StageLine("neighbors", "30 nearest", 500 * MiB, 512 * MiB, 3 * MiB, 3 * MiB, 10.0, True, done_before=True),
        ],
        classes=[cat, dog],
        unreached=Gallery([Tile(picture(7), "far.png"), Tile(None, "gone.png")], 1500),
        unreadable=[("broken.jpg", "truncated"), ("notes.txt", "not an image")],
        unreadable_count=2,
        evaluation=sample_evaluation(),
        notes=["1,500 images were not reached."],
        versions={"numpy": "2.0"},
        command="ooc-diffusion label photos --labels few.csv",
    )


def sample_evaluation():
    return Evaluation(
        [1, 5, 20],
        [
            MethodCurve("logistic regression", [(0.4213, 0.0521), (0.65, 0.03), (0.9, 0.011)]),
            MethodCurve("diffusion", [(0.573, 0.021), (0.7, 0.02), (0.8, None)], [(0.9, 0.01), (0.95, 0.01), (1.0, 0.0)]),
        ],
        {1: [0.2, 0.5, 0.573], 20: [0.5, 0.8, 0.8]},
    )


def sample_study():
    """A page of a study with tables wider than a window, claims of each verdict, and plots."""
    series = [(0.4 + 0.03 * i, 0.01) for i in range(16)]
    heads = [str(t) for t in range(16)]
    lines = [Line(name, list(range(16)), series) for name in ("none", "other 1,000,000", "in-domain")]
    figures = "; ".join(f"n = {n}: 64.3 ± 1.0 against 62.1 ± 0.9, difference +2.2, standard error 0.3" for n in (1, 2, 5, 10, 20))
    claims = [
        Claim(
            "Table 2, 4.4", f"In-domain images help {word}.", verdict, f"5 draws: {figures}", "at each n the accuracy is higher"
        )
        for word, verdict in (("diffusion at every n", HOLDS), ("nobody", FAILS), ("the fusion", UNTESTED))
    ]
    wide = Grid("top-5 accuracy in %", ["iteration", *heads], [(line.name, series) for line in lines])
    narrow = Grid("In the paper: top-5 accuracy in %, n = 2", ["", "none", "F1M"], [("best iteration", ["62.7", "65.4"])])
    chart = Chart("Accuracy by iteration", "iteration", "top-5 accuracy (%)", lines)
    chapters = [
        Chapter("table2", "Table 2: in-domain diffusion", "All training images are labelled.", [wide], [chart], [narrow], claims),
        Chapter("figure3", "Figure 3: how L fills up", "Group 1.", [wide, wide], [chart, chart], [wide], claims[:1]),
    ]
    facts = [("Images", "/home/somebody/collections/omniglot.store"), ("Neighbors", 30), ("Accuracy", "top-5")]
    return StudyPage("Study: omniglot.store", facts, chapters, {"numpy": "2.0"}, "ooc-diffusion study table2", "A rule.")
