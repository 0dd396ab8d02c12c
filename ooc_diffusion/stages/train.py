"""Training a network on the images of base classes, so that its descriptors have never seen a novel one."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadInput
from ..features import (
    SMALL_MODELS,
    ChosenImages,
    NetworkCosts,
    Preprocessing,
    Recipe,
    Training,
    TrainingImages,
    channel_statistics,
    decode_state,
    encode_network,
    encode_state,
    find_device,
    load_network,
    make_network,
    network_costs,
    parameter_hash,
    pixel_settings,
    published_weights,
    read_training,
    with_classes,
)
from ..images import ImageSource, is_folder, printable
from ..memory import StagePlan
from ..parallel import resolve_threads
from ..store import Job, Store
from ..store.files import replace_file
from .base_classes import Chosen, choose_images, held_out_counts, read_base_classes
from .learning_curve import write_network
from .listing import class_counts, known_classes, list_images
from .output import check_folder
from .plans import plan_list, plan_train
from .settings import Record, Settings, Worker, check_plan, run_stage
from .training_forecast import torch_threads, training_seconds

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

ROLE = "training"
# Between two states that are kept of a training.
SECONDS_BETWEEN_STATES = 60.0
# Images whose mean and deviation stand for all.
_SAMPLE = 1024
# For networks of torchvision images are resized to 8/7 of the size: 256 pixels for 224.
_MARGIN = 8 / 7
_DEFAULT_SMALL_SIZE = 32


@dataclass(frozen=True)
class _Model:
    """Which network is trained, and where it starts."""

    name: str
    weights: str
    image_size: int | None
    color: str


def train(
    images: str,
    *,
    store: str | Path,
    classes: str | Path,
    output: str | Path,
    root: str | None = None,
    split: str | None = None,
    model: str = "resnet10-small",
    weights: str = "none",
    image_size: int | None = None,
    color: str = "auto",
    epochs: int = 30,
    batch_size: int = 64,
    learning_rate: float = 0.1,
    weight_decay: float = 5e-4,
    held_out: float = 0.1,
    balanced: bool = False,
    augmentation: str = "shift",
    flip: bool = False,
    max_failures: float = 0.01,
    settings: Settings | None = None,
) -> Record:
    """Train a classification network on the images of some classes; of the others no image is opened.

    Parameters
    ----------
    images : str
        A folder of which each folder that holds images is a class, ``digits``, or the name of a torchvision data set.
    store : str or Path
        The store; made where there is none. An interrupted training goes on from there.
    classes : str or Path
        The base classes; see `read_base_classes`.
    output : str or Path
        The file of weights to write, ``.safetensors``; the learning curve goes beside it, ``.curve.csv`` and ``.curve.png``.
    root, split : str, optional
        Where the files of a data set are, and which part of it is meant.
    model : str
        A classification network of torchvision, or ``resnet10-small`` or ``resnet18-small``. Default ``resnet10-small``.
    weights : str
        Where it starts: ``"none"`` (random), ``"DEFAULT"`` (published), or a file. The last layer starts anew, unless it is of
        these classes. Default ``"none"``.
    image_size : int, optional
        Side of the images in pixels. Default: for small networks that of the images, at most 32; else that of published weights.
    color : {"auto", "gray", "rgb"}
        For small networks. Default ``"auto"``.
    epochs, batch_size, learning_rate, weight_decay, balanced, augmentation, flip
        See `Recipe`.
    held_out : float
        Share of the images of each class that is only tested on, for the learning curve. Default 0.1.
    max_failures : float
        Share of unreadable images above which the stage fails, default 0.01.
    settings : Settings, optional
        Options of the run.

    Returns
    -------
    dict
        The record of the stage. Arrays: ``network/file`` uint8, ``network/rows`` and ``network/held_out_rows`` int64, the rows of
        ``training`` that were trained and tested on.
    """
    settings = settings or Settings()
    recipe = Recipe(epochs, batch_size, learning_rate, weight_decay, balanced, augmentation, flip, settings.seed)
    chosen_model = _Model(model, weights, image_size, color)
    if Path(output).suffix != ".safetensors":
        raise BadInput(f"{output} has not the ending .safetensors; give it to the file of weights")
    check_folder(output)
    too_small = settings.budget.total < plan_list(0, budget=settings.budget).least_bytes
    if settings.dry_run or too_small:
        planned = _preview(images, root, split, classes, chosen_model, recipe, held_out, settings)
        if settings.dry_run:
            return planned
        # already too small to list images: the size that is named is to be enough for training
        check_plan(StagePlan(**planned["plans"][-1]), settings.budget)
    with Store.writing(store) as target:
        _check_output(target, Path(output), settings)
        listing: dict[str, Any] = {"root": root, "split": split, "class_folders": is_folder(images), "settings": settings}
        source = list_images(images, store=target, role=ROLE, **listing)
        known_classes(images, target.array(f"{ROLE}/truth")[:0] if f"{ROLE}/truth" in target else None)
        truth, names = target.array(f"{ROLE}/truth"), target.record(f"list.{ROLE}")["class_names"]
        base = read_base_classes(classes, n_classes=_n_classes(truth, names), class_names=names)
        chosen = choose_images(truth, base, held_out, settings.seed, str(classes), names)
        base_names = [names[c] if names else str(c) for c in base]
        record = _train_base(target, source, chosen, base_names, chosen_model, recipe, held_out, max_failures, settings)
        written = write_network(target, Path(output), record["curve"])
    return {**record, **written}


def _n_classes(truth: np.ndarray, names: list[str] | None) -> int:
    return len(names) if names else int(truth.max(initial=-1)) + 1


def _check_output(store: Store, output: Path, settings: Settings) -> None:
    """Refuse a file that is there and was not written from this store, unless it may be overwritten."""
    if output.exists() and not settings.overwrite:
        same = "network/file" in store and output.read_bytes() == store.array("network/file").tobytes()
        if not same:
            raise BadInput(f"{output} exists; give another --output, or --overwrite to replace it")


def _preview(
    images: str,
    root: str | None,
    split: str | None,
    classes: str | Path,
    model: _Model,
    recipe: Recipe,
    held_out: float,
    settings: Settings,
) -> Record:
    """Plan from counts alone: no image is opened."""
    counts, names = class_counts(images, root=root, split=split, settings=settings)
    base = read_base_classes(classes, n_classes=len(counts), class_names=names)
    held = held_out_counts(counts[base], held_out, str(classes), base, names)
    shown, costs = _shape(model, len(base), None)
    n = int((counts[base] - held).sum())
    plans = [
        plan_list(int(counts.sum()), budget=settings.budget),
        _plan(n, int(held.sum()), shown, costs, recipe, settings),
    ]
    record = {"stage": "train", "images": n, "held_out": int(held.sum()), "memory_budget_bytes": settings.budget.total}
    if settings.dry_run and settings.budget.total >= plans[-1].least_bytes:
        about: dict[str, Any] = {"model": model.name, "shown": shown, "costs": costs, "recipe": recipe, "settings": settings}
        record["planned_seconds"] = training_seconds(n, int(held.sum()), len(base), **about)
    return {**record, "plans": [asdict(plan) for plan in plans]}


def _plan(n: int, held: int, shown: Preprocessing, costs: NetworkCosts, recipe: Recipe, settings: Settings) -> StagePlan:
    return plan_train(
        n + held,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        image_bytes=shown.resize**2 * shown.channels,
        costs=costs,
        threads=resolve_threads(settings.threads),
        budget=settings.budget,
    )


def _shape(model: _Model, n_classes: int, source: ImageSource | None) -> tuple[Preprocessing, NetworkCosts]:
    """Return how images are shown to the network (mean and deviation are a first guess for small ones), and its costs.

    What is left open follows from the images; without them the largest is taken.
    """
    trained = read_training(model.weights)
    if trained is not None:
        if model.image_size is not None or model.color != "auto":
            raise BadInput(f"{model.weights} says size and color of its images; leave --image-size and --color out")
        shown = trained["preprocessing"]
    elif model.name in SMALL_MODELS:
        size, gray = model.image_size or _DEFAULT_SMALL_SIZE, model.color == "gray"
        if source is not None:
            size, gray = pixel_settings(source, size=model.image_size, color=model.color)
        half = [0.5] * (1 if gray else 3)
        shown = Preprocessing(size, size, "bilinear", half, half, gray)
    else:
        if model.color == "gray":
            raise BadInput(f"{model.name} of torchvision takes colors; leave --color out, or take {' or '.join(SMALL_MODELS)}")
        shown = Preprocessing.published(published_weights(model.name).DEFAULT.transforms())
        if model.image_size is not None:
            shown = replace(shown, resize=round(_MARGIN * model.image_size), crop=model.image_size)
    return shown, network_costs(model.name, n_classes, shown.crop, gray=shown.gray)


def _start(model: _Model, names: list[str], shown: Preprocessing, seed: int) -> torch.nn.Module:
    """Return the network as it is before the first step."""
    if model.weights == "none":
        return make_network(model.name, len(names), gray=shown.gray, seed=seed)
    network, _, _ = load_network(model.name, model.weights, seed, shown)
    trained = read_training(model.weights)
    if trained is not None and trained["classes"] == names:
        return network
    return with_classes(network, model.name, len(names), gray=shown.gray, seed=seed)


def _train_base(
    store: Store,
    source: ImageSource,
    chosen: Chosen,
    names: list[str],
    model: _Model,
    recipe: Recipe,
    held_out: float,
    max_failures: float,
    settings: Settings,
) -> Record:
    """Train as stage ``train``."""
    device = find_device(settings.device)
    images = ChosenImages(source, chosen.rows)
    shown, costs = _shape(model, len(names), images)
    network = _start(model, names, shown, recipe.seed)
    n, held = len(chosen.rows), len(chosen.held_rows)
    plan = _plan(n, held, shown, costs, recipe, settings)
    parameters = {
        "model": model.name,
        "weights": parameter_hash(network),
        "classes": [printable(name) for name in names],
        "resize": shown.resize,
        "crop": shown.crop,
        "gray": shown.gray,
        "held_out": held_out,
        **asdict(recipe),
        "device": device.type,
        # gradients are added up in another order by another number of threads
        "threads": resolve_threads(settings.threads) if device.type == "cpu" else None,
        "fingerprint": source.fingerprint,
    }

    def work(worker: Worker) -> dict[str, Any]:
        with torch_threads(worker.threads):
            return _work(worker, source, chosen, names, model, recipe, max_failures, network.to(device), shown, plan)

    return run_stage(
        store,
        "train",
        settings,
        plan=plan,
        parameters=parameters,
        inputs=[f"{ROLE}/truth"],
        total=recipe.epochs * recipe.images(chosen.classes),
        unit="images",
        work=work,
    )


def _work(
    worker: Worker,
    source: ImageSource,
    chosen: Chosen,
    names: list[str],
    model: _Model,
    recipe: Recipe,
    max_failures: float,
    network: torch.nn.Module,
    shown: Preprocessing,
    plan: StagePlan,
) -> dict[str, Any]:
    """Train, keep the state now and then, and put the network and its rows into the store."""
    state = _read_state(worker.job)
    worker.advance(0 if state is None else state[1]["images_seen"])  # at once, so that it does not count as speed
    n, held = len(chosen.rows), len(chosen.held_rows)
    held_square = replace(shown, crop=shown.resize)  # the margin is what parts are taken from
    kept = plan.memory_bytes >= plan.least_bytes + (n + held) * shown.resize**2 * shown.channels
    allowed = int(max_failures * (n + held))
    options: dict[str, Any] = {"threads": worker.threads, "keep": kept, "most_failures": allowed, "together": []}
    images = TrainingImages(ChosenImages(source, chosen.rows), chosen.classes, held_square, **options)
    tests = TrainingImages(ChosenImages(source, chosen.held_rows), chosen.held_classes, held_square, **options)
    if model.name in SMALL_MODELS and model.weights == "none":
        sample = np.sort(np.random.default_rng(recipe.seed).choice(n, min(n, _SAMPLE), replace=False))
        mean, deviation = channel_statistics(images, sample)
        shown = replace(shown, mean=mean, std=deviation)
    training = Training(network, images, tests, shown, recipe)
    if state is not None:
        training.load_state(*state)
    last = time.monotonic()

    def done(seen: int) -> None:
        nonlocal last
        worker.advance(seen)
        if time.monotonic() - last >= SECONDS_BETWEEN_STATES and training.step < training.steps:
            _write_state(worker.job, *training.state())
            last = time.monotonic()

    with worker.clock.step("training"):
        training.run(done)
    file = encode_network(network, model.name, names, shown)
    worker.job.put("network/file", np.frombuffer(file, np.uint8))
    worker.job.put("network/rows", chosen.rows)
    worker.job.put("network/held_out_rows", chosen.held_rows)
    last_epoch = training.curve[-1]
    return {
        "images": n,
        "held_out": held,
        "classes": len(names),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "image_size": shown.crop,
        "kept_in_memory": kept,
        "unreadable": len(images.failures) + len(tests.failures),
        **{name: last_epoch[name] for name in ("loss", "accuracy", "held_out_loss", "held_out_accuracy")},
        "curve": training.curve,
    }


def _write_state(job: Job, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    replace_file(job.state_path, encode_state(tensors, {**values, "job": job.id}))
    job.checkpoint(now=True, step=values["step"])


def _read_state(job: Job) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return the state that an interrupted run of this job has kept."""
    if not job.state_path.exists():
        return None
    state = decode_state(job.state_path.read_bytes())
    if state is None or state[1]["job"] != job.id:
        logger.warning("%s is damaged; the training starts anew", job.state_path)
        return None
    return state
