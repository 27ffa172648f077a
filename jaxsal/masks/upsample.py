"""What is kept of a map, and how a mask comes to the grid of the image."""

import jax
import jax.numpy as jnp

from jaxsal.engine.upsampling import upsample as upsample
from jaxsal.masks.percentile import percentile as percentile_of


def keep_top(map: jax.Array, percentile: float | jax.Array, rank: int) -> jax.Array:
    """Set values at or below a percentile of their map to zero.

    Where so many voxels share the largest value that the percentile reaches it, these are kept: a plateau is as
    prominent as a peak.

    Args:
        map: ``[..., *space]``.
        percentile: 0 to 100, taken over the whole grid of each map.
        rank: number of spatial axes.

    Returns:
        The same shape; a constant map becomes empty.

    Example:
        >>> keep_top(jnp.arange(5.0), 50, rank=1).tolist()
        [0.0, 0.0, 0.0, 3.0, 4.0]
        >>> keep_top(jnp.array([0.0, 1.0, 2.0, 2.0]), 90, rank=1).tolist()
        [0.0, 0.0, 2.0, 2.0]
    """
    axes = tuple(range(map.ndim - rank, map.ndim))
    threshold = percentile_of(map, percentile, axes)
    spread = jnp.ptp(map, axis=axes, keepdims=True)
    # interpolating a constant leaves rounding noise, which is no structure
    noise = 1e-6 * jnp.abs(map).max(axis=axes, keepdims=True)
    largest = map.max(axis=axes, keepdims=True)
    above = jnp.where(threshold >= largest - noise, map >= largest - noise, map > threshold)
    return jnp.where(above & (spread > noise), map, jnp.zeros_like(map))
