"""Starts: convolutions scaled by data, and dense layers that sum a read-out of the last feature map."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsal.engine.lower import lower


def scale_convolutions(model: Any, x: Any) -> None:
    """Scale each convolution so that every channel has variance 1 and, with a bias, mean 0 on x, in place.

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
            y = y / sigma.reshape((1,) * (y.ndim - 1) + (-1,))
            if layer.bias is not None:
                layer.bias.set_value((layer.bias.get_value() - mean) / sigma)
                y = y - (mean / sigma).reshape((1,) * (y.ndim - 1) + (-1,))
        x = y


def sum_cells(model: Any, kernel: np.ndarray) -> None:
    """Let the dense layers start as a linear read-out without a constant: y = sum over cells of f[cell] @ kernel[cell].

    The first k units of each dense layer pass the k sums, which are positive, on; the other units keep their random
    weights, and nothing reads them yet.

    Args:
        model: with layers ``flatten``, ``dense1``, ``dense2`` and ``output``; changed in place.
        kernel: float[*cells, channels, k].
    """
    k = kernel.shape[-1]
    first = np.array(model.dense1.kernel.get_value())
    first[:, :k] = kernel.reshape(-1, k)
    second = np.array(model.dense2.kernel.get_value())
    second[:, :k] = 0.0
    second[:k] = 0.0
    second[:k, :k] = np.eye(k)
    last = np.zeros(model.output.kernel.get_value().shape)
    last[:k] = np.eye(k)
    layers: Any = ((model.dense1, first), (model.dense2, second), (model.output, last))
    for layer, weights in layers:
        layer.kernel.set_value(jnp.asarray(weights, jnp.float32))
        layer.bias.set_value(jnp.zeros(weights.shape[1]))
