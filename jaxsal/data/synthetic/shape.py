"""Random anatomy: a pull-back map from the output grid into the template, and the volumes it gives."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsal.data.synthetic import anatomy as an
from jaxsal.data.synthetic._warp import interpolate, sample, spread
from jaxsal.data.synthetic.anatomy import Anatomy

CORNER, EXTENT = (4, 4, 0), (83, 101, 83)
"""The part of the output grid that a brain can reach: first voxel and number of voxels."""

# The part of it that the measured structures can reach, 20 mm around the template's on every side.
_NEAR = ((11, 72), (7, 86), (10, 62))

# mm between control points and standard deviation of the control points in mm, coarse to fine.
_SCALES = ((50.0, 4.0), (28.0, 2.6), (14.0, 1.5), (9.0, 1.0))
_SQUARINGS = 3


class Shape(NamedTuple):
    """The parameters of one anatomy.

    Attributes:
        linear: departure of the affine pull-back from the identity, float32[3, 3].
        shift: translation of the pull-back in mm, float32[3].
        control: control points of the smooth displacement in mm, one array float32[i, j, k, 3] per scale.
        growth: outward boundary shift in mm of the 14 measured structures, the inferior horns (left, right) and
            the third ventricle, float32[17].
    """

    linear: jax.Array
    shift: jax.Array
    control: tuple[jax.Array, ...]
    growth: jax.Array


class Deformed(NamedTuple):
    """A deformed template, sampled: eight codes and weights per voxel of the reachable part of the grid.

    Attributes:
        codes: group * 256 + intensity level, uint16[8, n].
        weights: trilinear weights, float32[8, n]; they sum to 1 over the first axis.
    """

    codes: jax.Array
    weights: jax.Array


def _control_shape(spacing: float) -> tuple[int, int, int]:
    i, j, k = (round((n - 1) * an.SPACING / spacing) + 3 for n in EXTENT)
    return i, j, k


def identity_shape() -> Shape:
    """The template itself, neither moved nor grown."""
    control = tuple(jnp.zeros((*_control_shape(spacing), 3)) for spacing, _ in _SCALES)
    return Shape(jnp.zeros((3, 3)), jnp.zeros(3), control, jnp.zeros(an.GROWTHS))


def random_shape(key: jax.Array, anatomy: Anatomy) -> Shape:
    """One anatomy of the cohort: affine jitter, smooth fields, and growth of each structure on each side.

    Ageing moves all structures together (ventricles open, nuclei shrink); a factor per pair and one per structure
    are added, so that the two sides correlate without being tied.

    Args:
        key: a JAX random key.
        anatomy: the template.

    Returns:
        The parameters, to be given to :func:`deform`.
    """
    k_linear, k_shift, k_control, k_growth, k_size = jax.random.split(key, 5)
    scale = jnp.diag(0.03 * jax.random.normal(k_size, (3,)))
    linear = scale + 0.018 * jax.random.normal(k_linear, (3, 3))
    shift = 1.5 * jax.random.normal(k_shift, (3,))
    control = tuple(
        amplitude * jax.random.normal(k, (*_control_shape(spacing), 3))
        for k, (spacing, amplitude) in zip(jax.random.split(k_control, len(_SCALES)), _SCALES, strict=True)
    )
    return Shape(linear, shift, control, _random_growth(k_growth, anatomy))


def _random_growth(key: jax.Array, anatomy: Anatomy) -> jax.Array:
    k_age, k_pair, k_single, k_fluid, k_horns = jax.random.split(key, 5)
    age = jax.random.normal(k_age)
    pair = jnp.repeat(jax.random.normal(k_pair, (7,)), 2)
    single = jax.random.normal(k_single, (14,))
    # Logarithm of the volume, at first order; the ventricles' is skewed, as in any cohort that contains the elderly.
    nuclei = jnp.clip(-0.07 * age + 0.15 * pair + 0.12 * single, -0.45, 0.45)
    drive = 0.55 * age + 0.65 * pair + 0.35 * single
    ventricles = jnp.where(drive > 0, 1.1 * drive, 0.45 * drive)
    log_volume = jnp.where(jnp.arange(14) < 2, jnp.clip(ventricles, -0.8, 2.6), nuclei)
    horns = jnp.clip(0.5 * ventricles[:2] + 0.3 * jax.random.normal(k_horns, (2,)), -0.6, 1.2)
    third = jnp.clip(0.5 * ventricles[:2].mean() + 0.3 * jax.random.normal(k_fluid, (1,)), -0.6, 1.2)
    return jnp.concatenate([log_volume, horns, third]) * anatomy.reach


def deform(anatomy: Anatomy, shape: Shape) -> Deformed:
    r"""The template under a shape: p -> s(p) with s(p) = g(p + A p + r(p)), sampled at the output grid.

    A is the affine jitter, r a sum of cubic B-spline fields, and g the flow of all growth velocities together for
    unit time (scaling and squaring), so that growth of any amount does not fold.

    Args:
        anatomy: the template.
        shape: the parameters.

    Returns:
        The eight template voxels around the origin of each output voxel, with their weights.
    """
    axes = [
        (jnp.arange(n, dtype=jnp.float32) + first) * an.SPACING + origin
        for n, first, origin in zip(EXTENT, CORNER, an.ORIGIN, strict=True)
    ]
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    points = grid + grid @ shape.linear.T + shape.shift[None]
    for control in shape.control:
        points = points + spread(control, EXTENT).reshape(-1, 3)
    growth = grow(anatomy, shape.growth)
    points = points + interpolate(growth, (points - anatomy.growth_origin[None]) / an.SPACING)
    codes, weights = sample(anatomy.codes, points - anatomy.origin[None])
    return Deformed(codes, weights)


def grow(anatomy: Anatomy, amounts: jax.Array) -> jax.Array:
    """The pull-back displacement in mm of growth alone on the template's 2 mm nodes, float32[i, j, k, 3]."""
    nodes = anatomy.growth.shape[1:4]
    velocity = -(amounts @ anatomy.growth.reshape(an.GROWTHS, -1)).reshape(*nodes, 3)
    index = jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in nodes), indexing="ij"), -1)

    def square(flow: jax.Array) -> jax.Array:
        moved = (index + flow / an.SPACING).reshape(-1, 3)
        return flow + interpolate(flow, moved).reshape(flow.shape)

    flow = velocity / 2.0**_SQUARINGS
    for _ in range(_SQUARINGS):
        flow = square(flow)
    return flow


def volumes(deformed: Deformed) -> tuple[jax.Array, jax.Array]:
    """Volumes of the measured structures and of the brain: trilinear occupancy summed over 8 mm^3 voxels.

    Returns:
        mm^3 of the outputs in their order, float32[14], and mm^3 of the brain, float32[].
    """
    group = (deformed.codes >> 8).reshape(8, *EXTENT)  # an.LEVELS is 2^8
    weights = deformed.weights.reshape(8, *EXTENT)
    near = (slice(None), *(slice(a, b) for a, b in _NEAR))
    deep, share = group[near], weights[near]
    # Column sums first: the last axis is summed in vector registers.
    of = jnp.stack([jnp.where(deep == g, share, 0.0).sum((0, 1, 2)).sum() for g in range(1, 1 + len(an.OUTPUTS))])
    brain = jnp.where(group > 0, weights, 0.0).sum((0, 1, 2)).sum()
    return of * an.SPACING**3, brain * an.SPACING**3


def occupancy(deformed: Deformed, first: int, cell: int, cells: tuple[int, int, int]) -> jax.Array:
    """Share of each measured structure in cubic cells of the output grid.

    Args:
        deformed: the sampled template.
        first: output voxel at which the first cell starts on every axis; may be negative.
        cell: edge of a cell in output voxels.
        cells: number of cells along each axis.

    Returns:
        float32[*cells, 14]; a cell's volume in mm^3 times its shares, summed over cells, is the volumes.
    """
    group = (deformed.codes >> 8).reshape(8, *EXTENT)
    weights = deformed.weights.reshape(8, *EXTENT)
    shares = jnp.stack([jnp.where(group == g, weights, 0.0).sum(0) for g in range(1, 1 + len(an.OUTPUTS))], -1)
    ends = [c + e - first for c, e in zip(CORNER, EXTENT, strict=True)]
    after = [max(n * cell - end, 0) for n, end in zip(cells, ends, strict=True)]
    shares = jnp.pad(shares, [*((c - first, a) for c, a in zip(CORNER, after, strict=True)), (0, 0)])
    i, j, k = cells
    shares = shares[: i * cell, : j * cell, : k * cell]
    return shares.reshape(i, cell, j, cell, k, cell, -1).mean((1, 3, 5))
