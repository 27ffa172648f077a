"""Linear maps that act on one axis at a time: blurs and interpolations, as one small matrix per axis."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage


def along_axes(x: jax.Array, matrices: Sequence[np.ndarray]) -> jax.Array:
    """Multiply the leading axes of an array by one matrix each.

    Args:
        x: ``[n_0, n_1, ..., *rest]``.
        matrices: ``[m_i, n_i]`` for every axis that is mapped.

    Returns:
        ``[m_0, m_1, ..., *rest]``.

    Example:
        >>> along_axes(jnp.array([[1.0, 3.0]]), [np.eye(1), np.array([[0.5, 0.5]])]).tolist()
        [[2.0]]
    """
    for axis, matrix in enumerate(matrices):
        x = jnp.moveaxis(jnp.tensordot(x, jnp.asarray(matrix, x.dtype), (axis, 1)), -1, axis)
    return x


def gaussian(size: int, sigma: float, *, radius: int | None = None, mode: str = "nearest") -> np.ndarray:
    """Gaussian blur of an axis, as a matrix ``[size, size]``.

    Args:
        size: voxels of the axis.
        sigma: standard deviation in voxels; 0 is the identity.
        radius: where the kernel is cut, in voxels; None is four standard deviations.
        mode: how the axis goes on beyond its ends, see ``scipy.ndimage``: ``"nearest"`` keeps constants.
    """
    eye = np.eye(size)
    if sigma == 0:
        return eye
    return ndimage.gaussian_filter1d(eye, sigma, axis=0, mode=mode, radius=radius)


def linear(size: int, voxels: int) -> np.ndarray:
    """Linear interpolation from ``voxels`` to ``size``, ends on ends: ``align_corners=False``.

    Voxel ``i`` of the mask covers its share of the axis and has its value in the middle of it.

    Example:
        >>> linear(4, 2).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    return _interpolation((np.arange(size) + 0.5) * voxels / size - 0.5, voxels)


def linear_between_corners(size: int, voxels: int) -> np.ndarray:
    """Linear interpolation with the outermost voxels on one another: ``align_corners=True``.

    Example:
        >>> linear_between_corners(3, 2).tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    return _interpolation(np.linspace(0, voxels - 1, size), voxels)


def nearest(size: int, voxels: int) -> np.ndarray:
    """Every voxel takes the mask's voxel that covers its centre.

    Example:
        >>> nearest(4, 2).tolist()
        [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    covering = np.floor((np.arange(size) + 0.5) * voxels / size).astype(int)
    return np.eye(voxels)[covering]


def nearest_blurred(sigma: float, size: int, voxels: int) -> np.ndarray:
    """Nearest voxel, then a Gaussian blur of ``sigma`` image voxels."""
    return gaussian(size, sigma) @ nearest(size, voxels)


def linear_filtered(sigma: float, radius: int, size: int, voxels: int) -> np.ndarray:
    """Linear interpolation, then a Gaussian of ``sigma`` image voxels that is cut at ``radius``."""
    return gaussian(size, sigma, radius=radius) @ linear(size, voxels)


def _interpolation(positions: np.ndarray, voxels: int) -> np.ndarray:
    return np.stack([np.interp(positions, np.arange(voxels), unit) for unit in np.eye(voxels)], axis=1)
