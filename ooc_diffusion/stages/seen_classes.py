"""Novel classes, and tests, that a network has seen in its training."""

from __future__ import annotations

import logging

from ..evaluation import Split
from ..store import Store
from .class_names import class_names

logger = logging.getLogger(__name__)


def trained_classes(store: Store) -> list[str]:
    """Return the classes that `train` showed to the network by which the images are described; none where that is not known."""
    stages = store.manifest.stages
    made = stages.get("extract.background") or stages.get("list.background") or {"record": {}}
    return list(made["record"].get("trained_on", []))


def tests_are_seen(store: Store) -> bool:
    """Return whether the tests are a half of images of which `train` may have shown any to the network; warn of it."""
    stages = store.manifest.stages
    if "extract.background" in stages or not trained_classes(store):
        return False  # only what `study` has halved is no longer as it was extracted
    logger.warning(
        "the tests are the later half of the images of each class, and of base classes the network may have been trained on all; "
        "train it on a folder without the tests, and extract these with --role tests"
    )
    return True


def seen_novel_classes(store: Store, split: Split) -> list[str]:
    """Return the novel classes of a split among these, by name, or by number where classes have no names; warn of them."""
    trained, names = set(trained_classes(store)), class_names(store)
    novel = [names[c] if names else str(c) for group in split.groups for c in group.novel.tolist()]
    seen = [name for name in novel if name in trained]
    if seen:
        logger.warning(
            "%d of %d novel classes, such as %r, were shown to the network in its training: this is not low-shot; give the "
            "split whose base classes it was trained on",
            len(seen),
            len(novel),
            seen[0],
        )
    return seen
