"""Reading the parameters of a network, never running what a file contains."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch

# The keys of densenet files of the first years, which torchvision renames too.
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))")
# Heads that only training uses (googlenet, inception_v3).
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_WRAPPERS = ("state_dict", "model")
# The entry of the metadata of a safetensors file that describes a trained network. One alone: the order of several is not kept.
TRAINING_KEY = "ooc_diffusion"


def read_state(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a state dict from a file.

    Parameters
    ----------
    path : path
        ``.safetensors``, or anything that ``torch.load(weights_only=True)`` accepts: a state dict, bare or under the key
        ``state_dict`` or ``model``, its keys with or without ``module.`` in front.

    Returns
    -------
    dict of str to torch.Tensor
        On the CPU.

    Raises
    ------
    BadInput
        Where the file is missing, corrupt, or holds more than tensors: code in a file is refused, not run.
    """
    import torch
    from safetensors.torch import load_file

    file = Path(path)
    if not file.is_file():
        raise BadInput(f"weights file {file} does not exist; check the path")
    try:
        safe = file.suffix == ".safetensors"
        content = load_file(file) if safe else torch.load(file, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"weights file {file} holds more than tensors and was not loaded, since that could run code; "
            "save its state dict as .safetensors"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # of arbitrary bytes the reader of torch raises anything, IndexError for one
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadInput(f"weights file {file} cannot be read: {reason}") from error
    return tidy_state(content, str(file))


def read_training(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return what `train` wrote into a file of weights beside them; None for files of others, and for what is no file.

    Returns
    -------
    dict or None
        ``model``, ``classes`` (names, in the order of the outputs) and ``preprocessing``, a `Preprocessing`.

    Raises
    ------
    BadInput
        Where that is there, but is not as it was written.
    """
    from safetensors import SafetensorError, safe_open

    if Path(path).suffix != ".safetensors" or not Path(path).is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(TRAINING_KEY)
    except (OSError, SafetensorError):
        return None  # `read_state` says what is wrong with it
    if text is None:
        return None
    try:
        found = json.loads(text)
        shown = Preprocessing(**found["preprocessing"])
        return {"model": str(found["model"]), "classes": list(found["classes"]), "preprocessing": shown}
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"weights file {path} is damaged: its description cannot be read; train again") from error


def download_state(weights: Any, model: str) -> dict[str, torch.Tensor]:
    """Fetch published weights of torchvision, from its cache or the network.

    Parameters
    ----------
    weights : torchvision.models.WeightsEnum
        Which.
    model : str
        Name of the model, for the message.

    Raises
    ------
    BadInput
        Where they cannot be had; names the other ways.
    """
    try:
        state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"the weights {weights} cannot be had from {weights.url} ({reason}); fetch that file elsewhere and give "
            f"--model {model} --weights FILE, or take --model pixels, which needs none"
        ) from error
    return tidy_state(state, str(weights))


def tidy_state(content: Any, what: str) -> dict[str, torch.Tensor]:
    """Return the bare state dict: out of its wrappers, without ``module.``, without the heads that only training uses."""
    import torch

    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise BadInput(f"weights file {what} holds no state dict; save model.state_dict() in it")
    state = {}
    for key, value in content.items():
        name = key.removeprefix("module.")
        if not name.startswith(_AUXILIARY):
            state[_OLD_DENSENET.sub(r"\1\2", name)] = value
    return state


def load_state(model: torch.nn.Module, state: dict[str, torch.Tensor], what: str) -> None:
    """Copy a state dict into a model.

    Raises
    ------
    BadInput
        Where a parameter is missing, unknown or of another shape; names the first.
    """
    expected = model.state_dict()
    for key, value in expected.items():
        if key not in state and not key.endswith("num_batches_tracked"):  # a counter of training that old files lack
            raise BadInput(f"{what} has no parameter {key!r}; is it of another model?")
        if key in state and state[key].shape != value.shape:
            raise BadInput(f"{what}: {key!r} is of shape {tuple(state[key].shape)}, the model has {tuple(value.shape)}")
    for key in state:
        if key not in expected:
            raise BadInput(f"{what} has a parameter {key!r} that the model lacks; is it of another model?")
    model.load_state_dict(state, strict=False)


def parameter_hash(model: torch.nn.Module) -> str:
    """Return a hash of names, types, shapes and bytes of all parameters and buffers, 32 hexadecimal digits."""
    import xxhash

    stream = xxhash.xxh3_128()
    for key, value in model.state_dict().items():
        stream.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        stream.update(value.detach().cpu().contiguous().numpy().data)
    return stream.hexdigest()
