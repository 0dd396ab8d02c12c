"""The names of the classes of a role, and whether those of two roles agree."""

from __future__ import annotations

import logging

from ..errors import BadInput
from ..images import printable
from ..store import Store
from .settings import DESCRIBED

logger = logging.getLogger(__name__)

# Classes of each role that a warning names.
_SHOWN = 3


def class_names(store: Store, role: str = "background") -> list[str] | None:
    """Return the names of the classes of a role, where its images were listed or imported with them."""
    stages = store.manifest.stages
    records = (stages[stage]["record"] for stage in (f"list.{role}", f"import.{role}") if stage in stages)
    return next((record["class_names"] for record in records if record.get("class_names")), None)


def warn_of_other_classes(store: Store, role: str) -> None:
    """Say it where the classes of a role are not those of another: each role numbers its own, and numbers are compared."""
    names = class_names(store, role)
    for other in DESCRIBED:
        others = class_names(store, other)
        if other == role or names is None or others is None or names == others:
            continue
        logger.warning(
            "%s and %s have other classes (%s; %s), so that the same number is not the same class; give both the same classes",
            role,
            other,
            _alone(names, others, role),
            _alone(others, names, other),
        )


def refuse_other_classes(store: Store) -> None:
    """Raise `BadInput` where background and tests have other classes."""
    names, others = class_names(store), class_names(store, "tests")
    if names is not None and others is not None and names != others:
        raise BadInput(
            f"{store.path}: background and tests have other classes ({_alone(names, others, 'background')}; "
            f"{_alone(others, names, 'tests')}), so that the same number is not the same class; give both the same folders"
        )


def _alone(names: list[str], others: list[str], role: str) -> str:
    known = set(others)
    alone = [printable(name) for name in names if name not in known]
    shown = ", ".join([*alone[:_SHOWN], *([f"{len(alone) - _SHOWN} more"] if len(alone) > _SHOWN else [])])
    return f"{shown or 'none'} in {role} alone"
