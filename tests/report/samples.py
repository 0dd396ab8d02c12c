"""Pages to test with, and readers of what was made."""

from html.parser import HTMLParser

import numpy as np
from PIL import Image

from ooc_diffusion.report import ClassPanel, Evaluation, Gallery, MethodCurve, Page, StageLine, Tile

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
