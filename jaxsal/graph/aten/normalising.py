"""Normalisation: by statistics that were learned, and by those of the image itself."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxsal.graph.laid import Laid, aligned, channel_last, from_channel_last, plain


def batch_norm(
    x: Laid,
    weight: Laid | None,
    bias: Laid | None,
    mean: Laid,
    variance: Laid,
    momentum: float,
    eps: float,
) -> tuple[Laid]:
    """As it predicts, ``(x - mean) weight / sqrt(variance + eps) + bias``; the momentum is for training."""
    scale = lax.rsqrt(variance.array + eps)
    scale = scale if weight is None else scale * weight.array.astype(scale.dtype)
    out = _of_channel(x, mean.array, lambda x, m: x - m)
    out = _of_channel(out, scale, lambda x, s: x * s)
    return (out if bias is None else _of_channel(out, bias.array, lambda x, b: x + b),)


def group_norm(
    x: Laid, groups: int, weight: Laid | None = None, bias: Laid | None = None, eps: float = 1e-5, _: bool = True
) -> Laid:
    """Channels in groups, each to mean 0 and variance 1 of its voxels in one image."""
    a = channel_last(x)
    grouped = a.reshape(*a.shape[:-1], groups, a.shape[-1] // groups)
    space = tuple(range(1, a.ndim - 1))
    out = from_channel_last(_normalised(grouped, (*space, a.ndim), eps).reshape(a.shape))
    return _scaled(out, weight, bias)


def native_group_norm(
    x: Laid, weight: Laid | None, bias: Laid | None, n: int, c: int, hw: int, groups: int, eps: float
) -> tuple[Laid]:
    """:func:`group_norm` as the core operations have it."""
    return (group_norm(x, groups, weight, bias, eps),)


def instance_norm(
    x: Laid,
    weight: Laid | None,
    bias: Laid | None,
    mean: Laid | None,
    variance: Laid | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    _: bool = True,
) -> Laid:
    """Each channel of each image to mean 0 and variance 1, or as BatchNorm where statistics were learned."""
    if not use_input_stats and mean is not None and variance is not None:
        return batch_norm(x, weight, bias, mean, variance, momentum, eps)[0]
    space = tuple(x.position(axis) for axis in range(2, x.ndim))
    return _scaled(Laid(_normalised(x.array, space, eps), x.order), weight, bias)


def layer_norm(
    x: Laid,
    shape: Sequence[int],
    weight: Laid | None = None,
    bias: Laid | None = None,
    eps: float = 1e-5,
    _: bool = True,
) -> Laid:
    """The last axes together to mean 0 and variance 1."""
    axes = tuple(x.position(-1 - i) for i in range(len(shape)))
    out = Laid(_normalised(x.array, axes, eps), x.order)
    if weight is not None:
        (a, w), order = aligned(out, weight)
        out = Laid(a * w, order)
    if bias is not None:
        (a, b), order = aligned(out, bias)
        out = Laid(a + b, order)
    return out


def native_layer_norm(x: Laid, shape: Sequence[int], weight: Laid | None, bias: Laid | None, eps: float) -> tuple[Laid]:
    """:func:`layer_norm` as the core operations have it."""
    return (layer_norm(x, shape, weight, bias, eps),)


def _normalised(a: jax.Array, axes: tuple[int, ...], eps: float) -> jax.Array:
    centred = a - a.mean(axes, keepdims=True)
    return centred * lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + eps)


def _scaled(x: Laid, weight: Laid | None, bias: Laid | None) -> Laid:
    out = x if weight is None else _of_channel(x, weight.array, lambda x, w: x * w)
    return out if bias is None else _of_channel(out, bias.array, lambda x, b: x + b)


def _of_channel(x: Laid, values: jax.Array, fn) -> Laid:
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    (a, b), order = aligned(x, plain(values.reshape(shape)))
    return Laid(fn(a, b), order)
