"""Denoising by total variation, solved in its dual: the proximal step of total variation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def tv_prox(image: jax.Array, weight: float | jax.Array, iterations: int = 100) -> jax.Array:
    r"""The image of least ``1/2 ||x - image||^2 + weight * TV(x)``, isotropic: the Rudin-Osher-Fatemi model.

    ``TV(x) = sum over voxels of sqrt(sum over axes of (x[i + 1] - x[i])^2)``, with difference 0 at the far edges.
    Solved by the fast gradient projection on its dual.

    Args:
        image: ``[*t]``, any rank.
        weight: of the total variation, at least 0.
        iterations: of the dual solver; its error falls with their square.

    Returns:
        ``[*t]``.

    Reference:
        Rudin, Osher and Fatemi 1992, https://doi.org/10.1016/0167-2789(92)90242-F; the dual: Chambolle 2004,
        https://doi.org/10.1023/B:JMIV.0000011325.36760.1e; the solver: Beck and Teboulle 2009,
        https://doi.org/10.1109/TIP.2009.2028250

    Example:
        >>> [f"{x:.2f}" for x in tv_prox(jnp.array([0.0, 0.0, 6.0, 6.0]), 1.0)]
        ['0.50', '0.50', '5.50', '5.50']
    """
    return _solved(image, weight, iterations, isotropic())


def tv_prox_anisotropic(image: jax.Array, weight: float | jax.Array, iterations: int = 100) -> jax.Array:
    r"""The image of least ``1/2 ||x - image||^2 + weight * TV(x)``, anisotropic.

    ``TV(x) = sum over voxels and axes of |x[i + 1] - x[i]|``.

    Args:
        image: ``[*t]``, any rank.
        weight: of the total variation, at least 0.
        iterations: of the dual solver.

    Returns:
        ``[*t]``.

    Reference:
        Beck and Teboulle 2009, https://doi.org/10.1109/TIP.2009.2028250
    """
    return _solved(image, weight, iterations, anisotropic())


Dual = tuple[jax.Array, ...]


class Variation(NamedTuple):
    """A total variation, as a norm of the differences along the axes.

    Attributes:
        norm: ``differences -> scalar``.
        bounded: ``dual -> dual``, the nearest variables whose dual norm is at most 1 in each voxel.
    """

    norm: Callable[[Dual], jax.Array]
    bounded: Callable[[Dual], Dual]


def isotropic() -> Variation:
    """The length over the axes, summed over voxels."""
    return Variation(_sum_of_lengths, _within_balls)


def anisotropic() -> Variation:
    """The absolute values, summed over axes and voxels."""
    return Variation(_sum_of_sizes, _within_boxes)


def variation(image: jax.Array, weights: Sequence[jax.Array], kind: Variation) -> jax.Array:
    """The total variation of an image, its differences weighted per axis."""
    return kind.norm(tuple(w * difference(image, axis) for axis, w in enumerate(weights)))


def _lengths(dual: Dual) -> jax.Array:
    return jnp.sqrt(sum((p * p for p in dual), jnp.zeros_like(dual[0])))


def _sum_of_lengths(differences: Dual) -> jax.Array:
    return _lengths(differences).sum()


def _within_balls(dual: Dual) -> Dual:
    outside = jnp.maximum(_lengths(dual), 1)
    return tuple(p / outside for p in dual)


def _sum_of_sizes(differences: Dual) -> jax.Array:
    return sum((jnp.abs(d).sum() for d in differences), jnp.zeros((), differences[0].dtype))


def _within_boxes(dual: Dual) -> Dual:
    return tuple(jnp.clip(p, -1, 1) for p in dual)


def denoise(
    image: jax.Array,
    weights: Sequence[jax.Array],
    dual: Dual,
    iterations: int,
    kind: Variation,
    project: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, Dual]:
    """Fast gradient projection on the dual of denoising by total variation.

    Args:
        image: ``[*t]``.
        weights: of the differences along each axis.
        dual: where to start, one ``[*t]`` per axis.
        iterations: how many.
        kind: of total variation.
        project: projects the image onto the convex set that it has to lie in.

    Returns:
        The image and its dual variables.
    """
    # the largest eigenvalue of the differences' square is below 4 per axis
    bound = 4 * sum((w * w for w in weights), jnp.zeros((), image.dtype))
    rate = 1 / jnp.where(bound == 0, 1, bound)

    def primal(dual: Dual) -> jax.Array:
        terms = (w * adjoint(p, axis) for axis, (w, p) in enumerate(zip(weights, dual, strict=True)))
        return project(sum((-t for t in terms), image))

    def iterate(_: int, state: tuple[Dual, Dual, jax.Array]):
        dual, ahead, t = state
        x = primal(ahead)
        following = kind.bounded(
            tuple(r + rate * w * difference(x, axis) for axis, (w, r) in enumerate(zip(weights, ahead, strict=True)))
        )
        later = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        ahead = tuple(new + (t - 1) / later * (new - old) for new, old in zip(following, dual, strict=True))
        return following, ahead, later

    dual, _, _ = jax.lax.fori_loop(0, iterations, iterate, (dual, dual, jnp.ones((), image.dtype)))
    return primal(dual), dual


def _solved(image: jax.Array, weight: float | jax.Array, iterations: int, kind: Variation):
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(f"The image has dtype {image.dtype}, a floating-point one is needed: use astype.")
    weights = (jnp.asarray(weight, image.dtype),) * image.ndim
    start = tuple(jnp.zeros_like(image) for _ in range(image.ndim))
    return denoise(image, weights, start, iterations, kind, lambda x: x)[0]


def difference(x: jax.Array, axis: int) -> jax.Array:
    """Forward differences of the same shape, 0 at the far edge."""
    return jnp.pad(jnp.diff(x, axis=axis), _end(x.ndim, axis))


def adjoint(p: jax.Array, axis: int) -> jax.Array:
    """The transpose of :func:`difference`."""
    inner = jax.lax.slice_in_dim(p, 0, p.shape[axis] - 1, axis=axis)
    return jnp.pad(inner, _end(p.ndim, axis, before=True)) - jnp.pad(inner, _end(p.ndim, axis))


def _end(rank: int, axis: int, before: bool = False) -> list[tuple[int, int]]:
    widths = np.zeros((rank, 2), int)
    widths[axis, 0 if before else 1] = 1
    return [(int(a), int(b)) for a, b in widths]
