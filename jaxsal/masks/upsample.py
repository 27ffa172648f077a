"""From the grid of a feature map back to the grid of the image."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.engine.geometry import Geometry
from jaxsal.masks.percentile import percentile as percentile_of


def upsample(mask: jax.Array, geometry: Geometry, shape: Sequence[int]) -> jax.Array:
    """Interpolate linearly between receptive-field centres.

    The value of mask voxel ``i`` lands on image voxel ``start + step * i``; outside the outermost centres
    the edge value continues.

    Args:
        mask: ``[..., *t]``, any number of leading axes.
        geometry: of the feature map, one start and step per axis of ``t``.
        shape: grid of the image, in voxels.

    Returns:
        ``[..., *shape]``.

    Raises:
        ValueError: if the ranks differ.

    Example:
        >>> upsample(jnp.array([0.0, 2.0]), Geometry((1.0,), (4.0,)), (7,)).tolist()
        [0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    """
    rank = len(shape)
    if len(geometry.start) != rank or mask.ndim < rank:
        raise ValueError(
            f"A mask of shape {mask.shape} with a geometry of rank {len(geometry.start)} cannot be brought "
            f"to the grid {tuple(shape)}: all three need the same spatial rank."
        )
    for axis, (size, start, step) in enumerate(zip(shape, *geometry, strict=True), start=mask.ndim - rank):
        weights = jnp.asarray(_weights(mask.shape[axis], size, start, step), mask.dtype)
        mask = jnp.moveaxis(jnp.tensordot(mask, weights, (axis, 1)), -1, axis)
    return mask


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


def _weights(voxels: int, size: int, start: float, step: float) -> np.ndarray:
    """Linear interpolation matrix ``[size, voxels]``."""
    position = np.clip((np.arange(size) - start) / step, 0, voxels - 1)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(voxels)), 0)
