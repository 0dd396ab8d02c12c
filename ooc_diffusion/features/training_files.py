"""A network, or the state of its training, as the bytes of a safetensors file; the same content gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .preprocessing import Preprocessing
from .weights import TRAINING_KEY

if TYPE_CHECKING:
    import torch


def encode_network(network: torch.nn.Module, model: str, classes: Sequence[str], preprocessing: Preprocessing) -> bytes:
    """Return a network as a file that `read_state` and `read_training` read."""
    described = {"model": model, "classes": list(classes), "preprocessing": preprocessing.identity}
    return _encode(network.state_dict(), described)


def encode_state(tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> bytes:
    """Return tensors and JSON values as one file, with a checksum of both."""
    return _encode(tensors, {"values": values, "checksum": _checksum(tensors, values)})


def decode_state(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return what `encode_state` was given; None where a bit of it has changed."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        found = json.loads(header["__metadata__"][TRAINING_KEY])
        tensors = load(data)
        values = found["values"]
        return (tensors, values) if found["checksum"] == _checksum(tensors, values) else None
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None


def _encode(tensors: dict[str, torch.Tensor], described: dict[str, Any]) -> bytes:
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return save(plain, {TRAINING_KEY: json.dumps(described, sort_keys=True)})


def _checksum(tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> str:
    import xxhash

    stream = xxhash.xxh3_128(json.dumps(values, sort_keys=True).encode())
    for name in sorted(tensors):
        stream.update(name.encode())
        stream.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return stream.hexdigest()
