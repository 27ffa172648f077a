"""Gradients around an image: their mean, their mean square and their variance over noise."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxsal.attribution.accumulating import shape_of_maps, shares, total, variance, wide
from jaxsal.attribution.drawing import checked_key, checked_samples
from jaxsal.attribution.pulling import Choice, Outputs, Target, check_batch_size, choose, pull
from jaxsal.engine.lower import lower
from jaxsal.model import Model, as_pytree


def smooth_grad(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    samples: int = 25,
    noise: float = 0.15,
    clip: bool = False,
    key: jax.Array,
    batch_size: int | None = None,
) -> jax.Array:
    r"""SmoothGrad: the mean gradient over noise, ``1/n \sum_i g(x + e_i)``, ``e_i ~ N(0, (noise (max x - min x))^2)``.

    The noise level is the standard deviation as a share of the range of each image, over all its voxels and channels:
    0.15 of an image with values from -2 to 8 is 1.5; a constant image has no range and gets none. One draw of standard
    noise serves all images and all outputs, so that a map does not depend on what lies beside it in a batch; for
    independent noise use other keys.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> s[b]`` (pass the same
            object again: a new one is compiled anew), or None where there is only one output.
        outputs: ``"all"`` or positions, instead of a target: a map for each, from the same noise.
        samples: ``n``.
        noise: standard deviation as a share of the image's range.
        clip: whether noisy images are kept within the image's own range; it makes the noise smaller at its ends.
        key: random key, such as ``jax.random.key(0)``; the same key gives the same map.
        batch_size: gradients at once, of samples and outputs; None takes one sample at a time. The map is the
            same, up to rounding.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``.

    Raises:
        TypeError: if the model, the image, the target or the key is of a wrong kind.
        ValueError: if the image or the network cannot be explained, an output does not exist, or an option is out of
            its range.

    Reference:
        Smilkov, Thorat, Kim, Viegas and Wattenberg, 2017, https://doi.org/10.48550/arXiv.1706.03825

    Example:
        >>> def model(x):
        ...     return (x**2).sum(1)
        >>> x = jnp.array([[[1.0], [3.0]]])
        >>> smooth_grad(model, x, samples=400, key=jax.random.key(0)).round(1).ravel().tolist()
        [2.0, 6.0]
    """
    return _smoothed(_mean, model, x, target, outputs, samples, noise, clip, key, batch_size)


def smooth_grad_squared(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    samples: int = 25,
    noise: float = 0.15,
    clip: bool = False,
    key: jax.Array,
    batch_size: int | None = None,
) -> jax.Array:
    r"""SmoothGrad squared: the mean square of the gradient over noise, ``1/n \sum_i g(x + e_i)^2``.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: as for :func:`smooth_grad`, like all that follow.
        outputs: ``"all"`` or positions, instead of a target: a map for each, from the same noise.
        samples: ``n``.
        noise: standard deviation as a share of the image's range.
        clip: whether noisy images are kept within the image's own range.
        key: random key.
        batch_size: gradients at once; None takes one sample at a time.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``; never negative.

    Raises:
        TypeError: if the model, the image, the target or the key is of a wrong kind.
        ValueError: if the image or the network cannot be explained, an output does not exist, or an option is out of
            its range.

    Reference:
        Hooker, Erhan, Kindermans and Kim, NeurIPS 2019, https://doi.org/10.48550/arXiv.1806.10758

    Example:
        >>> def model(x):
        ...     return x.sum(1) @ jnp.array([[-3.0]])
        >>> smooth_grad_squared(model, jnp.ones((1, 2, 1)), key=jax.random.key(0)).ravel().tolist()
        [9.0, 9.0]
    """
    return _smoothed(_mean_square, model, x, target, outputs, samples, noise, clip, key, batch_size)


def var_grad(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    samples: int = 25,
    noise: float = 0.15,
    clip: bool = False,
    key: jax.Array,
    batch_size: int | None = None,
) -> jax.Array:
    r"""VarGrad: the variance of the gradient over noise, ``1/n \sum_i (g(x + e_i) - mean_j g(x + e_j))^2``.

    It is :func:`smooth_grad_squared` less the square of :func:`smooth_grad` with the same key, and 0 for a linear
    network.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: as for :func:`smooth_grad`, like all that follow.
        outputs: ``"all"`` or positions, instead of a target: a map for each, from the same noise.
        samples: ``n``, at least 2.
        noise: standard deviation as a share of the image's range.
        clip: whether noisy images are kept within the image's own range.
        key: random key.
        batch_size: gradients at once; None takes one sample at a time.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``; never negative.

    Raises:
        TypeError: if the model, the image, the target or the key is of a wrong kind.
        ValueError: if the image or the network cannot be explained, an output does not exist, or an option is out of
            its range.

    Reference:
        Adebayo, Gilmer, Goodfellow and Kim, ICLR workshop 2018, https://doi.org/10.48550/arXiv.1810.03307

    Example:
        >>> def model(x):
        ...     return x.sum(1) @ jnp.array([[-3.0]])
        >>> var_grad(model, jnp.ones((1, 2, 1)), key=jax.random.key(0)).ravel().tolist()
        [0.0, 0.0]
    """
    if samples < 2:
        raise ValueError(f"samples got {samples}, at least 2 are needed for a variance.")
    return _smoothed(_variance, model, x, target, outputs, samples, noise, clip, key, batch_size)


def _mean(gradient: Any, keys: jax.Array, shape: tuple[int, ...], at_once: int, dtype: Any) -> jax.Array:
    return total(gradient, keys, jnp.full(len(keys), 1 / len(keys), dtype), shape, at_once)


def _mean_square(gradient: Any, keys: jax.Array, shape: tuple[int, ...], at_once: int, dtype: Any) -> jax.Array:
    return _mean(lambda key: gradient(key) ** 2, keys, shape, at_once, dtype)


def _variance(gradient: Any, keys: jax.Array, shape: tuple[int, ...], at_once: int, dtype: Any) -> jax.Array:
    return variance(gradient, keys, len(keys), shape, at_once, dtype)


def _smoothed(
    statistic: Callable[..., jax.Array],
    model: Model,
    x: jax.Array,
    target: Target,
    outputs: Outputs,
    samples: int,
    noise: Any,
    clip: bool,
    key: jax.Array,
    batch_size: int | None,
) -> jax.Array:
    choice = choose(model, x, target, outputs)
    check_batch_size(batch_size)
    if not isinstance(noise, jax.core.Tracer) and not (np.ndim(noise) == 0 and np.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise got {noise!r}, a share of the image's range is needed: a finite number, at least 0.")
    samples = checked_samples(samples)
    return _over_noise(statistic, samples, clip, batch_size, as_pytree(model), x, choice, noise, checked_key(key))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _over_noise(
    statistic: Callable[..., jax.Array],
    samples: int,
    clip: bool,
    batch_size: int | None,
    model: Model,
    x: jax.Array,
    choice: Choice,
    noise: Any,
    key: jax.Array,
) -> jax.Array:
    points, at_once = shares(batch_size, choice)
    axes = tuple(range(1, x.ndim))
    low, high = x.min(axes, keepdims=True), x.max(axes, keepdims=True)
    std = jnp.asarray(noise, x.dtype) * (high - low)

    def gradient(key: jax.Array) -> jax.Array:
        noisy = x + std * jax.random.normal(key, (1, *x.shape[1:]), x.dtype)
        noisy = jnp.clip(noisy, low, high) if clip else noisy
        return pull(lower(model), noisy, choice, batch_size=at_once)

    keys = jax.random.split(key, samples)
    return statistic(gradient, keys, shape_of_maps(x, choice), points, wide(x.dtype)).astype(x.dtype)
