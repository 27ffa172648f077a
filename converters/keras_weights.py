"""Which weights Keras's layers have: their names, order and shapes, checked before any is read."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .keras_errors import KerasError
from .keras_layers import MODELS, Layer, entries

# deflate packs 1030 bytes into one at most: what unpacks to more is made to fill the memory
PACKED = 1100

# weights of each class by position, as Keras 3 numbers them; without bias, scale or shift the numbers move up
_ORDER = {
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "LayerNormalization": ("gamma", "beta"),
    "SeparableConv": ("depthwise_kernel", "pointwise_kernel", "bias"),
}
# the setting without which a weight is not there
_SWITCHES = {"gamma": "scale", "beta": "center", "bias": "use_bias"}

T = TypeVar("T")


class Stored(NamedTuple):
    """A weight that lies in a file.

    Attributes:
        shape: that the file states.
        read: gives the array.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def weight_names(layer: Layer) -> list[str]:
    """Names of a layer's weights, in Keras's order."""
    kind = re.sub(r"\dD", "", layer.kind).removesuffix("Transpose")
    weighted = kind == "Dense" or "Conv" in kind
    order: Sequence[str] = _ORDER.get(kind, ("kernel", "bias") if weighted else ())
    return [name for name in order if layer.config.get(_SWITCHES.get(name, ""), True)]


def weight_shapes(layer: Layer) -> dict[str, tuple[int | None, ...]]:
    """Of each weight that a layer has its shape, as far as its configuration tells; None along other axes."""
    config, kind = layer.config, layer.kind
    window = tuple(config.get("kernel_size", ()))
    filters = config.get("filters") or config.get("units")
    shapes: dict[str, tuple[int | None, ...]] = {"bias": (filters,)}
    if "Depthwise" in kind:
        shapes = {"kernel": (*window, None, config.get("depth_multiplier", 1)), "bias": (None,)}
    elif "Separable" in kind:
        shapes["depthwise_kernel"] = (*window, None, config.get("depth_multiplier", 1))
        shapes["pointwise_kernel"] = (*(1 for _ in window), None, filters)
    elif "Transpose" in kind:
        shapes["kernel"] = (*window, filters, None)
    else:
        shapes["kernel"] = (*window, None, filters)
    return {name: shapes.get(name, (None,)) for name in weight_names(layer)}


class Mismatch(NamedTuple):
    """What of the weights does not fit the layers, for :func:`converters.matching.refuse`."""

    missing: list[str]
    extra: list[str]
    wrong: list[str]


def mismatch(layers: Sequence[Layer], weights: Mapping[str, Mapping[str, Stored]]) -> Mismatch:
    """Weights that are missing, unknown or of another shape than the layers' configuration says."""
    wanted = {layer.name: weight_shapes(layer) for layer in layers}
    missing, extra, wrong = [], [], []
    for layer, keys in wanted.items():
        given = weights.get(layer, {})
        missing += [f"{layer}/{key}" for key in keys if key not in given]
        extra += [f"{layer}/{key}" for key in given if key not in keys]
        wrong += [
            f"{layer}/{key} has shape {weight.shape}, {' x '.join('any' if n is None else str(n) for n in keys[key])} "
            "is needed"
            for key, weight in given.items()
            if key in keys and not _fits(weight.shape, keys[key])
        ]
    extra += [f"{layer}/{key}" for layer, given in weights.items() if layer not in wanted for key in given]
    return Mismatch(missing, extra, wrong)


def check_size(weights: Mapping[str, Mapping[str, Stored]], size: int, where: Any) -> None:
    """Refuse weights that state far more than the file can hold.

    Args:
        weights: of each layer's name its weights.
        size: of the file, in bytes.
        where: the file, for the message.

    Raises:
        KerasError: if they would fill more than :data:`PACKED` times its size.
    """
    stated = 4 * sum(math.prod(weight.shape) for weight in flattened(weights).values())
    if stated > PACKED * size:
        raise KerasError(
            f"{where} has {size} bytes, its weights would fill {stated} (more than {PACKED} times as much): it is "
            "damaged, or made to fill the memory. Save the model again, without compression."
        )


def check_names(layers: Sequence[Layer], where: Any) -> None:
    """Refuse layers with weights that cannot be told apart by name.

    Raises:
        KerasError: if two have one name.
    """
    names = [layer.name for layer in layers if weight_names(layer)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise KerasError(
            f"{where} has two layers of the name {', '.join(map(repr, twice))}, in different parts of the model: "
            "rename one and save again."
        )


def flattened(weights: Mapping[str, Mapping[str, T]]) -> dict[str, T]:
    """Weights by path, as ``conv.kernel``."""
    return {f"{layer}.{key}": weight for layer, each in weights.items() for key, weight in each.items()}


def owner(name: str, layers: set[str]) -> tuple[str, str]:
    """Layer and key of a weight by its whole name: names of layers can have parts themselves.

    Example:
        >>> owner("model/stem/conv/kernel:0", {"conv", "stem/conv"}), owner("conv/bias", {"conv"})
        (('stem/conv', 'kernel'), ('conv', 'bias'))
    """
    layer, _, key = re.sub(r":\d+$", "", name).rpartition("/")
    ends = (layer.split("/", cut)[cut] for cut in range(layer.count("/") + 1))
    return next((end for end in ends if end in layers), layer), key


def put(found: dict[str, dict[str, Stored]], layer: str, key: str, weight: Stored, where: Any) -> None:
    """File a weight under its layer.

    Raises:
        KerasError: if it has one of this name.
    """
    if key in found.setdefault(layer, {}):
        raise KerasError(
            f"{where} has the weight {key!r} of layer {layer!r} twice: two layers of its model have one name, or it is "
            "damaged. Give each layer a name of its own and save again."
        )
    found[layer][key] = weight


def numbered(model: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Of every layer the group that Keras 3 keeps its weights in: classes, counted in each model."""
    counts: dict[str, int] = {}
    for entry in entries(model):
        kind = entry["class_name"]
        if kind == "InputLayer" and model["class_name"] == "Sequential":
            continue
        snake = _snake(kind)
        number = counts[snake] = counts.get(snake, -1) + 1
        group = f"{prefix}layers/{snake}" + (f"_{number}" if number else "")
        if kind in MODELS:
            yield from numbered(entry, group + "/")
        elif kind != "InputLayer":
            yield group, Layer(entry["config"]["name"], kind, entry["config"], ())


def _snake(name: str) -> str:
    """As Keras writes a class in its files.

    Example:
        >>> _snake("DepthwiseConv2D"), _snake("ReLU"), _snake("BatchNormalization"), _snake("PReLU")
        ('depthwise_conv2d', 're_lu', 'batch_normalization', 'p_re_lu')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _fits(shape: Sequence[int], pattern: Sequence[int | None]) -> bool:
    return len(shape) == len(pattern) and all(n in (None, m) for m, n in zip(shape, pattern, strict=True))
