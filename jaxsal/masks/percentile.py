"""Percentiles of large maps, by bisection instead of sorting."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def percentile(x: jax.Array, q: Any, axes: Sequence[int]) -> jax.Array:
    """The value below which ``q`` per cent of an array lie, linear between neighbours, as :func:`numpy.percentile`.

    Floating-point numbers of one sign are ordered as the integers of the same bits are, so as many halvings as there
    are bits find the value of any rank by counting. Sorting a map of 164 x 172 x 202 voxels on a CPU takes ten times
    as long.

    Args:
        x: floating-point array without NaN.
        q: 0 to 100; may be traced.
        axes: over which the percentile is taken.

    Returns:
        Percentiles, the axes kept with length 1, of the array's dtype.

    Example:
        >>> percentile(jnp.array([3.0, 1.0, 2.0, 10.0]), 50, (0,)).tolist()
        [2.5]
    """
    axes = tuple(axes)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    position = jnp.asarray(q, x.dtype) / 100 * (count - 1)
    rank = jnp.floor(position)
    below = rank.astype(jnp.int32)  # how many lie below, ties apart

    integers = _ordered(x)
    limits = jnp.iinfo(integers.dtype)
    kept = tuple(1 if axis in {a % x.ndim for a in axes} else size for axis, size in enumerate(x.shape))
    lowest, highest = (jnp.full(kept, limit, integers.dtype) for limit in (limits.min, limits.max))

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low >> 1) + (high >> 1) + (low & high & 1)  # the sum could overflow
        reached = (integers <= middle).sum(axes, keepdims=True, dtype=jnp.int32) > below
        return jnp.where(reached, low, middle + 1), jnp.where(reached, middle, high)

    found, _ = jax.lax.fori_loop(0, limits.bits, halve, (lowest, highest))
    value = _number(found, x.dtype)
    alike = (integers <= found).sum(axes, keepdims=True, dtype=jnp.int32) > below + 1
    larger = jnp.where(x > value, x, jnp.inf).min(axes, keepdims=True)
    following = jnp.where(alike | (below + 1 >= count), value, larger)
    return value + (position - rank) * (following - value)


def _ordered(x: jax.Array) -> jax.Array:
    """Signed integers in the order of the numbers."""
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"int{8 * x.dtype.itemsize}"))
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def _number(integers: jax.Array, dtype: Any) -> jax.Array:
    return jax.lax.bitcast_convert_type(
        jnp.where(integers < 0, integers ^ jnp.iinfo(integers.dtype).max, integers), dtype
    )
