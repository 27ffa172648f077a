"""Percentiles of large maps, by bisection instead of sorting."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def percentile(x: jax.Array, q: Any, axes: Sequence[int]) -> jax.Array:
    """The value below which ``q`` per cent of an array lie, linear between neighbours, as :func:`numpy.percentile`.

    Floating-point numbers of one sign are ordered as the integers of the same bits are, so as many halvings as there
    are bits find the value of any rank by counting, where a CPU is slow to sort. No gradient passes through.

    Args:
        x: floating-point array; NaN in it makes the percentile NaN.
        q: 0 to 100; may be traced.
        axes: over which the percentile is taken.

    Returns:
        Percentiles, the axes kept with length 1, of the array's dtype.

    Raises:
        TypeError: if ``x`` is not a floating-point array.

    Example:
        >>> percentile(jnp.array([3.0, 1.0, 2.0, 10.0]), 50, (0,)).tolist()
        [2.5]
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"percentile got an array of {x.dtype}, floating-point numbers are needed: x.astype(float).")
    axes = tuple(axes)
    count = math.prod(x.shape[axis] for axis in axes)
    wide = x.dtype if x.dtype.itemsize >= 4 else jnp.float32  # ranks are beyond what short floats can count
    position = jnp.asarray(q, wide) / 100 * (count - 1)
    # float32(count - 1) may round up to a rank that there is not
    below = jnp.minimum(jnp.floor(position).astype(jnp.int32), count - 1)
    fraction = jnp.clip(position - below.astype(wide), 0, 1)

    x = jax.lax.stop_gradient(jnp.where(x == 0, jnp.zeros_like(x), x))  # -0 is 0
    integers = _ordered(x)
    limits = jnp.iinfo(integers.dtype)
    kept = jax.eval_shape(lambda x: x.sum(axes, keepdims=True), x).shape
    lowest, highest = (jnp.full(kept, limit, integers.dtype) for limit in (limits.min, limits.max))

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low >> 1) + (high >> 1) + (low & high & 1)  # the sum could overflow
        reached = _count(integers <= middle, axes) > below
        return jnp.where(reached, low, middle + 1), jnp.where(reached, middle, high)

    found, _ = jax.lax.fori_loop(0, limits.bits, halve, (lowest, highest))
    larger = jnp.where(integers > found, integers, limits.max).min(axes, keepdims=True)
    alike = _count(integers <= found, axes) > below + 1
    value = _number(found, x.dtype)
    following = jnp.where(alike | (below + 1 >= count), value, _number(larger, x.dtype))
    between = value.astype(wide) * (1 - fraction) + following.astype(wide) * fraction
    exact = jnp.where((fraction == 0) | (following == value), value, between.astype(x.dtype))
    return jnp.where(jnp.isnan(x).any(axes, keepdims=True), jnp.nan, exact)


def _count(true: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return true.sum(axes, keepdims=True, dtype=jnp.int32)


def _ordered(x: jax.Array) -> jax.Array:
    """Signed integers in the order of the numbers."""
    return _flip(jax.lax.bitcast_convert_type(x, jnp.dtype(f"int{8 * x.dtype.itemsize}")))


def _number(integers: jax.Array, dtype: Any) -> jax.Array:
    return jax.lax.bitcast_convert_type(_flip(integers), dtype)


def _flip(integers: jax.Array) -> jax.Array:
    """The other way of writing negative numbers: by magnitude, or in ascending order."""
    return jnp.where(integers < 0, integers ^ jnp.iinfo(integers.dtype).max, integers)
