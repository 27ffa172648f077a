"""A small 3-D network with reference attributions in float64, rebuilt from its weights, channel-last."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial


class Golden(NamedTuple):
    """The network, its images and what is known of them; build it with double precision on.

    Attributes:
        model: ``x[2, 8, 8, 8, 1] -> y[2, 2]``, a pytree of weights.
        x: images.
        y: the network's outputs as recorded.
        maps: recorded arrays by name, e.g. ``"gradient/t0"``: maps are channel-last ``[2, 8, 8, 8, 1]``.
    """

    model: Callable[[jax.Array], jax.Array]
    x: jax.Array
    y: np.ndarray
    maps: dict[str, np.ndarray]


def golden(shared: Path) -> Golden:
    """conv + bias, BatchNorm, ReLU, max-pool; conv, BatchNorm, ReLU, average pool; dense."""
    with np.load(shared / "goldens" / "seq3d.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    weights = {name.removeprefix("param/"): arrays.pop(name) for name in list(arrays) if name.startswith("param/")}
    x, y = arrays.pop("x"), arrays.pop("y")
    params = {name: jnp.asarray(value) for name, value in weights.items() if "num_batches" not in name}
    for name in ("c1.weight", "c2.weight"):
        params[name] = params[name].transpose(2, 3, 4, 1, 0)
    maps = {name: np.moveaxis(value, 1, -1) if value.ndim == 5 else value for name, value in arrays.items()}
    return Golden(Partial(_network, params), jnp.asarray(np.moveaxis(x, 1, -1)), y, maps)


def _network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    h = _convolution(x, params["c1.weight"]) + _per_channel(params["c1.bias"])
    h = jax.nn.relu(_norm(params, "b1", h))
    h = lax.reduce_window(h, -jnp.inf, lax.max, _TWO, _TWO, "VALID")
    h = jax.nn.relu(_norm(params, "b2", _convolution(h, params["c2.weight"])))
    h = lax.reduce_window(h, 0.0, lax.add, _TWO, _TWO, "VALID") / 8
    h = jnp.moveaxis(h, -1, 1).reshape(len(h), -1)  # channels first, as the weights of the dense layer expect
    return h @ params["fc.weight"].T + params["fc.bias"][None]


_TWO = (1, 2, 2, 2, 1)


def _convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))


def _norm(params: dict[str, jax.Array], name: str, h: jax.Array) -> jax.Array:
    mean, variance, scale, bias = (
        _per_channel(params[f"{name}.{part}"]) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (h - mean) / jnp.sqrt(variance + 1e-5) * scale + bias


def _per_channel(values: jax.Array) -> jax.Array:
    return values.reshape(1, 1, 1, 1, -1)
