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
from .keras_errors import KerasError
from .keras_files import opened
from .keras_layers import network
from .keras_weights import flattened


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
    name = name or (path.parent.name if path.name == "model.json" else path.stem)
    with opened(path) as (model, weights, version, _):
        flat = flattened(weights)
        read = network(model, lambda layer: {key: f"{layer}.{key}" for key in weights.get(layer, {})})
        *space, channels = _whole(read.shape, shape, path)
        config = {"graph": read.graph, "weights": {key: _about(key, weight.shape) for key, weight in flat.items()}}
        count = _outputs(space, channels, config, path)
        # every shape is known to be what the layers need
        arrays = {key: weight.read() for key, weight in flat.items()}
    built = build(count, space, channels, config, arrays)
    compared: Sequence[Any] = (None, None)
    if source is not None:
        pictures = [random_images(space, channels), *map(np.asarray, images)]
        compared = compare(built, lambda image: np.asarray(source(image)), pictures, tolerance, name)
    layer = default_layer(built, space, channels)
    origin = {"source": f"Keras {version}", "file": path.name}
    record = described(name, "Graph", config, space, channels, outputs, count, layer, origin)
    return Conversion(built, record, *compared)


def _about(key: str, shape: Sequence[int]) -> dict[str, Any]:
    kind = "buffer" if "moving_" in key else "parameter"
    return {"kind": kind, "shape": list(shape), "dtype": "float32"}


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
    except NotImplementedError:
        raise
    except Exception as error:  # settings that make no sense fail in as many ways as there are rules
        raise KerasError(
            f"The layers of {path} do not fit together on a grid {' x '.join(map(str, space))} with {channels} "
            f"channels: {f'{error.__cause__ or error} '.splitlines()[0] or type(error).__name__}"
        ) from error
