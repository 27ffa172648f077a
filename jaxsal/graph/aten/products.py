"""Products of matrices."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsal.graph.laid import Laid, in_order, plain, same_dtype
from jaxsal.graph.windows import single


def matmul(a: Laid, b: Laid) -> Laid:
    """``a @ b``, leading axes together."""
    x, y = same_dtype(in_order(a), in_order(b))
    if x.ndim > 2 and y.ndim > 2 and x.ndim != y.ndim:
        rank = max(x.ndim, y.ndim)
        x, y = (v.reshape((1,) * (rank - v.ndim) + v.shape) for v in (x, y))
    return plain(x @ y)


def linear(x: Laid, weight: Laid, bias: Laid | None = None) -> Laid:
    """``x @ weight + bias`` with the weight stored ``[n, n']``."""
    # the axis of features may lie anywhere, the others keep their places
    place = x.position(-1)
    array = x.array if place == x.ndim - 1 else jnp.moveaxis(x.array, place, -1)
    order = (*(axis for axis in x.order if axis != x.ndim - 1), x.ndim - 1)
    array, w, b = same_dtype(array, weight.array, None if bias is None else bias.array)
    out = array @ w
    return Laid(out if b is None else out + b.reshape((1,) * (out.ndim - 1) + (-1,)), order)


def stored_weight(weight: jax.Array) -> jax.Array:
    """PyTorch's ``[n', n]`` as :func:`linear` takes it."""
    return weight.T


def addmm(bias: Laid, a: Laid, b: Laid, beta: float = 1, alpha: float = 1) -> Laid:
    """``beta bias + alpha a @ b``."""
    product = matmul(a, b).array * alpha if alpha != 1 else matmul(a, b).array
    shift = in_order(bias)
    shift = shift.reshape((1,) * (product.ndim - shift.ndim) + shift.shape).astype(product.dtype)
    return plain(product + (shift * beta if beta != 1 else shift))


def attention(
    q: Laid,
    k: Laid,
    v: Laid,
    mask: Laid | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Laid:
    """``softmax(q k' scale + mask) v`` over the last two axes; with ``enable_gqa`` heads share keys and values."""
    if dropout:
        raise ValueError("attention that leaves values out when the network predicts has no one result")
    a, b, c = same_dtype(in_order(q), in_order(k), in_order(v))
    if enable_gqa:
        b, c = (jnp.repeat(each, a.shape[-3] // each.shape[-3], -3) for each in (b, c))
    scores = a @ jnp.swapaxes(b, -1, -2) * (a.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        allowed = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(_of_rank(allowed, scores.ndim), scores, -jnp.inf)
    if mask is not None:
        given = _of_rank(in_order(mask), scores.ndim)
        scores = jnp.where(given, scores, -jnp.inf) if given.dtype == bool else scores + given.astype(scores.dtype)
    return plain(jax.nn.softmax(scores, -1) @ c)


def full(shape: Sequence[int], value: float, dtype: Any = None) -> Laid:
    """One number everywhere."""
    return plain(jnp.full(tuple(shape), value, dtype or _dtype_of(value)))


def full_like(x: Laid, value: float, dtype: Any = None) -> Laid:
    """One number in the shape of something else."""
    return Laid(jnp.full(x.array.shape, value, dtype or x.array.dtype), x.order)


def arange(start: float, end: float | None = None, step: float = 1, dtype: Any = None) -> Laid:
    """Numbers in a row."""
    start, end = (0, start) if end is None else (start, end)
    count = max(math.ceil((end - start) / step), 0)
    floats = any(isinstance(v, float) for v in (start, end, step))
    kind = single(dtype or jnp.float32) if floats else jnp.int32
    return plain((lax.iota(kind, count) * step + start).astype(dtype or kind))


def _of_rank(array: jax.Array, rank: int) -> jax.Array:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _dtype_of(value: float) -> Any:
    return bool if isinstance(value, bool) else jnp.int32 if isinstance(value, int) else jnp.float32
