"""Where Fong's masks start: the smallest blurred ball in the middle that destroys nearly all that can be destroyed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.engine.lower import lower
from jaxsal.masks.objective import Image, Plan, Shared, Wanted, expanded, perturbed
from jaxsal.masks.separable import along_axes, gaussian
from jaxsal.optim.applied import Applied

# of images with sides of 224 pixels; other images take the same share of each side
_SIDE = 224
_RADII = np.arange(0, 175, 5) / _SIDE
_SIGMA = 10 / _SIDE
_LEFT = 1e-2


def ball_mask(radius: jax.Array, space: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """1 outside a ball in the middle and 0 inside, blurred.

    Args:
        radius: in sides of the image.
        space: the image's grid.
        dtype: of the mask.

    Returns:
        ``[*space]``.
    """
    axes = [(np.arange(size) - size // 2) / size for size in space]
    squares = sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij", sparse=True))
    inside = (jnp.asarray(squares, dtype) <= radius**2).astype(dtype)
    # beyond the image there is no ball
    return 1 - along_axes(inside, [gaussian(size, _SIGMA * size, mode="reflect") for size in space])


def ball_starts(plan: Plan, grid: tuple[int, ...], shared: Shared, image: Image) -> Callable[[Wanted], jax.Array]:
    """:func:`ball_start` for every value of an image."""
    return Applied(ball_start, (plan, grid, shared, expanded(plan, image)))


def ball_start(plan: Plan, grid: tuple[int, ...], shared: Shared, image: Image, wanted: Wanted) -> jax.Array:
    """The mask of the smallest ball, of radii from 0 to 170/224 sides, that leaves less than 1 % of the value.

    100 % is the value of the image, 0 % that under the largest ball.

    Args:
        plan: of the objective.
        grid: of the mask.
        shared: network and weights.
        image: one image, expanded.
        wanted: one value of it.

    Returns:
        ``[*t]``, the voxels that lie in the middle of the grid's.
    """

    def value(full: jax.Array) -> jax.Array:
        y = lower(shared.model)(perturbed(plan, image, full)[None])
        return plan.measure(y, wanted.index)[0]

    dtype = shared.lam1.dtype
    radii = jnp.asarray(_RADII, dtype)
    values = jax.lax.map(lambda radius: value(ball_mask(radius, plan.space, dtype)), radii)
    whole = value(jnp.ones(plan.space, dtype))
    enough = (values - values[-1]) / (whole - values[-1]) < _LEFT
    chosen = jnp.where(enough.any(), jnp.argmax(enough), len(radii) - 1)
    mask = ball_mask(radii[chosen], plan.space, dtype)
    for axis, (size, voxels) in enumerate(zip(plan.space, grid, strict=True)):
        mask = jnp.take(mask, np.floor((np.arange(voxels) + 0.5) * size / voxels).astype(int), axis=axis)
    return mask
