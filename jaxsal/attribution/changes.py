"""Numbers above and below 0, and quotients of differences."""

from typing import Any

import jax
import jax.numpy as jnp


def above_and_below(x: Any) -> tuple[Any, Any]:
    """What is above 0 and what is below, of a pytree of arrays.

    Example:
        >>> [part.tolist() for part in above_and_below(jnp.array([2.0, -3.0]))]
        [[2.0, 0.0], [0.0, -3.0]]
    """
    return jax.tree.map(lambda a: jnp.maximum(a, 0), x), jax.tree.map(lambda a: jnp.minimum(a, 0), x)


def larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """The size of the larger one."""
    return jnp.maximum(jnp.abs(a), jnp.abs(b))


def per_change(change: jax.Array, of: jax.Array, size: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where there is a change worth dividing by, and the quotient there.

    Args:
        change: to be divided.
        of: the difference to divide by.
        size: of the numbers whose difference it is.
    """
    known = jnp.finfo(of.dtype)
    # in short dtypes a thousand roundings are everything
    least = min(1e3 * float(known.eps), float(known.eps) ** 0.5)
    changed = jnp.abs(of) > jnp.maximum(least * size, float(known.tiny))
    return changed, change / jnp.where(changed, of, jnp.ones_like(of))
