"""What a network costs, from its shape alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import BadInput
from .networks import make_network

# Measured beside the libraries: resnet18, densenet121 and mobilenet_v3_small hold 3.3 to 4.2 bytes for each value of a layer.
_BYTES_PER_ACTIVATION = 6


@dataclass(frozen=True)
class NetworkCosts:
    """Costs of a network.

    Parameters
    ----------
    parameters : int
        Its parameters.
    activation_bytes : int
        Of one image, while the network is trained.
    multiply_adds : int
        Of one image, forward alone; those of convolutions and linear layers.
    """

    parameters: int
    activation_bytes: int
    multiply_adds: int


def network_costs(model: str, n_classes: int, size: int, *, gray: bool) -> NetworkCosts:
    """Return the costs of a network for images of ``size`` pixels; nothing is computed for that."""
    import torch
    from torch import nn

    values = 0
    multiply_adds = 0

    def count(layer: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal values, multiply_adds
        if not isinstance(output, torch.Tensor):
            return
        values += output.numel()
        if isinstance(layer, nn.Conv2d | nn.Linear):
            multiply_adds += output.numel() * layer.weight[0].numel()

    with torch.device("meta"):
        network = make_network(model, n_classes, gray=gray).eval()
        for layer in network.modules():
            if not list(layer.children()):
                layer.register_forward_hook(count)
        try:
            with torch.inference_mode():
                network(torch.zeros(1, 1 if gray else 3, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(f"{model} does not take images of {size} pixels ({reason}); give another --image-size") from error
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return NetworkCosts(parameters, _BYTES_PER_ACTIVATION * values, multiply_adds)
