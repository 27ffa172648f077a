"""What a mask objective is made of: pure functions that add up."""

import jax
import jax.numpy as jnp


def l1_distance(a: jax.Array, b: jax.Array, sigma: jax.Array) -> jax.Array:
    """Distance of two predictions in standard deviations, ``|a - b| / sigma``."""
    return absolute(a - b) / sigma


def unit_norm(mask: jax.Array) -> jax.Array:
    """Departure from the budget, ``|1 - ||M||_2|``."""
    return absolute(1 - l2_norm(mask))


def total_variation(mask: jax.Array) -> jax.Array:
    """Mean anisotropic total variation, averaged over the axes.

    ``1/rank * sum_axis mean |M[i + 1] - M[i]|``. Means make the weight of the term independent of the mask's
    grid. An axis of one voxel varies by nothing.

    Args:
        mask: ``[*t]``.

    Example:
        >>> float(total_variation(jnp.array([[0.0, 1.0], [0.0, 3.0]])))
        1.5
    """
    steps = [absolute(jnp.diff(mask, axis=axis)) for axis in range(mask.ndim)]
    return sum((s.sum() / max(s.size, 1) for s in steps), jnp.zeros((), mask.dtype)) / mask.ndim


def absolute(x: jax.Array) -> jax.Array:
    """``|x|`` with slope 0 at 0.

    ``jnp.abs`` has slope +1 there; masks start uniform, where every difference is 0, and that slope would
    push them towards one corner.
    """
    return x * jax.lax.stop_gradient(jnp.sign(x))


def l2_norm(x: jax.Array) -> jax.Array:
    """``||x||_2`` with gradient 0 at 0, where ``jnp.linalg.norm`` has NaN."""
    square = jnp.sum(x * x)
    empty = square == 0
    return jnp.where(empty, 0, jnp.sqrt(jnp.where(empty, 1, square)))
