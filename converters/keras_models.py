"""Keras and TensorFlow.js models as JAX networks."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsal.graph import Graph
from jaxsal.zoo import Output

from .building import build, default_layer
from .checking import Conversion, compare, described, random_images
from .keras_files import expected, read_keras
from .keras_layers import Layer, check_layers, listed, network
from .matching import refuse


def from_keras(
    path: str | os.PathLike,
    *,
    name: str | None = None,
    shape: Sequence[int] | None = None,
    outputs: Sequence[str | Output] | None = None,
    source: Callable[[np.ndarray], Any] | None = None,
    images: Sequence[Any] = (),
    tolerance: float = 1e-4,
) -> Conversion:
    """A Keras model in JAX, with its weights; neither TensorFlow nor Keras is needed, and no code of the file is run.

    Args:
        path: ``.h5``, ``.keras``, or TensorFlow.js' ``model.json`` beside its binary files.
        name: of the network; the file's otherwise.
        shape: grid of the input, in voxels, for models that take any, or another one where they are convolutions only.
        outputs: names of the outputs, or what they are.
        source: the model in Keras, ``[b, *space, c] -> y``, to be compared with, where Keras is at hand.
        images: for the comparison, besides noise.
        tolerance: see :func:`jaxsal.converters.checking.compare`.

    Returns:
        Network, record and, with ``source``, the largest difference. Every layer has its name as a tag for
        :func:`jaxsal.split`.

    Raises:
        FileNotFoundError: if there is no such file.
        NotImplementedError: if layers have no rule: all are named.
        ValueError: if the file cannot be read, weights are missing, unknown or mis-shaped (all are named), or the check
            fails.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No Keras model at {path}: give a .h5 or .keras file, or a model.json.")
    name = name or (path.parent.name if path.name == "model.json" else path.stem)
    model, weights, version = read_keras(path)
    layers = tuple(listed(model))
    check_layers(layers)
    check_weights(layers, weights, path)
    flat = flattened(weights)
    read = network(model, lambda layer: {key: f"{layer}.{key}" for key in weights.get(layer, {})})
    *space, channels = _whole(read.shape, shape, path)
    config = {"graph": read.graph, "weights": {key: _about(key, array) for key, array in flat.items()}}
    count = _outputs(space, channels, config, path)
    built = build(count, space, channels, config, flat)
    compared: Sequence[Any] = (None, None)
    if source is not None:
        pictures = [random_images(space, channels), *map(np.asarray, images)]
        compared = compare(built, lambda image: np.asarray(source(image)), pictures, tolerance, name)
    layer = default_layer(built, space, channels)
    origin = {"source": f"Keras {version}", "file": path.name}
    record = described(name, "Graph", config, space, channels, outputs, count, layer, origin)
    return Conversion(built, record, *compared)


def check_weights(layers: Sequence[Layer], weights: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """Refuse weights that are missing, unknown or of another shape than the layers' configuration says.

    Raises:
        ValueError: all of them are named.
    """
    wanted = {layer.name: expected(layer) for layer in layers}
    missing, extra, wrong = [], [], []
    for layer, keys in wanted.items():
        given = weights.get(layer, {})
        missing += [f"{layer}/{key}" for key in keys if key not in given]
        extra += [f"{layer}/{key}" for key in given if key not in keys]
        wrong += [
            f"{layer}/{key} has shape {array.shape}, {' x '.join('any' if n is None else str(n) for n in keys[key])} "
            "is needed"
            for key, array in given.items()
            if key in keys and not _fits(array.shape, keys[key])
        ]
    extra += [f"{layer}/{key}" for layer, given in weights.items() if layer not in wanted for key in given]
    refuse(path, missing, extra, wrong)


def flattened(weights: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Weights by path, as ``conv.kernel``."""
    return {f"{layer}.{key}": array for layer, arrays in weights.items() for key, array in arrays.items()}


def _fits(shape: Sequence[int], pattern: Sequence[int | None]) -> bool:
    return len(shape) == len(pattern) and all(n in (None, m) for m, n in zip(shape, pattern, strict=True))


def _about(key: str, array: np.ndarray) -> dict[str, Any]:
    kind = "buffer" if "moving_" in key else "parameter"
    return {"kind": kind, "shape": list(array.shape), "dtype": "float32"}


def _whole(given: Sequence[int | None], shape: Sequence[int] | None, path: Path) -> tuple[int, ...]:
    """Shape of the image ``[*space, c]``."""
    *space, channels = given
    if shape is not None:
        if len(shape) != len(space):
            raise ValueError(f"The grid {tuple(shape)} has {len(shape)} axes, the images of {path} have {len(space)}.")
        space = list(shape)
    if None in (*space, channels):
        raise ValueError(
            f"The model in {path} takes images of any size ({given}): say which grid is wanted, shape=(...)."
        )
    return (*space, channels)  # type: ignore[return-value]


def _outputs(space: Sequence[int], channels: int, config: Mapping[str, Any], path: Path) -> int:
    """Number of outputs; what does not fit together is found here, before anything is computed."""
    example = jax.ShapeDtypeStruct((1, *space, channels), np.float32)

    def outputs(x: jax.Array) -> jax.Array:
        return Graph(0, shape=space, channels=channels, **config)(x)

    try:
        return jax.eval_shape(outputs, example).shape[-1]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The layers of {path} do not fit together on a grid {' x '.join(map(str, space))} with {channels} "
            f"channels: {str(error).splitlines()[0]}"
        ) from error
