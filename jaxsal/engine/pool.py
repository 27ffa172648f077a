"""Max and sum pooling one axis at a time: fast on CPU in both directions.

XLA's CPU backend takes a general loop over windows for ``reduce_window`` and a slower one (select and
scatter) for the gradient of a maximum. Reducing one axis after the other by strided slices needs neither.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Pads = Sequence[tuple[int, int]]


def max_pool(x: jax.Array, window: Sequence[int], strides: Sequence[int], padding: Pads) -> jax.Array:
    """The maximum over windows; its gradient goes to the first maximum in row-major order.

    Args:
        x: any array.
        window: size of the window, one per axis of ``x``.
        strides: of the windows, one per axis.
        padding: ``-inf`` before and after, one pair per axis.

    Returns:
        The array of maxima.

    Example:
        >>> x = jnp.array([3.0, 3.0, 1.0, 5.0])
        >>> max_pool(x, (2,), (2,), [(0, 0)]).tolist()
        [3.0, 5.0]
        >>> jax.grad(lambda x: max_pool(x, (2,), (2,), [(0, 0)]).sum())(x).tolist()
        [1.0, 0.0, 0.0, 1.0]
    """
    return _separably(_max_along, -jnp.inf, x, window, strides, padding)


def sum_pool(x: jax.Array, window: Sequence[int], strides: Sequence[int], padding: Pads) -> jax.Array:
    """The sum over windows, padded with zeros; arguments as in :func:`max_pool`."""
    return _separably(_sum_along, 0.0, x, window, strides, padding)


def _separably(
    reduce: Any,  # (x, axis, window, stride) -> array
    fill: float,
    x: jax.Array,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Pads,
) -> jax.Array:
    x = lax.pad(x, jnp.asarray(fill, x.dtype), [(low, high, 0) for low, high in padding])
    # the last axis first, so that among equal maxima the first in row-major order wins
    for axis in reversed(range(x.ndim)):
        if (window[axis], strides[axis]) != (1, 1):
            x = reduce(x, axis, window[axis], strides[axis])
    return x


def _slices(x: jax.Array, axis: int, window: int, stride: int) -> list[jax.Array]:
    """For every place in the window, the values that stand there in all windows."""
    count = (x.shape[axis] - window) // stride + 1
    return [lax.slice_in_dim(x, t, t + stride * (count - 1) + 1, stride, axis) for t in range(window)]


def _sum_along(x: jax.Array, axis: int, window: int, stride: int) -> jax.Array:
    return functools.reduce(jnp.add, _slices(x, axis, window, stride))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_along(x: jax.Array, axis: int, window: int, stride: int) -> jax.Array:
    return functools.reduce(jnp.maximum, _slices(x, axis, window, stride))


def _max_along_fwd(x: jax.Array, axis: int, window: int, stride: int):
    top = _max_along(x, axis, window, stride)
    return top, (x, top)


def _max_along_bwd(axis: int, window: int, stride: int, saved: tuple[jax.Array, jax.Array], g: jax.Array):
    x, top = saved
    zero, free, parts = jnp.zeros((), g.dtype), jnp.ones(top.shape, bool), []
    for place, value in enumerate(_slices(x, axis, window, stride)):
        wins = free & (value == top)
        free = free & ~wins
        reach = place + stride * (g.shape[axis] - 1) + 1
        spread = [(0, 0, 0)] * x.ndim
        spread[axis] = (place, x.shape[axis] - reach, stride - 1)
        parts.append(lax.pad(jnp.where(wins, g, zero), zero, spread))
    return (functools.reduce(jnp.add, parts),)


_max_along.defvjp(_max_along_fwd, _max_along_bwd)
