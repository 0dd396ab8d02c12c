"""From images to descriptors: pixels or a network, then principal components and unit length."""

from __future__ import annotations

from ..errors import BadInput
from ..images import ImageSource
from .augmentation import AUGMENTATIONS
from .checks import check_descriptors
from .descriptor_files import DescriptorFile, open_descriptors
from .extractor import Block, Extractor, describe_images, measure_describing, preparation_bytes
from .network_costs import NetworkCosts, network_costs
from .networks import NetworkExtractor, find_device, load_network, make_network, published_weights, with_classes
from .pca import BLOCK_ROWS, PCA, fit_pca, normalize_rows, project, sample_rows
from .pixels import PixelExtractor, pixel_settings
from .preprocessing import Preprocessing
from .small_networks import SMALL_MODELS
from .training import Recipe, Training, measure_training
from .training_files import decode_state, encode_network, encode_state
from .training_images import ChosenImages, TrainingImages, channel_statistics
from .transform_file import read_transform
from .weights import parameter_hash, read_training

__all__ = [
    "AUGMENTATIONS",
    "BLOCK_ROWS",
    "PCA",
    "SMALL_MODELS",
    "Block",
    "ChosenImages",
    "DescriptorFile",
    "Extractor",
    "NetworkCosts",
    "NetworkExtractor",
    "PixelExtractor",
    "Preprocessing",
    "Recipe",
    "Training",
    "TrainingImages",
    "channel_statistics",
    "check_descriptors",
    "choose_model",
    "decode_state",
    "describe_images",
    "encode_network",
    "encode_state",
    "find_device",
    "fit_pca",
    "load_network",
    "make_extractor",
    "make_network",
    "measure_describing",
    "measure_training",
    "network_costs",
    "normalize_rows",
    "open_descriptors",
    "parameter_hash",
    "pixel_settings",
    "preparation_bytes",
    "project",
    "published_weights",
    "read_training",
    "read_transform",
    "sample_rows",
    "with_classes",
]


def make_extractor(
    model: str,
    source: ImageSource,
    *,
    weights: str = "DEFAULT",
    device: str = "auto",
    image_size: int | None = None,
    color: str = "auto",
    seed: int = 0,
    threads: int | None = None,
) -> Extractor:
    """Return the extractor that a user asks for.

    Parameters
    ----------
    model : str
        ``pixels`` or the name of a classification network, of torchvision or a small one.
    source : ImageSource
        The images, which settle what is left open for ``pixels``.
    weights, device, seed, threads
        See `NetworkExtractor`; ``pixels`` has no weights, and the others are without effect on it.
    image_size, color
        See `pixel_settings`, for ``pixels`` and for small networks without weights; other networks have their own.

    Returns
    -------
    Extractor
        Ready to be given to `describe_images`.

    Raises
    ------
    BadInput
        See `NetworkExtractor` and `pixel_settings`; also where ``image_size`` or ``color`` is given for a network,
        or weights for ``pixels``.
    """
    if model == "pixels":
        if weights != "DEFAULT":
            raise BadInput(f"`weights` are for networks; leave {weights} out with `model` pixels, or name its `model`")
        size, gray = pixel_settings(source, size=image_size, color=color)
        return PixelExtractor(size, gray=gray)
    preprocessing = None
    if model in SMALL_MODELS and read_training(weights) is None:
        size, gray = pixel_settings(source, size=image_size, color=color)
        half = [0.5] * (1 if gray else 3)
        preprocessing = Preprocessing(size, size, "bilinear", half, half, gray)
    elif image_size is not None or color != "auto":
        raise BadInput(f"`image_size` and `color` are for `model` pixels; {model} has its own, leave them out")
    return NetworkExtractor(model, weights=weights, device=device, seed=seed, threads=threads, preprocessing=preprocessing)


def choose_model(model: str | None, weights: str) -> str:
    """Return the model that a user names, else the one that the weights are of where they say so, else ``resnet50``."""
    trained = None if model else read_training(weights)
    return model or (trained["model"] if trained else "resnet50")
