"""Novel classes that a network has seen after all: then it is no low-shot experiment."""

from __future__ import annotations

import logging

from ..evaluation import Split
from ..store import Store

logger = logging.getLogger(__name__)


def trained_classes(store: Store) -> list[str]:
    """Return the classes that `train` showed to the network by which the images are described; none where that is not known."""
    stages = store.manifest.stages
    made = stages.get("extract.background") or stages.get("list.background") or {"record": {}}
    return list(made["record"].get("trained_on", []))


def seen_novel_classes(store: Store, split: Split) -> list[str]:
    """Return the novel classes of a split among these, by name, or by number where classes have no names; warn of them."""
    stages, trained = store.manifest.stages, set(trained_classes(store))
    names = stages["list.background"]["record"].get("class_names") if "list.background" in stages else None
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
