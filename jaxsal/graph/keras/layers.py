"""Keras's layers as functions of arrays ``[b, *space, c]``."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsal.graph.windows import along_axis, sum_over_windows

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "mish": jax.nn.mish,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "exponential": jnp.exp,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2),
}


def convolution(
    x: jax.Array,
    *,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    strides: Sequence[int] = (1,),
    padding: str = "valid",
    dilation_rate: Sequence[int] = (1,),
    groups: int = 1,
    activation: str = "linear",
) -> jax.Array:
    """Kernel ``[*window, c / groups, c']``; 'same' pads more behind than before where it cannot be even."""
    rank = x.ndim - 2
    out = lax.conv_general_dilated(
        x,
        kernel,
        _each(strides, rank),
        "SAME" if padding == "same" else "VALID",
        rhs_dilation=_each(dilation_rate, rank),
        dimension_numbers=_dimensions(rank),
        feature_group_count=groups,
    )
    return _finished(out, bias, activation)


def depthwise(
    x: jax.Array, *, kernel: jax.Array | None = None, depthwise_kernel: jax.Array | None = None, **options: Any
) -> jax.Array:
    """Every channel on its own; the kernel ``[*window, c, m]`` has several outputs for each."""
    kernel = depthwise_kernel if kernel is None else kernel
    assert kernel is not None
    *window, c, m = kernel.shape
    return convolution(x, kernel=kernel.reshape(*window, 1, c * m), groups=c, **options)


def separable(
    x: jax.Array,
    *,
    depthwise_kernel: jax.Array,
    pointwise_kernel: jax.Array,
    bias: jax.Array | None = None,
    activation: str = "linear",
    **options: Any,
) -> jax.Array:
    """Every channel on its own, then mixed voxel by voxel."""
    x = depthwise(x, kernel=depthwise_kernel, **options)
    return convolution(x, kernel=pointwise_kernel, bias=bias, activation=activation)


def transposed(
    x: jax.Array,
    *,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    strides: Sequence[int] = (1,),
    padding: str = "valid",
    activation: str = "linear",
) -> jax.Array:
    """Kernel ``[*window, c', c]``."""
    rank = x.ndim - 2
    mode = "SAME" if padding == "same" else "VALID"
    dims = _dimensions(rank)
    out = lax.conv_transpose(
        x, kernel, _each(strides, rank), mode, dimension_numbers=dims, transpose_kernel=True
    )  # fmt: skip
    return _finished(out, bias, activation)


def dense(x: jax.Array, *, kernel: jax.Array, bias: jax.Array | None = None, activation: str = "linear") -> jax.Array:
    """``x @ kernel + bias``."""
    return _finished(x @ kernel, bias, activation)


def batch_norm(
    x: jax.Array, *, moving_mean: jax.Array, moving_variance: jax.Array, axis: int = -1, **options: Any
) -> jax.Array:
    """As it predicts: each channel by the mean and variance that it had in training."""
    _check_channels(axis, x)
    return _standardised(x, _last(moving_mean, x), _last(moving_variance, x), **options)


def layer_norm(x: jax.Array, *, axis: int = -1, **options: Any) -> jax.Array:
    """Each voxel by the mean and variance of its channels."""
    _check_channels(axis, x)
    mean = x.mean(-1, keepdims=True)
    return _standardised(x, mean, jnp.square(x - mean).mean(-1, keepdims=True), **options)


def _standardised(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    *,
    gamma: jax.Array | None = None,
    beta: jax.Array | None = None,
    epsilon: float = 1e-3,
) -> jax.Array:
    """``gamma (x - mean) / sqrt(variance + epsilon) + beta``."""
    scale = lax.rsqrt(variance + epsilon)
    x = (x - mean) * (scale if gamma is None else scale * _last(gamma, x))
    return x if beta is None else x + _last(beta, x)


def _check_channels(axis: int, x: jax.Array) -> None:
    if axis not in (-1, x.ndim - 1):
        raise NotImplementedError(
            f"A Keras layer normalises along axis {axis} of {x.ndim}: only the last one, that of channels, has a rule. "
            "Permute the axes before it, and save the model again."
        )


def activate(x: jax.Array, *, activation: str) -> jax.Array:
    """By name."""
    return ACTIVATIONS[activation](x)


def relu(
    x: jax.Array, *, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0
) -> jax.Array:
    """With a slope below the threshold, and cut off above."""
    if threshold:
        x = jnp.where(x >= threshold, x, negative_slope * (x - threshold))
    elif negative_slope:
        x = jax.nn.leaky_relu(x, negative_slope)
    elif max_value == 6:
        return jax.nn.relu6(x)
    else:
        x = jax.nn.relu(x)
    return x if max_value is None else jnp.minimum(x, max_value)


def softmax(x: jax.Array, *, axis: int = -1) -> jax.Array:
    """Exponentials that sum to 1."""
    return jax.nn.softmax(x, axis)


def max_pool(
    x: jax.Array, *, pool_size: Sequence[int], strides: Sequence[int] | None = None, padding: str = "valid"
) -> jax.Array:
    """The largest of each window."""
    rank = x.ndim - 2
    window = _each(pool_size, rank)
    strides = _each(strides or window, rank)
    mode = "SAME" if padding == "same" else "VALID"
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), mode)


def avg_pool(
    x: jax.Array, *, pool_size: Sequence[int], strides: Sequence[int] | None = None, padding: str = "valid"
) -> jax.Array:
    """The mean of each window; what is padded does not count."""
    rank = x.ndim - 2
    window = _each(pool_size, rank)
    strides = _each(strides or window, rank)
    mode = "SAME" if padding == "same" else "VALID"
    pads = lax.padtype_to_pads(x.shape[1:-1], window, strides, mode)
    out = sum_over_windows(x, window, strides, pads)
    for axis, (k, s, (before, _)) in enumerate(zip(window, strides, pads, strict=True), start=1):
        first = np.arange(out.shape[axis]) * s - before
        counts = np.minimum(first + k, x.shape[axis]) - np.maximum(first, 0)
        whole = bool((counts == counts[0]).all())
        out = out / float(counts[0]) if whole else out * along_axis(1 / counts, axis, out.ndim, out.dtype)
    return out


def global_mean(x: jax.Array, *, keepdims: bool = False) -> jax.Array:
    """Over all voxels."""
    return x.mean(tuple(range(1, x.ndim - 1)), keepdims=keepdims)


def global_max(x: jax.Array, *, keepdims: bool = False) -> jax.Array:
    """Over all voxels."""
    return x.max(tuple(range(1, x.ndim - 1)), keepdims=keepdims)


def pad(x: jax.Array, *, padding: Any) -> jax.Array:
    """Zeros beside the image."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((a, b, 0) for a, b in _pairs(padding, x)), (0, 0, 0)])


def crop(x: jax.Array, *, cropping: Any) -> jax.Array:
    """Less of the image."""
    for axis, (before, after) in enumerate(_pairs(cropping, x), start=1):
        x = lax.slice_in_dim(x, before, x.shape[axis] - after, axis=axis)
    return x


def upsample(x: jax.Array, *, size: Sequence[int], interpolation: str = "nearest") -> jax.Array:
    """Every voxel repeated, or linear between them."""
    factors = _each(size, x.ndim - 2)
    if interpolation == "bilinear":
        grid = (n * k for n, k in zip(x.shape[1:-1], factors, strict=True))
        return jax.image.resize(x, (x.shape[0], *grid, x.shape[-1]), "bilinear", antialias=False)
    for axis, factor in enumerate(factors, start=1):
        x = jnp.repeat(x, factor, axis, total_repeat_length=x.shape[axis] * factor)
    return x


def reshape(x: jax.Array, *, target_shape: Sequence[int]) -> jax.Array:
    """Another shape of each image."""
    return x.reshape(x.shape[0], *target_shape)


def permute(x: jax.Array, *, dims: Sequence[int]) -> jax.Array:
    """Other order of axes, counted from 1."""
    return x.transpose(0, *dims)


def flatten(x: jax.Array) -> jax.Array:
    """Each image in a row."""
    return x.reshape(x.shape[0], -1)


def combined(fn: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """Several values, one after the other, by a function of two."""

    def layer(first: jax.Array, *rest: jax.Array) -> jax.Array:
        for each in rest:
            first = fn(first, each)
        return first

    return layer


def average(*values: jax.Array) -> jax.Array:
    """Mean of several values."""
    return combined(jnp.add)(*values) / len(values)


def concatenate(*values: jax.Array, axis: int = -1) -> jax.Array:
    """Side by side."""
    return jnp.concatenate(values, axis)


def rescale(x: jax.Array, *, scale: float, offset: float = 0.0) -> jax.Array:
    """``x scale + offset``."""
    return x * scale + offset


def _finished(out: jax.Array, bias: jax.Array | None, activation: str) -> jax.Array:
    return ACTIVATIONS[activation](out if bias is None else out + _last(bias, out))


def _last(values: jax.Array, x: jax.Array) -> jax.Array:
    """One value for each channel; a single one would spread over all of them, unasked."""
    if values.shape != x.shape[-1:]:
        raise ValueError(f"a layer has {values.shape} values for {x.shape[-1]} channels")
    return values.reshape((1,) * (x.ndim - 1) + (-1,))


def _each(values: Sequence[int] | int, rank: int) -> tuple[int, ...]:
    values = (values,) if isinstance(values, int) else tuple(values)
    return values * rank if len(values) == 1 else values


def _dimensions(rank: int) -> tuple[str, str, str]:
    space = "DHW"[-rank:]
    return f"N{space}C", f"{space}IO", f"N{space}C"


def _pairs(values: Any, x: jax.Array) -> list[tuple[int, int]]:
    """Pads of one number, one for each axis, or two for each axis."""
    rank = x.ndim - 2
    if isinstance(values, int):
        return [(values, values)] * rank
    if rank == 1 and all(isinstance(value, int) for value in values):
        return [tuple(values) * (2 // len(values))]  # type: ignore[list-item]
    return [(value, value) if isinstance(value, int) else tuple(value) for value in values]  # type: ignore[misc]
