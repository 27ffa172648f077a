"""State dictionaries of PyTorch and safetensors files, read without running anything."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# where trainers keep the weights among other things
_NESTED = ("state_dict", "model_state_dict", "model", "net", "network_weights")
# what wrappers for several devices, compilation and trainers put in front of every name
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Weights by name.

    Args:
        path: ``.safetensors``, or a state dict that ``torch.save`` wrote (``.pth``, ``.pt``, ``.ckpt``).

    Returns:
        Arrays; float16 and bfloat16 as float32. A prefix that every name has, such as ``module.``, is taken off.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or holds anything but weights; the code that a file would run is not run.
        ModuleNotFoundError: if PyTorch is not installed, for all but ``.safetensors``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No weights at {path}: give a .pth, .pt or .safetensors file.")
    raw = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return without_prefixes(raw)


def without_prefixes(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names without what a wrapper put in front of all of them.

    Example:
        >>> list(without_prefixes({"module.net.conv.weight": 1, "module.net.conv.bias": 2}))
        ['conv.weight', 'conv.bias']
    """
    found = dict(weights)
    while True:
        prefix = next((p for p in _PREFIXES if found and all(name.startswith(p) for name in found)), None)
        if prefix is None:
            return found
        found = {name.removeprefix(prefix): array for name, array in found.items()}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        loaded = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}.") from None
    return {name: _float(array) for name, array in loaded.items()}


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} is a file of PyTorch, which is not installed: pip install 'jaxsal[torch]', or save the weights "
            "as .safetensors where PyTorch is."
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than weights and was refused, because reading it would run code that it brings along: "
            f"{_reason(error)}. Where the file is trusted, load it with PyTorch and save the weights alone: "
            "torch.save(model.state_dict(), ...)."
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a readable file of PyTorch: {_reason(error)}.") from None
    state = _state(loaded)
    if not state:
        kind = type(loaded).__name__
        raise ValueError(f"{path} holds a {kind} without weights: save model.state_dict() with torch.save.")
    return {
        name: (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).detach().numpy()
        for name, tensor in state.items()
    }


def _state(loaded: Any) -> dict[str, Any]:
    """The state dict, wherever a trainer put it."""
    import torch

    if not isinstance(loaded, Mapping):
        return {}
    tensors = {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    inside = {key: found for key in _NESTED if key in loaded and (found := _state(loaded[key]))}
    if len(inside) + bool(tensors) > 1:
        where = ", ".join([*inside, *(["the file itself"] if tensors else [])])
        raise ValueError(f"The file has several sets of weights: {where}. Save the one that is meant on its own.")
    return next(iter(inside.values()), tensors)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    return (named or lines or [type(error).__name__])[0].rstrip(".")


def _float(array: np.ndarray) -> np.ndarray:
    small = array.dtype.itemsize < 4 and (array.dtype.kind == "f" or array.dtype.name == "bfloat16")
    return array.astype(np.float32) if small else array
