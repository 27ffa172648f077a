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
    top, *others = _slices(x, axis, window, stride)
    # one byte per window says where its maximum is, the values themselves need not be kept
    first = jnp.zeros(top.shape, jnp.int8 if window < 128 else jnp.int32)
    for place, value in enumerate(others, start=1):
        first = jnp.where(value > top, jnp.asarray(place, first.dtype), first)
        top = jnp.maximum(top, value)
    return top, (first, jnp.zeros((x.shape[axis], 0), bool))


def _max_along_bwd(axis: int, window: int, stride: int, saved: tuple[jax.Array, jax.Array], g: jax.Array):
    first, size = saved[0], len(saved[1])
    count, cells, zero = g.shape[axis], -(-size // stride), jnp.zeros((), g.dtype)

    def at(place: int) -> jax.Array:
        """What windows give to their values at a place; value ``q stride + r`` is in cell ``q``."""
        won = jnp.where(first == place, g, zero)
        cell, pads = place // stride, [(0, 0, 0)] * g.ndim
        pads[axis] = (cell, cells - count - cell, 0)
        return lax.pad(won, zero, pads)

    nothing = jnp.zeros((*g.shape[:axis], cells, *g.shape[axis + 1 :]), g.dtype)
    residues = [
        functools.reduce(jnp.add, [at(place) for place in range(residue, window, stride)] or [nothing])
        for residue in range(stride)
    ]
    woven = jnp.stack(residues, axis + 1).reshape(*g.shape[:axis], cells * stride, *g.shape[axis + 1 :])
    return (lax.slice_in_dim(woven, 0, size, axis=axis),)


_max_along.defvjp(_max_along_fwd, _max_along_bwd)
