"""Random appearance: from a deformed template to a T1-like image, label to image."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsal.data.synthetic import anatomy as an
from jaxsal.data.synthetic._warp import spread
from jaxsal.data.synthetic.anatomy import Anatomy
from jaxsal.data.synthetic.shape import CORNER, EXTENT, Deformed

_FREE_CONTRAST = 0.12  # share of samples whose contrasts owe nothing to T1
_BIAS_NODES = (5, 5, 5)

# Mean intensity of each measured structure in the template on the scale grey matter 0, white matter 1.
_POSITION = (0.15, 0.15, 0.42, 0.18, 0.45, 0.12, 0.68)  # the ventricles' own is not used
_GREY, _WHITE, _FLUID = 66.0, 86.0, 33.0  # template intensities of the pure tissues


class Appearance(NamedTuple):
    """The parameters of one appearance.

    Attributes:
        table: intensity of every code (group * 256 + level), white matter near 1, float32[22 * 256].
        bias: control points of the logarithm of the bias field, float32[5, 5, 5, 1].
        blur: standard deviation of the point spread along each axis in voxels, float32[3].
        gamma: exponent of the contrast curve, float32[].
        noise: standard deviation of the noise, float32[].
        floor: intensity below which a voxel counts as outside the brain, float32[].
        key: random key of the noise.
    """

    table: jax.Array
    bias: jax.Array
    blur: jax.Array
    gamma: jax.Array
    noise: jax.Array
    floor: jax.Array
    key: jax.Array


def random_appearance(key: jax.Array, anatomy: Anatomy) -> Appearance:
    """One appearance: mostly T1-like with wide jitter, sometimes with free contrasts.

    Args:
        key: a JAX random key.
        anatomy: the template.

    Returns:
        The parameters, to be given to :func:`paint`.
    """
    k_table, k_bias, k_blur, k_gamma, k_noise, k_floor, k_strength, k_paint = jax.random.split(key, 8)
    strength = jax.random.uniform(k_strength, (), maxval=0.12)
    return Appearance(
        table=_random_table(k_table, anatomy),
        bias=strength * jax.random.normal(k_bias, (*_BIAS_NODES, 1)),
        blur=jax.random.uniform(k_blur, (3,), minval=0.25, maxval=0.75),
        gamma=jnp.exp(0.12 * jax.random.normal(k_gamma)),
        noise=jax.random.uniform(k_noise, (), maxval=0.05),
        floor=jax.random.uniform(k_floor, (), minval=0.01, maxval=0.12),
        key=k_paint,
    )


def _random_table(key: jax.Array, anatomy: Anatomy) -> jax.Array:
    keys = jax.random.split(key, 16)

    def uniform(i: int, low: float, high: float, shape: tuple[int, ...] = ()) -> jax.Array:
        return jax.random.uniform(keys[i], shape, minval=low, maxval=high)

    def normal(i: int, scale: float, shape: tuple[int, ...] = ()) -> jax.Array:
        return scale * jax.random.normal(keys[i], shape)

    free = uniform(0, 0.0, 1.0) < _FREE_CONTRAST
    random = uniform(1, 0.08, 1.0, (an.GROUPS,))
    fluid, grey, white = jnp.where(
        free, uniform(2, 0.05, 1.0, (3,)), jnp.stack([uniform(3, 0.08, 0.36), uniform(4, 0.52, 0.82), jnp.array(1.0)])
    )

    level = jnp.arange(an.LEVELS, dtype=jnp.float32) * an.LEVEL
    fluid_grey, grey_white = 54.0 + normal(5, 3.0), 76.0 + normal(6, 2.5)
    soft_fluid, soft_white = uniform(7, 1.5, 5.0), uniform(8, 1.0, 4.0)

    def tissue(fluid: jax.Array, white: jax.Array, threshold: jax.Array) -> jax.Array:
        step = jax.nn.sigmoid((level - threshold) / soft_fluid)
        return fluid + (grey - fluid) * step + (white - grey) * jax.nn.sigmoid((level - grey_white) / soft_white)

    # Skull stripping keeps anything from all to none of the fluid outside the brain.
    kept = jnp.clip(uniform(9, -0.4, 1.0), 0.0, 1.0)
    stem = grey + (white - grey) * uniform(10, 0.6, 1.0)
    rows = {
        an.TISSUE: tissue(fluid, white, fluid_grey),
        an.SHELL: tissue(kept * fluid, white, fluid_grey),
        an.FLUID: tissue(fluid, white, fluid_grey + 3.0),
        an.BRAINSTEM: tissue(fluid, stem, fluid_grey),
        an.CEREBELLUM: tissue(fluid, white, fluid_grey),
        an.CEREBELLAR_WHITE: tissue(fluid, white, fluid_grey),
    }

    position = jnp.repeat(jnp.array(_POSITION) + normal(11, 0.1, (7,)), 2) + normal(12, 0.025, (14,))
    texture = uniform(13, 0.0, 1.2, (an.GROUPS,))
    residual = level[None, :] - (anatomy.level_means * an.LEVEL)[:, None]
    mean = grey + (white - grey) * position
    mean = jnp.concatenate([jnp.broadcast_to(fluid * (1.0 + normal(14, 0.08)), (2,)), mean[2:], mean[6:7]])
    mean = jnp.where(free, jnp.concatenate([jnp.repeat(random[:7], 2), random[14:15]]), mean)
    slope = jnp.where(
        jnp.arange(15) < 2, (grey - fluid) / (_GREY - _FLUID), jnp.minimum((white - grey) / (_WHITE - _GREY), 0.02)
    )
    index = jnp.array([*range(1, 15), an.ACCUMBENS])
    own = mean[:, None] + (texture[index] * slope)[:, None] * residual[index]
    rows |= dict(zip([*range(1, 15), an.ACCUMBENS], own, strict=True))
    rows[0] = jnp.zeros(an.LEVELS)
    return jnp.maximum(jnp.stack([rows[g] for g in range(an.GROUPS)]), 0.0).reshape(-1)


def paint(deformed: Deformed, appearance: Appearance) -> jax.Array:
    """The image of a deformed template: intensities, noise, blur, bias field, contrast curve, brain edge, scaling.

    Args:
        deformed: the sampled template.
        appearance: the parameters.

    Returns:
        float32[91, 109, 91], divided by its mean over the voxels above zero and clipped to 0..4.
    """
    image = (deformed.weights * appearance.table[deformed.codes]).sum(0).reshape(EXTENT)
    noisy = image + appearance.noise * jax.random.normal(appearance.key, EXTENT)
    image = jnp.where(image > 0, noisy, 0.0)
    for axis in range(3):
        image = _blur(image, appearance.blur[axis], axis)
    image = jnp.maximum(image, 0.0) ** appearance.gamma * jnp.exp(spread(appearance.bias, EXTENT)[..., 0])
    image = jnp.where(image > appearance.floor, image, 0.0)
    image = jnp.pad(image, [(c, n - c - e) for c, e, n in zip(CORNER, EXTENT, an.GRID, strict=True)])
    return jnp.clip(image / (image.sum() / jnp.maximum((image > 0).sum(), 1).astype(image.dtype)), 0.0, 4.0)


def _blur(image: jax.Array, sigma: jax.Array, axis: int) -> jax.Array:
    taps = jnp.exp(-0.5 * (jnp.arange(3, dtype=image.dtype) / sigma) ** 2)
    taps = taps / (taps[0] + 2.0 * taps[1] + 2.0 * taps[2])
    return taps[0] * image + sum(taps[i] * (jnp.roll(image, i, axis) + jnp.roll(image, -i, axis)) for i in (1, 2))
