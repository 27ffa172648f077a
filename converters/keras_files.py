"""Keras models on disk: HDF5, ``.keras`` and TensorFlow.js, read without TensorFlow and without running anything."""

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .keras_layers import MODELS, Layer, listed

# weights of each class by position, as Keras 3 numbers them; without bias, scale or shift the numbers move up
_ORDER = {
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "LayerNormalization": ("gamma", "beta"),
    "SeparableConv": ("depthwise_kernel", "pointwise_kernel", "bias"),
}
# the setting without which a weight is not there
_SWITCHES = {"gamma": "scale", "beta": "center", "bias": "use_bias"}


class KerasFile(NamedTuple):
    """What a file holds.

    Attributes:
        model: configuration.
        weights: of each layer's name its arrays by Keras's names, such as ``kernel``.
        version: of Keras that wrote it.
    """

    model: Mapping[str, Any]
    weights: Mapping[str, Mapping[str, np.ndarray]]
    version: str


def read_keras(path: Path) -> KerasFile:
    """A model with its weights.

    Args:
        path: ``.h5`` or ``.hdf5``, ``.keras``, or TensorFlow.js' ``model.json`` beside its binary files.

    Raises:
        ValueError: if it is none of these, is damaged, or holds weights alone.
        ModuleNotFoundError: if h5py is not installed, for the first two.
    """
    read = _read_tfjs if path.suffix == ".json" else _read_zip if zipfile.is_zipfile(path) else _read_h5
    found = read(path)
    return found._replace(weights=_one_name(found))


def _read_h5(path: Path) -> KerasFile:
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            if text is None:
                raise ValueError(
                    f"{path} holds weights but no model: save the whole model (model.save), not its weights alone."
                )
            model = json.loads(_text(text))
            version = _text(file.attrs.get("keras_version", "unknown"))
            groups = file["model_weights"]
            found: dict[str, dict[str, np.ndarray]] = {}
            for top in groups:
                for name in groups[top].attrs.get("weight_names", ()):
                    _put(found, _text(name), _array(groups[top], _text(name), path), path)
    except OSError as error:
        raise ValueError(f"{path} is not a readable HDF5 file: {error}.") from None
    return KerasFile(model, found, version)


def _read_zip(path: Path) -> KerasFile:
    h5py = _h5py()
    try:
        with zipfile.ZipFile(path) as archive:
            model = json.loads(archive.read("config.json"))
            version = json.loads(archive.read("metadata.json")).get("keras_version", "unknown")
            content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content, "r") as file:
            found = {}
            for group, layer in _numbered(model):
                names = _names(layer)
                values = file.get(f"{group}/vars")
                arrays = [] if values is None else [_array(values, str(i), path) for i in range(len(values))]
                if len(arrays) != len(names):
                    raise ValueError(
                        f"{path} has {len(arrays)} weights for layer {layer.name!r} ({layer.kind}), {len(names)} are "
                        f"needed ({', '.join(names) or 'none'}): it is damaged, or of a version of Keras that is not "
                        "known here. Save it as .h5 instead."
                    )
                if names and layer.name in found:
                    raise ValueError(
                        f"{path} has two layers {layer.name!r}, in models within the model: give layers names of their "
                        "own and save it again."
                    )
                if names:
                    found[layer.name] = dict(zip(names, arrays, strict=True))
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ValueError(f"{path} is not a readable .keras file: {error}.") from None
    return KerasFile(model, found, version)


def _read_tfjs(path: Path) -> KerasFile:
    try:
        content = json.loads(path.read_text())
        model = content["modelTopology"]["model_config"]
        found: dict[str, dict[str, np.ndarray]] = {}
        for group in content["weightsManifest"]:
            data = b"".join((path.parent / _beside(name)).read_bytes() for name in group["paths"])
            start = 0
            for spec in group["weights"]:
                array, start = _decoded(spec, data, start, path)
                _put(found, spec["name"], array, path)
            if start != len(data):
                raise ValueError(
                    f"The binary files of {path} have {len(data)} bytes, its manifest speaks of {start}: one of them "
                    "is damaged or of another model."
                )
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not a TensorFlow.js layers model ({type(error).__name__}: {error}): give the model.json that "
            "tensorflowjs_converter wrote from a Keras model."
        ) from None
    version = content["modelTopology"].get("keras_version", "unknown")
    return KerasFile(model if isinstance(model, Mapping) else json.loads(model), found, version)


def _one_name(file: KerasFile) -> dict[str, Mapping[str, np.ndarray]]:
    """Weights with the kernels of depthwise convolutions called so: of Keras 2 they have a name of their own."""
    depthwise = {layer.name for layer in listed(file.model) if layer.kind.startswith("DepthwiseConv")}
    return {
        layer: {"kernel" if layer in depthwise and key == "depthwise_kernel" else key: a for key, a in arrays.items()}
        for layer, arrays in file.weights.items()
    }


def _array(group: Any, name: str, path: Path) -> np.ndarray:
    """Weights that lie in the file itself: HDF5 can point at other files, which are not this model's to read."""
    import h5py

    here = group
    for part in name.split("/"):
        if not isinstance(here.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{path} has no weights {name!r} of its own: it is damaged, or points at another file.")
        here = here[part]
    if not isinstance(here, h5py.Dataset) or here.external is not None or here.is_virtual:
        raise ValueError(f"{path} keeps the weights {name!r} in another file, which is not read: save the model again.")
    return np.asarray(here)


def _decoded(spec: Mapping[str, Any], data: bytes, start: int, path: Path) -> tuple[np.ndarray, int]:
    """An array of the binary file, and where the next one begins."""
    quantised = spec.get("quantization", {})
    dtype = np.dtype(quantised.get("dtype", spec["dtype"])).newbyteorder("<")
    count = int(np.prod(spec["shape"], dtype=int))
    end = start + count * dtype.itemsize
    if end > len(data):
        raise ValueError(f"The binary files of {path} end before weight {spec['name']!r}: one is missing or cut off.")
    array = np.frombuffer(data, dtype, count, start).reshape(spec["shape"]).astype(np.float32)
    if "scale" in quantised:
        array = array * np.float32(quantised["scale"]) + np.float32(quantised["min"])
    return array, end


def _beside(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"The manifest names {name!r}; only files beside model.json are read.")
    return name


def _put(found: dict[str, dict[str, np.ndarray]], name: str, array: np.ndarray, path: Path) -> None:
    """File a weight, ``layer/kernel:0`` with or without models in front, under its layer."""
    layer, _, key = name.partition(":")[0].rpartition("/")
    layer = layer.rpartition("/")[2]
    if key in found.setdefault(layer, {}):
        raise ValueError(
            f"{path} has two layers of the name {layer!r}, in different parts of the model: rename one and save again."
        )
    found[layer][key] = array


def _numbered(model: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Of every layer the group that Keras 3 keeps its weights in: classes, counted in each model."""
    counts: dict[str, int] = {}
    for entry in model["config"]["layers"]:
        kind = entry["class_name"]
        if kind == "InputLayer" and model["class_name"] == "Sequential":
            continue
        snake = _snake(kind)
        number = counts[snake] = counts.get(snake, -1) + 1
        group = f"{prefix}layers/{snake}" + (f"_{number}" if number else "")
        if kind in MODELS:
            yield from _numbered(entry, group + "/")
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


def _names(layer: Layer) -> list[str]:
    kind = re.sub(r"\dD", "", layer.kind).removesuffix("Transpose")
    weighted = kind == "Dense" or "Conv" in kind
    order: Sequence[str] = _ORDER.get(kind, ("kernel", "bias") if weighted else ())
    return [name for name in order if layer.config.get(_SWITCHES.get(name, ""), True)]


def expected(layer: Layer) -> dict[str, tuple[int | None, ...]]:
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
    return {name: shapes.get(name, (None,)) for name in _names(layer)}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Keras files are read with h5py, which is not installed: pip install 'jaxsal[keras]'."
        ) from None
    return h5py
