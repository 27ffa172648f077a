"""A start for a network that ends in dense layers: scaled convolutions, centred features, a ridge regression.

A brain differs little from the mean brain, and a dense layer on uncentred features spends its first thousands of
updates on their mean. So the features that enter the first dense layer are centred and scaled per feature with
constants from the data, and its first units start at the ridge regression of the targets on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsal.engine.lower import lower


class Centring(NamedTuple):
    """Constants of the features that enter the first dense layer: (f - mean) * scale, both float32[n]."""

    mean: jax.Array
    scale: jax.Array


def features(model: Any, x: jax.Array) -> jax.Array:
    """What enters the first dense layer, [b, n], for x[b, *space, c]."""
    for name, layer in model.named_layers():
        x = layer(x)
        if name == "flatten":
            return x
    raise ValueError("the network has no layer 'flatten': this start is for networks that end in dense layers")


def predict_centred(model: Any, centring: Centring, x: jax.Array) -> jax.Array:
    """The network with its features centred; :func:`fold` gives the plain network that computes the same."""
    x = (features(model, x) - centring.mean[None]) * centring.scale[None]
    names = [name for name, _ in model.named_layers()]
    for name, layer in model.named_layers()[names.index("flatten") + 1 :]:
        x = x if name.startswith("dropout") else layer(x)
    return x


def fold(model: Any, centring: Centring) -> None:
    """Put the centring into the first dense layer's kernel and bias, in place."""
    kernel = model.dense1.kernel.get_value() * centring.scale[:, None]
    model.dense1.kernel.set_value(kernel)
    model.dense1.bias.set_value(model.dense1.bias.get_value() - centring.mean @ kernel)


def scale_convolutions(model: Any, x: jax.Array) -> None:
    """Kernel and bias of each convolution such that every channel has mean 0 and variance 1 on x, in place.

    References:
        Krähenbühl et al., `Data-dependent initializations of convolutional neural networks
        <https://arxiv.org/abs/1511.06856>`_, 2016.
    """
    for name, layer in model.named_layers():
        if name == "flatten":
            return
        y = lower(layer)(x)
        if name.startswith("conv"):
            axes = tuple(range(y.ndim - 1))
            mean, sigma = y.mean(axes), y.std(axes) + 1e-6
            layer.kernel.set_value(layer.kernel.get_value() / sigma.reshape((1,) * (y.ndim - 1) + (-1,)))
            layer.bias.set_value((layer.bias.get_value() - mean) / sigma)
            y = (y - mean.reshape((1,) * (y.ndim - 1) + (-1,))) / sigma.reshape((1,) * (y.ndim - 1) + (-1,))
        x = y


def start(
    model: Any, batches: Iterable[tuple[jax.Array, jax.Array]], *, held_out: float = 0.25
) -> tuple[Centring, float]:
    """Centre the features and set the dense layers to a ridge regression, in place.

    With h = relu([w f, -w f, ...]) the first dense layer passes the regression on, the second takes differences,
    and the output reads them; their other units keep their random weights.

    Args:
        model: with layers ``flatten``, ``dense1``, ``dense2`` and ``output``.
        batches: images x[b, *space, c] and standardised targets z[b, k]; all fit into memory as features.
        held_out: share of the examples (the last ones) on which the penalty is chosen.

    Returns:
        The centring, and the mean R^2 of the regression on the held-out examples.
    """
    graph, params = nnx.split(model)
    extract = jax.jit(lambda p, x: lower(lambda p, x: features(nnx.merge(graph, p), x))(p, x))
    pairs = [(np.asarray(extract(params, x)), np.asarray(z)) for x, z in batches]
    f, z = (np.concatenate(part).astype(np.float64) for part in zip(*pairs, strict=True))
    mean, sigma = f.mean(0), f.std(0)
    # Features that never vary carry nothing; the factor keeps one update of all weights together small.
    scale = np.where(sigma > 1e-3, 1.0 / np.maximum(sigma, 1e-3), 0.0) * 3.0 / np.sqrt(f.shape[1])
    centred = (f - mean) * scale
    weights, quality = _ridge(centred, z, held_out)
    k = z.shape[1]
    pair = np.stack([weights, -weights], -1).reshape(len(weights), 2 * k)
    kernel, bias = (np.array(v.get_value()) for v in (model.dense1.kernel, model.dense1.bias))
    kernel[:, : 2 * k], bias[: 2 * k] = pair, 0.0
    _set(model.dense1, kernel * 1.0, bias)
    kernel = np.array(model.dense2.kernel.get_value())
    kernel[:, :k] = 0.0
    kernel[np.arange(2 * k), np.arange(2 * k) // 2] = np.tile([1.0, -1.0], k)
    _set(model.dense2, kernel, np.array(model.dense2.bias.get_value()))
    kernel = 0.1 * np.array(model.output.kernel.get_value())
    kernel[:k] = np.eye(k)
    _set(model.output, kernel, z.mean(0))
    return Centring(jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32)), quality


def _ridge(f: np.ndarray, z: np.ndarray, held_out: float) -> tuple[np.ndarray, float]:
    """Weights [n, k] of the ridge regression with the penalty that does best on the last examples."""
    count = round(len(f) * (1.0 - held_out))
    z = z - z.mean(0)
    gram = f @ f.T
    best, penalty = -np.inf, 1.0
    for candidate in np.trace(gram) / len(f) * np.logspace(-5, 1, 19):
        dual = np.linalg.solve(gram[:count, :count] + candidate * np.eye(count), z[:count])
        rest = z[count:] - gram[count:, :count] @ dual
        quality = float(np.mean(1.0 - (rest**2).mean(0) / z[count:].var(0)))
        if quality > best:
            best, penalty = quality, candidate
    return f.T @ np.linalg.solve(gram + penalty * np.eye(len(f)), z), best


def _set(layer: Any, kernel: np.ndarray, bias: np.ndarray) -> None:
    layer.kernel.set_value(jnp.asarray(kernel, jnp.float32))
    layer.bias.set_value(jnp.asarray(bias, jnp.float32))
