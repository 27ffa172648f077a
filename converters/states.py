"""State dictionaries of PyTorch and safetensors files, read without running anything."""

import codecs
import contextlib
import math
import os
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# where trainers keep the weights among other things
_NESTED = ("state_dict", "model_state_dict", "model", "net", "network_weights")
# what wrappers for several devices, compilation and trainers put in front of every name
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
# how PyTorch words that a pickle asks for more than tensors
_REFUSALS = ("GLOBAL", "Unsupported class", "unsupported class", "Can only", "Trying to")
# what torch.save wrote first before its files were archives
_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"
_AS_SINGLE = "save the weights with their scales multiplied in, .to(torch.float32)"


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Weights by name.

    Args:
        path: ``.safetensors``, or a state dict that ``torch.save`` wrote (``.pth``, ``.pt``, ``.ckpt``).

    Returns:
        Arrays; float16 and bfloat16 as float32. A prefix that every name has, such as ``module.``, is taken off.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else (a web page, a pointer of Git LFS, a text), is damaged or holds anything but
            weights, the code of which is not run; or if weights cannot be used, such as sparse ones: all are named.
        ModuleNotFoundError: if PyTorch is not installed, for all but ``.safetensors``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No weights at {path}: give a .pth, .pt or .safetensors file.")
    if what := _what_it_is(path):
        raise ValueError(f"{path} {what}.")
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
        raise ValueError(f"{path} is not a readable safetensors file, it is damaged or cut off: {error}.") from None
    except (KeyError, TypeError, AttributeError) as error:  # of a dtype that it has no NumPy equal for
        raise ValueError(f"{path} has weights of a dtype that NumPy lacks ({error}): {_AS_SINGLE}") from None
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
        if _is_cut_off(path) or not (named := _forbidden(error)):
            raise ValueError(f"{path} is not a readable file of PyTorch, it is damaged: {_reason(error)}.") from None
        raise ValueError(
            f"{path} holds more than weights and was refused, because reading it would run code that it brings along: "
            f"{named}. Where the file is trusted, load it with PyTorch and save the weights alone: "
            "torch.save(model.state_dict(), ...)."
        ) from None
    except Exception as error:  # whatever bytes that are no weights come to
        if "TorchScript" in str(error):
            raise ValueError(
                f"{path} is a program of TorchScript, not weights: save model.state_dict() with torch.save, "
                "or convert the module that it was made of with jaxsal.converters.from_torch."
            ) from None
        raise ValueError(
            f"{path} is not a readable file of PyTorch, it is damaged or cut off: {_reason(error)}."
        ) from None
    state = _state(loaded)
    if not state:
        kind = type(loaded).__name__
        raise ValueError(f"{path} holds a {kind} without weights: save model.state_dict() with torch.save.")
    found, problems = {}, []
    for name, tensor in state.items():
        if problem := _unusable(name, tensor):
            problems.append(problem)
        else:
            found[name] = _float(_numpy(tensor))
    if problems:
        raise ValueError(f"{path} has weights that cannot be used: {'; '.join(problems)}.")
    return found


def _what_it_is(path: Path) -> str | None:
    """What a file is that is nothing of weights, from how it begins."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "is empty: nothing was written, or nothing came down. Get it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: run `git lfs pull` where it comes from"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, most likely of an error or of a question before the download: get the file itself"
    if head[:2] in (b"\x80\x03", b"\x80\x04", b"\x80\x05") and _MAGIC not in head[:32]:
        return (
            "is a pickle that torch.save did not write, and was refused, because reading it could run code: save "
            "model.state_dict() with torch.save"
        )
    with contextlib.suppress(UnicodeDecodeError):
        # without the end: a letter may be cut in two there
        letters = codecs.getincrementaldecoder("utf-8")().decode(head)
        if all(letter.isprintable() or letter.isspace() for letter in letters):
            return f"is a text file that begins with {letters[:40]!r}: give the file of weights"
    return None


def _unusable(name: Any, tensor: Any) -> str:
    """Why a weight cannot be taken, and what to do."""
    import torch

    if not isinstance(name, str):
        return f"{name!r} is not a name but of {type(name).__name__}, give each weight its name"
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        return f"{name} is {kind}, save it .to_dense()"
    if tensor.is_meta:
        return f"{name} has a shape but no values, save the weights after they were loaded"
    if tensor.is_quantized:
        return f"{name} is quantised ({tensor.dtype}), save it .dequantize()"
    if math.prod(tensor.shape) * tensor.itemsize > tensor.untyped_storage().nbytes():
        return f"{name} repeats values that are stored once ({tuple(tensor.shape)}), save it .contiguous()"
    try:
        _numpy(tensor[:0] if tensor.ndim else tensor)
    except (TypeError, RuntimeError):
        return f"{name} is of {str(tensor.dtype).removeprefix('torch.')}, which NumPy lacks: {_AS_SINGLE}"
    return ""


def _numpy(tensor: Any) -> np.ndarray:
    import torch

    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().resolve_conj().resolve_neg().numpy()


def _state(loaded: Any) -> dict[str, Any]:
    """The state dict, wherever a trainer put it."""
    import torch

    if not isinstance(loaded, Mapping):
        return {}
    inside = {key: found for key in _NESTED if key in loaded and (found := _state(loaded[key]))}
    if len(inside) > 1:
        raise ValueError(
            f"The file has several sets of weights: {', '.join(inside)}. Save the one that is meant on its own."
        )
    # beside weights within, tensors are what a trainer notes, such as the loss
    return next(
        iter(inside.values()), {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    )


def _forbidden(error: Exception) -> str:
    """What of a pickle is not allowed among weights; nothing where it is no whole pickle."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line.rstrip(".") for line in lines if any(word in line for word in _REFUSALS)), "")


def _is_cut_off(path: Path) -> bool:
    """Whether a file of pickles ends within one, its last word perhaps half a name; nothing is run to see it."""
    with path.open("rb") as file:
        try:
            while file.peek(1)[:1] == b"\x80":
                for _ in pickletools.genops(file):
                    pass
        except (ValueError, MemoryError, OverflowError):  # the last two of lengths that nobody has
            return True
    return False


def _reason(error: Exception) -> str:
    # behind this, PyTorch says what it found; before it, how to read the file all the same
    text = str(error).partition("WeightsUnpickler error:")[2].strip() or str(error).strip() or type(error).__name__
    return text.splitlines()[0].partition(". ")[0].rstrip(".")


def _float(array: np.ndarray) -> np.ndarray:
    small = array.dtype.itemsize < 4 and (array.dtype.kind == "f" or array.dtype.name == "bfloat16")
    return array.astype(np.float32) if small else array
