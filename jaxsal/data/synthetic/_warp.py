"""Linear interpolation at scattered points and splines on coarse control grids."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np


def sample(values: jax.Array, points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The eight grid neighbours of each point and their trilinear weights.

    Args:
        values: a grid, [x, y, z].
        points: voxel coordinates, float32[n, 3]; clamped to the grid.

    Returns:
        The neighbours' values, [8, n], and weights, float32[8, n], that sum to 1 over the first axis.
    """
    flat = values.reshape(-1)

    def one(corner: jax.Array) -> tuple[jax.Array, jax.Array]:
        index, weight = _corner(points, values.shape, corner)
        return flat[index], weight

    return jax.lax.map(one, jnp.arange(8))


def interpolate(field: jax.Array, points: jax.Array) -> jax.Array:
    """A vector field float32[x, y, z, 3] at voxel coordinates float32[n, 3], linearly; the edge continues."""
    flat = field.reshape(-1, field.shape[-1])

    # A loop over the corners: unrolled, XLA fuses chained interpolations and computes each one eight times over.
    def add(corner: jax.Array, total: jax.Array) -> jax.Array:
        index, weight = _corner(points, field.shape[:3], corner)
        return total + weight[:, None] * flat[index]

    return jax.lax.fori_loop(0, 8, add, jnp.zeros((points.shape[0], field.shape[-1]), field.dtype))


def _corner(points: jax.Array, shape: tuple[int, ...], corner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Flat index int32[n] and weight float32[n] of one of the eight neighbours of each point."""
    index, weight = jnp.zeros(points.shape[0], jnp.int32), jnp.ones(points.shape[0], points.dtype)
    for axis, size in enumerate(shape):
        position = jnp.clip(points[:, axis], 0.0, size - 1.001)
        low = position.astype(jnp.int32)
        step = (corner >> axis) & 1
        fraction = position - low.astype(points.dtype)
        index = index * size + low + step
        weight = weight * jnp.where(step == 1, fraction, 1.0 - fraction)
    return index, weight


@functools.cache
def _spline(nodes: int, size: int) -> np.ndarray:
    """Cubic B-spline weights of `nodes` control points (one beyond either end) at `size` voxels, [size, nodes]."""
    position = np.linspace(0.0, nodes - 3.0, size) + 1.0
    distance = np.abs(position[:, None] - np.arange(nodes)[None, :])
    inner = 2.0 / 3.0 - distance**2 + distance**3 / 2.0
    outer = np.clip(2.0 - distance, 0.0, None) ** 3 / 6.0
    return np.where(distance < 1.0, inner, outer).astype(np.float32)


def spread(control: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A smooth field on a grid from its cubic B-spline control points.

    Args:
        control: float32[i, j, k, c]; the outermost control points lie one spacing beyond the grid.
        shape: the grid.

    Returns:
        float32[*shape, c]
    """
    for axis, size in enumerate(shape):
        weights = jnp.asarray(_spline(control.shape[axis], size))
        control = jnp.moveaxis(jnp.tensordot(weights, control, (1, axis)), 0, axis)
    return control
