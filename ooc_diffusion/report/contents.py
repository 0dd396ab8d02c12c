"""What the page shows, as plain frozen data; who collects it need not know how it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# Mean and standard deviation over the draws, as fractions of 1; no deviation where there was one draw only.
Accuracy = tuple[float, float | None]


@dataclass(frozen=True)
class Tile:
    """One image in a gallery.

    Parameters
    ----------
    image : PIL.Image.Image, optional
        The pixels in any mode and size; None shows an empty frame.
    name : str
        Where the image comes from.
    label : str
        The label it was given; empty where it has none.
    confidence : float, optional
        Confidence of the label; None where there is none to show, as for seeds.
    truth : str, optional
        The true label where it is known.
    """

    image: Image.Image | None
    name: str
    label: str = ""
    confidence: float | None = None
    truth: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether the truth is known and differs from the label given."""
        return bool(self.label) and self.truth is not None and self.truth != self.label


@dataclass(frozen=True)
class Gallery:
    """Some images out of ``total``."""

    items: Sequence[Tile] = ()
    total: int = 0


@dataclass(frozen=True)
class StageLine:
    """Plan against actual of one stage: bytes and seconds, None where unknown.

    Parameters
    ----------
    stage : str
        Name of the stage.
    work : str
        What was computed, in the field's units.
    planned_memory, peak_memory : int, optional
        Planned and measured peak of anonymous memory.
    planned_disk, disk : int, optional
        Planned and written bytes.
    seconds : float, optional
        Wall-clock time.
    resumed : bool
        Whether an earlier run had done part of the stage.
    planned_seconds : float, optional
        Forecast of the wall-clock time.
    done_before : bool
        Whether an earlier run had done all of it: then the measurements are those of that run.
    """

    stage: str
    work: str
    planned_memory: int | None = None
    peak_memory: int | None = None
    planned_disk: int | None = None
    disk: int | None = None
    seconds: float | None = None
    resumed: bool = False
    planned_seconds: float | None = None
    done_before: bool = False


@dataclass(frozen=True)
class ClassPanel:
    """One class: how many images were given its label, and examples.

    Parameters
    ----------
    name : str
        The label.
    count : int
        Images that were given this label.
    seed_count : int
        Images that carried it from the start.
    mean_confidence : float, optional
        Mean over the ``count`` images.
    seeds, most, least : Gallery
        The seeds, the most and the least confident images.
    """

    name: str
    count: int
    seed_count: int
    mean_confidence: float | None = None
    seeds: Gallery = Gallery()
    most: Gallery = Gallery()
    least: Gallery = Gallery()


@dataclass(frozen=True)
class MethodCurve:
    """Accuracy of one method for each number of labels per class, as (mean, standard deviation) in fractions of 1."""

    name: str
    top1: Sequence[Accuracy]
    top5: Sequence[Accuracy] | None = None


@dataclass(frozen=True)
class Evaluation:
    """Accuracy where the truth is known.

    Parameters
    ----------
    n_per_class : sequence of int
        Labels per class, one for each entry of the curves.
    methods : sequence of MethodCurve
        The methods that were compared.
    iterations : mapping of int to sequence of float
        Labels per class -> mean top-1 accuracy after 0, 1, 2, ... iterations of diffusion.
    """

    n_per_class: Sequence[int]
    methods: Sequence[MethodCurve]
    iterations: Mapping[int, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for method in self.methods:
            for curve in (method.top1, method.top5):
                if curve is not None and len(curve) != len(self.n_per_class):
                    raise ValueError(
                        f"method {method.name!r} has {len(curve)} accuracies for {len(self.n_per_class)} values of n"
                    )

    def blocks(self) -> list[tuple[str, list[tuple[str, Sequence[Accuracy]]]]]:
        """Return the tables: (metric, [(method, accuracies)]), top-5 only with the methods that have it."""
        top1 = [(method.name, method.top1) for method in self.methods]
        top5 = [(method.name, method.top5) for method in self.methods if method.top5 is not None]
        return [(metric, rows) for metric, rows in (("top-1", top1), ("top-5", top5)) if rows]


@dataclass(frozen=True)
class Page:
    """Everything that the page shows.

    Parameters
    ----------
    title : str
        Heading and title.
    summary : sequence of (str, str or int)
        Terms and values; whole numbers get thousands separators.
    stages : sequence of StageLine
        In the order in which they ran.
    classes : sequence of ClassPanel
        In the order in which they are shown.
    unreached : Gallery
        Images at which no label arrived.
    unreadable : sequence of (str, str)
        Names and reasons, possibly only the first of them.
    unreadable_count : int
        All unreadable images, listed or not.
    evaluation : Evaluation, optional
        Accuracy, where the truth is known.
    notes : sequence of str
        What the reader should know before trusting the labels.
    versions : mapping of str to str
        Programs and libraries.
    command : str
        The command line that made the page.
    """

    title: str
    summary: Sequence[tuple[str, str | int]] = ()
    stages: Sequence[StageLine] = ()
    classes: Sequence[ClassPanel] = ()
    unreached: Gallery = Gallery()
    unreadable: Sequence[tuple[str, str]] = ()
    unreadable_count: int = 0
    evaluation: Evaluation | None = None
    notes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
