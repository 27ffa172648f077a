"""From the grid of a feature map back to the grid of the image."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.engine.geometry import Geometry


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


def one_by_one(fn: Callable[[jax.Array], jax.Array], maps: jax.Array, rank: int) -> jax.Array:
    """A function of every map, one after the other: at full size a single one is tens of megabytes.

    Args:
        fn: of one map ``[*t]``.
        maps: ``[..., *t]``, any number of leading axes.
        rank: number of spatial axes.

    Returns:
        What ``fn`` gives, with the same leading axes.

    Example:
        >>> one_by_one(jnp.sum, jnp.arange(6.0).reshape(3, 1, 2), rank=1).tolist()
        [[1.0], [5.0], [9.0]]
    """
    leading = maps.shape[: maps.ndim - rank]
    found = jax.lax.map(fn, maps.reshape(math.prod(leading), *maps.shape[len(leading) :]))
    return found.reshape(*leading, *found.shape[1:])


def _weights(voxels: int, size: int, start: float, step: float) -> np.ndarray:
    """Linear interpolation matrix ``[size, voxels]``."""
    position = np.clip((np.arange(size) - start) / step, 0, voxels - 1)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(voxels)), 0)
