"""Masks that are smooth whatever their parameters: a soft maximum of kernels, one axis at a time."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

# how soft the maximum is, and the shape of the kernel: both as published
_COLDNESS = 20.0


def kernel(distance: np.ndarray) -> np.ndarray:
    """``exp(-2 max(d - 1/2, 0)^2)`` of distances in sigmas: flat at first, then half a Gaussian."""
    return np.exp(-2 * np.maximum(np.abs(distance) - 0.5, 0) ** 2)


def parameter_grid(space: Sequence[int], step: int) -> tuple[int, ...]:
    """How many parameters a mask has along every axis: one for every ``step`` voxels."""
    return tuple(math.ceil(size / step) for size in space)


def smooth_max(params: jax.Array, space: Sequence[int], step: int, sigma: float) -> jax.Array:
    r"""A mask as the soft maximum of kernels around its parameters.

    Along one axis, ``m(u) = sum_j v_uj softmax_j(20 v_uj)`` with ``v_uj = k((u - step * j) / sigma) p_j``, over the
    parameters around ``u``; parameters beyond the grid are 0. Over several axes this is done in turn. With a hard
    maximum that is exactly the maximum over all parameters of ``p_j prod_axis k``, because no factor is negative; it
    takes ``rank`` passes over a few neighbours, where one pass over them all would take memory of
    ``(2 radius + 1)^rank`` images, 13 GiB for one brain.

    Args:
        params: ``[*t]`` within [0, 1], of shape :func:`parameter_grid`.
        space: the image's grid.
        step: voxels from one parameter to the next.
        sigma: width of the kernel in voxels.

    Returns:
        ``[*space]`` within [0, 1].

    Reference:
        Fong, Patrick and Vedaldi, Understanding deep networks via extremal perturbations and smooth masks, ICCV 2019,
        https://doi.org/10.1109/ICCV.2019.00304; there the kernel is round.
    """
    for axis, size in enumerate(space):
        # recomputed for the gradient: what one pass leaves behind are many images
        params = jax.checkpoint(functools.partial(_along, axis=axis, size=size, step=step, sigma=sigma))(params)
    return jnp.clip(params, 0, 1)


def _along(params: jax.Array, *, axis: int, size: int, step: int, sigma: float) -> jax.Array:
    radius = 1 + math.ceil(sigma / step)
    voxels = params.shape[axis]
    padded = jnp.pad(params, [(radius * (a == axis),) * 2 for a in range(params.ndim)])
    position = np.arange(voxels * step)
    total = weights = jnp.zeros([voxels * step if a == axis else n for a, n in enumerate(params.shape)], params.dtype)
    for tap in range(2 * radius + 1):
        near = jax.lax.slice_in_dim(padded, tap, tap + voxels, axis=axis)
        factor = kernel((position - step * (position // step + tap - radius)) / sigma)
        factor = jnp.asarray(np.expand_dims(factor, [a for a in range(params.ndim) if a != axis]), params.dtype)
        value = factor * _repeated(near, step, axis)
        weight = jnp.exp(_COLDNESS * value)  # at most e^20: no overflow
        total, weights = total + weight * value, weights + weight
    return jax.lax.slice_in_dim(total / weights, 0, size, axis=axis)


def _repeated(x: jax.Array, times: int, axis: int) -> jax.Array:
    """Every voxel of an axis ``times`` over; a broadcast, so that its gradient is a sum and no scatter."""
    shape = x.shape
    wide = jnp.broadcast_to(jnp.expand_dims(x, axis + 1), (*shape[: axis + 1], times, *shape[axis + 1 :]))
    return wide.reshape(*shape[:axis], shape[axis] * times, *shape[axis + 1 :])
