"""Maxima and means over windows."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsal.graph.laid import Laid, channel_last, from_channel_last
from jaxsal.graph.windows import along_axis, check_length, single, sum_over_windows


def max_pool(
    x: Laid,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[Laid]:
    """The maxima; their places, PyTorch's second result, are not computed."""
    rank = x.ndim - 2
    kernel, padding, dilation = _each(kernel, rank), _each(padding, rank), _each(dilation, rank)
    stride = _each(stride, rank) if len(stride) else kernel
    a = channel_last(x)
    sizes = a.shape[1:-1]
    pads = [
        (p, _behind(n, k, s, p, d, ceil_mode))
        for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True)
    ]
    out = lax.reduce_window(
        a,
        -jnp.inf,
        lax.max,
        (1, *kernel, 1),
        (1, *stride, 1),
        ((0, 0), *pads, (0, 0)),
        window_dilation=(1, *dilation, 1),
    )
    return (from_channel_last(out),)


def avg_pool(
    x: Laid,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Laid:
    """The means; what of the padding counts, and in ``ceil_mode`` never what lies behind it, is PyTorch's."""
    rank = x.ndim - 2
    kernel, padding = _each(kernel, rank), _each(padding, rank)
    stride = _each(stride, rank) if len(stride) else kernel
    a = channel_last(x)
    a = a.astype(single(a.dtype))
    axes = list(zip(a.shape[1:-1], kernel, stride, padding, strict=True))
    pads = [(p, _behind(n, k, s, p, 1, ceil_mode)) for n, k, s, p in axes]
    total = sum_over_windows(a, kernel, stride, pads)
    if divisor_override:
        return from_channel_last((total / divisor_override).astype(x.array.dtype))
    # of a separable window the number of voxels is a product, axis by axis
    for axis, (n, k, s, p) in enumerate(axes, start=1):
        first = np.arange(check_length(total.shape[axis])) * s - p
        inside = p if count_include_pad else 0
        counts = np.minimum(first + k, n + inside) - np.maximum(first, -inside)
        if (counts == counts[0]).all():
            total = total / float(counts[0])
        else:
            total = total * along_axis(1 / counts, axis, total.ndim, total.dtype)
    return from_channel_last(total.astype(x.array.dtype))


def adaptive_avg_pool(x: Laid, sizes: Sequence[int]) -> Laid:
    """Means over windows that share the image out, ``floor(i n / m)`` to ``ceil((i + 1) n / m)``."""
    a = channel_last(x)
    a = a.astype(single(a.dtype))
    for axis, (n, m) in enumerate(zip(a.shape[1:-1], _each(sizes, x.ndim - 2), strict=True), start=1):
        if m is None or m == n:
            continue
        if m == 1:
            a = a.mean(axis, keepdims=True)
        elif n % m == 0:
            a = a.reshape(*a.shape[:axis], m, n // m, *a.shape[axis + 1 :]).mean(axis + 1)
        else:
            # made of positions, such that it is told from weights that are learned
            i, j = lax.iota(jnp.int32, m)[None], lax.iota(jnp.int32, n)[:, None]
            first, last = i * n // m, -(-(i + 1) * n // m)
            inside = ((j >= first) & (j < last)).astype(a.dtype)
            a = jnp.moveaxis(jnp.tensordot(a, inside / inside.sum(0, keepdims=True), (axis, 0)), -1, axis)
    return from_channel_last(a.astype(x.array.dtype))


def adaptive_max_pool(x: Laid, sizes: Sequence[int]) -> tuple[Laid]:
    """Maxima over the windows of :func:`adaptive_avg_pool`."""
    a = channel_last(x)
    for axis, (n, m) in enumerate(zip(a.shape[1:-1], _each(sizes, x.ndim - 2), strict=True), start=1):
        if m is None or m == n:
            continue
        windows = [(i * n // m, -(-(i + 1) * n // m)) for i in range(check_length(m))]
        parts = [lax.slice_in_dim(a, *window, axis=axis).max(axis, keepdims=True) for window in windows]
        a = jnp.concatenate(parts, axis)
    return (from_channel_last(a),)


def _each(values: Sequence[int] | int, rank: int) -> tuple[int, ...]:
    values = (values,) if isinstance(values, int) else tuple(values)
    return values * rank if len(values) == 1 else values


def _behind(n: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Padding behind an axis; with ``ceil_mode`` for one more window, if that begins before the padding's end."""
    reach = dilation * (kernel - 1) + 1
    free = n + 2 * padding - reach
    count = (math.ceil(free / stride) if ceil_mode else free // stride) + 1
    if ceil_mode and (count - 1) * stride >= n + padding:
        count -= 1
    return max((count - 1) * stride + reach - n - padding, 0)
