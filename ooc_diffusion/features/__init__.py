"""From images to descriptors: pixels or a network, then principal components and unit length."""

from __future__ import annotations

from ..errors import BadInput
from ..images import ImageSource
from .checks import check_descriptors
from .descriptor_files import DescriptorFile, open_descriptors
from .extractor import Block, Extractor, describe_images, preparation_bytes
from .networks import NetworkExtractor
from .pca import BLOCK_ROWS, PCA, fit_pca, normalize_rows, project, sample_rows
from .pixels import PixelExtractor, pixel_settings
from .transform_file import read_transform

__all__ = [
    "BLOCK_ROWS",
    "PCA",
    "Block",
    "DescriptorFile",
    "Extractor",
    "NetworkExtractor",
    "PixelExtractor",
    "check_descriptors",
    "describe_images",
    "fit_pca",
    "make_extractor",
    "normalize_rows",
    "open_descriptors",
    "pixel_settings",
    "preparation_bytes",
    "project",
    "read_transform",
    "sample_rows",
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
        ``pixels`` or the name of a classification network of torchvision.
    source : ImageSource
        The images, which settle what is left open for ``pixels``.
    weights, device, seed, threads
        See `NetworkExtractor`; ``pixels`` has no weights, and the others are without effect on it.
    image_size, color
        See `pixel_settings`; networks have their own.

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
            raise BadInput(f"weights are for networks; leave {weights} out with --model pixels, or name its --model")
        size, gray = pixel_settings(source, size=image_size, color=color)
        return PixelExtractor(size, gray=gray)
    if image_size is not None or color != "auto":
        raise BadInput(f"image size and color are for --model pixels; {model} has its own, leave them out")
    return NetworkExtractor(model, weights=weights, device=device, seed=seed, threads=threads)
