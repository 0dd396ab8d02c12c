"""Residual networks for images of 28 to 64 pixels: a stem that keeps every pixel, and few channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Blocks at each of the four widths.
_BLOCKS = {"resnet10-small": 1, "resnet18-small": 2}
_WIDTHS = (32, 64, 128, 256)

SMALL_MODELS = tuple(_BLOCKS)


def make_small_network(model: str, n_classes: int, *, gray: bool) -> torch.nn.Module:
    """Return a residual network with random weights.

    Parameters
    ----------
    model : {"resnet10-small", "resnet18-small"}
        Basic blocks of 32, 64, 128 and 256 channels, one or two each; from the second width on the first halves the sides.
    n_classes : int
        Outputs of the last layer, ``fc``, whose input are 256 averages.
    gray : bool
        One channel of the input instead of three.

    Returns
    -------
    torch.nn.Module
        Takes (b, 1 or 3, h, w) and gives (b, n_classes).
    """
    from torch import nn
    from torchvision.models.resnet import BasicBlock

    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(1 if gray else 3, _WIDTHS[0], 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(_WIDTHS[0]),
        "relu": nn.ReLU(inplace=True),
    }
    before = _WIDTHS[0]
    for number, width in enumerate(_WIDTHS, 1):
        blocks = []
        for _ in range(_BLOCKS[model]):
            shortcut = None
            if before != width:
                shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride=2, bias=False), nn.BatchNorm2d(width))
            blocks.append(BasicBlock(before, width, stride=1 if shortcut is None else 2, downsample=shortcut))
            before = width
        layers[f"layer{number}"] = nn.Sequential(*blocks)
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(before, n_classes)}
    network = nn.Sequential()
    for name, layer in layers.items():
        network.add_module(name, layer)
        for module in layer.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
