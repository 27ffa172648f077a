"""Gaussian blur of images by a width that may be traced, and be differentiated by."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np


def blurred(x: jax.Array, sigma: Any) -> jax.Array:
    r"""Images blurred by ``exp(-(u - v)^2 / 2 sigma^2) / \sum_v``, one axis after the other.

    The kernel is as wide as the image and, near an edge, made of the voxels that there are, so that a constant image
    stays as it is.

    Args:
        x: ``[b, *space, c]``.
        sigma: standard deviation in voxels, one number or one per spatial axis, at least 0; differentiable.

    Returns:
        The shape of ``x``.

    Raises:
        ValueError: if there are not as many widths as axes, or one is negative.

    Example:
        >>> x = jnp.zeros((1, 5, 1)).at[0, 2].set(1.0)
        >>> [round(value, 2) for value in blurred(x, 1.0).ravel().tolist()]
        [0.08, 0.26, 0.4, 0.26, 0.08]
    """
    widths = checked_sigma(sigma, x)
    for axis in range(1, x.ndim - 1):
        matrix = _kernel(x.shape[axis], widths[axis - 1])
        # the platform's short products would show as stripes
        moved = jnp.tensordot(x, matrix, (axis, 1), precision=jax.lax.Precision.HIGHEST)
        x = jnp.moveaxis(moved, -1, axis)
    return x


def checked_sigma(sigma: Any, x: jax.Array) -> jax.Array:
    """Widths ``[axes]`` in the images' dtype.

    Raises:
        ValueError: if there are not as many as spatial axes, or one is negative or not finite.
    """
    rank = x.ndim - 2
    given = jnp.asarray(sigma, x.dtype)
    if given.shape not in ((), (rank,)):
        raise ValueError(f"sigma has shape {given.shape}: give one number, or one per spatial axis ({rank}).")
    known = not isinstance(given, jax.core.Tracer)
    if known and not (np.isfinite(np.asarray(given, np.float32)).all() and (np.asarray(given) >= 0).all()):
        raise ValueError(f"sigma got {sigma}, widths in voxels of at least 0 are needed.")
    return jnp.broadcast_to(given, (rank,))


def _kernel(size: int, sigma: jax.Array) -> jax.Array:
    """``[size, size]``, rows with sum 1; a width of 0 is the identity."""
    distance = np.abs(np.arange(size)[:, None] - np.arange(size))
    # narrower than this no neighbour counts, not even in float64; the slope is 0 there, too
    sigma = jnp.maximum(sigma, jnp.asarray(0.02, sigma.dtype))
    return jax.nn.softmax(jnp.asarray(-(distance**2) / 2, sigma.dtype) / sigma**2, axis=1)
