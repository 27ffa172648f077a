"""Keras models on disk: HDF5, ``.keras`` and TensorFlow.js, read without TensorFlow and without running anything."""

import functools
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .keras_errors import KerasError, told
from .keras_hdf5 import h5py, held, stored, text, texts
from .keras_layers import check_layers, check_model, listed
from .keras_weights import PACKED, Stored, check_names, check_size, mismatch, numbered, owner, put, weight_names
from .matching import refuse

# a description packs far less than constant weights, and fills more than its length when it is read
_TEXT = 100
# of TensorFlow.js
_DTYPES = ("float32", "float16", "int32", "uint16", "uint8")


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


class Opened(NamedTuple):
    """What an open file states, before arrays are read.

    Attributes:
        model: configuration.
        weights: of each layer's name its weights by Keras's names.
        version: of Keras that wrote it.
        size: of all its files, in bytes.
    """

    model: Mapping[str, Any]
    weights: Mapping[str, Mapping[str, Stored]]
    version: str
    size: int


def read_keras(path: Path) -> KerasFile:
    """A model with its weights.

    Args:
        path: ``.h5`` or ``.hdf5``, ``.keras``, or TensorFlow.js' ``model.json`` beside its binary files.

    Raises:
        FileNotFoundError: if there is no such file.
        NotImplementedError: if layers have no rule: all are named.
        ValueError: if it is none of these, is damaged, or holds weights alone; if weights are missing, unknown or
            mis-shaped (all are named).
        ModuleNotFoundError: if h5py is not installed, for the first two.
    """
    with opened(path) as file:
        weights = {layer: {key: each.read() for key, each in held.items()} for layer, held in file.weights.items()}
        return KerasFile(file.model, weights, file.version)


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """A model whose weights are known to be those of its layers, and can be read while the file is open.

    Raises:
        FileNotFoundError, NotImplementedError, ValueError, ModuleNotFoundError: as :func:`read_keras`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No Keras model at {path}: give a .h5 or .keras file, or a model.json.")
    with ExitStack() as stack:
        with told(path):
            file = _reader(path)(path, stack)
            layers = tuple(listed(file.model))
            check_layers(layers)
            file = file._replace(weights=_one_name(file))
            problems = mismatch(layers, file.weights)
        refuse(path, *problems)
        check_size(file.weights, file.size, path)
        yield file


def _reader(path: Path) -> Callable[[Path, ExitStack], Opened]:
    if path.suffix == ".json":
        return _open_tfjs
    if zipfile.is_zipfile(path):
        return _open_zip
    if h5py().is_hdf5(path):
        return _open_h5
    raise KerasError(
        f"{path} is neither HDF5 nor a .keras archive, or is cut off: give what model.save wrote, or the model.json of "
        "tensorflowjs_converter."
    )


def _open_h5(path: Path, stack: ExitStack) -> Opened:
    file = stack.enter_context(h5py().File(path, "r"))
    if "model_config" not in file.attrs:
        raise KerasError(
            f"{path} holds weights but no model: save the whole model (model.save), not its weights alone."
        )
    model = _model(json.loads(text(file.attrs["model_config"])), path)
    groups, datasets = held(file, path)
    size = path.stat().st_size
    inside: dict[str, set[str]] = {}
    for layer in listed(model):
        inside.setdefault(layer.model[0] if layer.model else "", set()).add(layer.name)
    found: dict[str, dict[str, Stored]] = {}
    for top in texts(_group(groups, "model_weights", path), "layer_names", path):
        group = f"model_weights/{top}"
        for name in texts(_group(groups, group, path), "weight_names", path):
            dataset = datasets.pop(f"{group}/{name}", None)
            if dataset is not None:
                # a layer's own group says whose it is; in a model's one the name does
                layer, key = owner(name, inside.get(top, set()))
                put(found, layer if top in inside else top, key, stored(dataset, path), path)
    for name, dataset in datasets.items():
        if name.startswith("model_weights/"):
            put(found, *_apart(name), stored(dataset, path), path)
    return Opened(model, found, text(file.attrs.get("keras_version", "unknown")), size)


def _open_zip(path: Path, stack: ExitStack) -> Opened:
    size = path.stat().st_size
    archive = stack.enter_context(zipfile.ZipFile(path))
    model = _model(json.loads(_member(archive, "config.json", _TEXT * size, path)), path)
    version = _field(json.loads(_member(archive, "metadata.json", _TEXT * size, path)), "keras_version", str, path)
    content = _member(archive, "model.weights.h5", PACKED * size, path)
    groups, datasets = held(stack.enter_context(h5py().File(io.BytesIO(content), "r")), path)
    found: dict[str, dict[str, Stored]] = {}
    for group, layer in numbered(model):
        values = groups.get(f"{group}/vars")
        name = layer.name if values is None else text(values.attrs.get("name", layer.name))
        if name != layer.name:
            raise KerasError(
                f"{path} has the weights of layer {name!r} in {group!r}, where those of {layer.name!r} belong: it is "
                "damaged, or of a version of Keras that is not known here. Save it as .h5 instead."
            )
        for i, key in enumerate(weight_names(layer)):
            dataset = datasets.pop(f"{group}/vars/{i}", None)
            if dataset is not None:
                put(found, layer.name, key, stored(dataset, path), path)
    for name, dataset in datasets.items():
        # the state of training and of random numbers says nothing about predictions
        if not name.startswith("optimizer/") and "/seed_generator/" not in name:
            put(found, *_apart(name), stored(dataset, path), path)
    return Opened(model, found, version, size)


def _open_tfjs(path: Path, stack: ExitStack) -> Opened:
    del stack
    content = json.loads(path.read_text(encoding="utf-8"))
    topology = _field(content, "modelTopology", Mapping, path)
    config = _field(topology, "model_config", (Mapping, str), path)
    model = _model(json.loads(config) if isinstance(config, str) else config, path)
    manifest = _field(content, "weightsManifest", list, path)
    _check_shards([name for group in manifest for name in _field(group, "paths", list, path)], path)
    names = {layer.name for layer in listed(model)}
    found: dict[str, dict[str, Stored]] = {}
    total = 0
    for group in manifest:
        files = [path.parent / name for name in group["paths"]]
        start, size = 0, sum(file.stat().st_size for file in files)
        data = functools.cache(functools.partial(_joined, files))
        for spec in _field(group, "weights", list, path):
            name, shape = _field(spec, "name", str, path), tuple(_field(spec, "shape", list, path))
            if not all(type(n) is int and n >= 0 for n in shape):
                raise KerasError(f"The manifest of {path} gives weight {name!r} the shape {shape}: it is damaged.")
            quantised = spec.get("quantization", {})
            dtype = _dtype(quantised.get("dtype", spec.get("dtype")), name, path)
            end = start + math.prod(shape) * dtype.itemsize
            if end > size:
                raise KerasError(f"The binary files of {path} end before weight {name!r}: one is missing or cut off.")
            values = float(quantised.get("scale", 1.0)), float(quantised.get("min", 0.0))
            read = functools.partial(_decoded, data, start, shape, dtype, values, path)
            put(found, *owner(name, names), Stored(shape, read), path)
            start = end
        if start != size:
            raise KerasError(
                f"The binary files of {path} have {size} bytes, its manifest speaks of {start}: one of them is damaged "
                "or of another model."
            )
        total += size
    return Opened(model, found, str(topology.get("keras_version", "unknown")), total)


def _one_name(file: Opened) -> dict[str, Mapping[str, Stored]]:
    """Weights with the kernels of depthwise convolutions called so: of Keras 2 they have a name of their own."""
    depthwise = {layer.name for layer in listed(file.model) if layer.kind.startswith("DepthwiseConv")}

    def renamed(layer: str, weights: Mapping[str, Stored]) -> Mapping[str, Stored]:
        if layer not in depthwise or "kernel" in weights:
            return weights
        return {"kernel" if key == "depthwise_kernel" else key: weight for key, weight in weights.items()}

    return {layer: renamed(layer, weights) for layer, weights in file.weights.items()}


def _model(content: Any, path: Path) -> Mapping[str, Any]:
    _field(content, "class_name", str, path)
    check_model(content)
    check_names(tuple(listed(content)), path)
    return content


def _field(content: Any, name: str, kind: Any, path: Path) -> Any:
    """Of JSON, of the kind that it must be."""
    value = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(value, kind):
        given = f"as {type(value).__name__}" if isinstance(content, Mapping) and name in content else "nowhere"
        raise KerasError(
            f"{path} has {name!r} {given}, where a Keras model has it as "
            f"{getattr(kind, '__name__', 'Mapping or str')}: give what model.save or tensorflowjs_converter wrote."
        )
    return value


def _apart(name: str) -> tuple[str, str]:
    above, _, key = name.rpartition("/")
    return above, key


def _group(groups: Mapping[str, Any], name: str, path: Path) -> Any:
    if name not in groups:
        raise KerasError(f"{path} has no group {name!r}: it is damaged. Save the whole model again (model.save).")
    return groups[name]


def _member(archive: zipfile.ZipFile, name: str, most: int, path: Path) -> bytes:
    """A file of the archive, of so many bytes at most; no more is unpacked than it says that it has."""
    if name not in archive.namelist():
        raise KerasError(f"{path} has no {name!r} in it, as a .keras archive has: save the model again (model.save).")
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise KerasError(
            f"{path} has {name!r} packed in a way that Keras does not ({info.compress_type}), which is not read: save "
            "the model again (model.save)."
        )
    if info.file_size > most:
        raise KerasError(
            f"{path} has {name!r} in it, which would unpack to {info.file_size} bytes; {most} are the most for a file "
            "of its size: it is damaged, or made to fill the memory. Save the model again, without compression."
        )
    # not archive.read, which unpacks all that there is and then cuts it
    with archive.open(info) as file:
        return file.read(info.file_size + 1)


def _check_shards(names: list[Any], path: Path) -> None:
    """Files beside model.json, each read once."""
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
            raise KerasError(f"The manifest of {path} names {name!r}; only files beside model.json are read.")
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise KerasError(
            f"The manifest of {path} names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "beside it: put all binary files into one folder with model.json."
        )
    if len(set(names)) < len(names):
        raise KerasError(f"The manifest of {path} names a binary file twice: it is damaged, convert the model again.")


def _dtype(name: Any, weight: str, path: Path) -> np.dtype:
    if name not in _DTYPES:
        raise KerasError(
            f"The manifest of {path} gives weight {weight!r} the type {name!r}, one of {', '.join(_DTYPES)} is needed: "
            "convert the model again."
        )
    return np.dtype(name).newbyteorder("<")


def _joined(files: list[Path]) -> bytes:
    return b"".join(file.read_bytes() for file in files)


def _decoded(
    data: Callable[[], bytes],
    start: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    values: tuple[float, float],
    path: Path,
) -> np.ndarray:
    """An array of the binary files, ``scale array + min`` where it is quantised."""
    with told(path):
        array = np.frombuffer(data(), dtype, math.prod(shape), start).reshape(shape).astype(np.float32)
        scale, least = values
        return array if values == (1.0, 0.0) else array * np.float32(scale) + np.float32(least)
