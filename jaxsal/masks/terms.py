"""What a mask objective is made of: pure functions that add up."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# (prediction under a mask, prediction, sigma) -> a number, 0 where they agree
Distance = Callable[[Any, Any, Any], Any]


def l1_distance(a: jax.Array, b: jax.Array, sigma: jax.Array | float = 1.0) -> jax.Array:
    """Mean distance of two predictions in standard deviations, ``mean |a - b| / sigma``.

    Args:
        a: ``[k]``, or one output ``[]``.
        b: like ``a``.
        sigma: standard deviation of each output, like ``a`` or a number for all.

    Example:
        >>> float(l1_distance(jnp.array([1.0, 5.0]), jnp.array([2.0, 1.0]), jnp.array([1.0, 4.0])))
        1.0
    """
    return absolute(_standardised(a, b, sigma)).mean()


def l2_distance(a: jax.Array, b: jax.Array, sigma: jax.Array | float = 1.0) -> jax.Array:
    """Mean squared distance of two predictions in standard deviations, ``mean ((a - b) / sigma)^2``.

    Args:
        a: ``[k]``, or one output ``[]``.
        b: like ``a``.
        sigma: standard deviation of each output, like ``a`` or a number for all.

    Example:
        >>> float(l2_distance(jnp.array([1.0, 5.0]), jnp.array([2.0, 1.0]), jnp.array([1.0, 2.0])))
        2.5
    """
    return (_standardised(a, b, sigma) ** 2).mean()


def huber_distance(
    a: jax.Array, b: jax.Array, sigma: jax.Array | float = 1.0, delta: jax.Array | float = 1.0
) -> jax.Array:
    """Mean Huber distance, quadratic up to ``delta`` standard deviations, linear beyond.

    ``h(r) = r^2 / 2`` for ``|r| <= delta``, else ``delta (|r| - delta / 2)``, with ``r = (a - b) / sigma``.

    Args:
        a: ``[k]``, or one output ``[]``.
        b: like ``a``.
        sigma: standard deviation of each output, like ``a`` or a number for all.
        delta: where it turns linear, in standard deviations.

    Reference:
        Huber 1964, https://doi.org/10.1214/aoms/1177703732

    Example:
        >>> float(huber_distance(jnp.array([1.0, 4.0]), jnp.zeros(2)))
        2.0
    """
    r = _standardised(a, b, sigma)
    near = jnp.clip(r, -delta, delta)
    return (near * (r - near / 2)).mean()


def relative_distance(a: jax.Array, b: jax.Array, floor: jax.Array | float = 1e-6) -> jax.Array:
    """Mean distance as a share of the second prediction, ``mean |a - b| / max(|b|, floor)``.

    Args:
        a: ``[k]``, or one output ``[]``.
        b: like ``a``, what the distance is relative to.
        floor: least size that ``b`` is taken to have, in its units.

    Example:
        >>> float(relative_distance(jnp.array([3.0, 5.0]), jnp.array([2.0, -5.0])))
        1.25
    """
    return (absolute(a - b) / jnp.maximum(jnp.abs(b), floor)).mean()


def cosine_distance(a: jax.Array, b: jax.Array, sigma: jax.Array | float = 1.0) -> jax.Array:
    """Angle between two predictions of several outputs, ``1 - <a, b> / (||a|| ||b||)`` in standard deviations.

    It is 1, with gradient 0, where one of them is all zero.

    Args:
        a: ``[k]``.
        b: ``[k]``.
        sigma: standard deviation of each output, ``[k]`` or a number for all.

    Example:
        >>> float(cosine_distance(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])))
        1.0
    """
    a, b = a / sigma, b / sigma
    squares = jnp.sum(a * a) * jnp.sum(b * b)
    empty = squares == 0
    return 1 - jnp.where(empty, 0, jnp.sum(a * b) / jnp.sqrt(jnp.where(empty, 1, squares)))


def unit_norm(mask: jax.Array) -> jax.Array:
    """Departure from the budget, ``|1 - ||M||_2|``."""
    return absolute(1 - l2_norm(mask))


def total_variation(mask: jax.Array) -> jax.Array:
    """Mean anisotropic total variation, averaged over the axes.

    ``1/rank * sum_axis mean |M[i + 1] - M[i]|``. Means make the weight of the term independent of the mask's
    grid. An axis of one voxel varies by nothing.

    Args:
        mask: ``[*t]``.

    Example:
        >>> float(total_variation(jnp.array([[0.0, 1.0], [0.0, 3.0]])))
        1.5
    """
    return _mean_over_axes([absolute(d) for d in _differences(mask)], mask)


def anisotropic_variation(mask: jax.Array, beta: jax.Array | float = 2.0) -> jax.Array:
    """Mean over axes and voxels of ``|M[i + 1] - M[i]|^beta``; :func:`total_variation` is that with ``beta = 1``.

    Its slope is 0 where a difference is 0, for any ``beta > 0``.

    Args:
        mask: ``[*t]``.
        beta: above 0; above 1 it prefers gradual changes to edges.

    Reference:
        Mahendran and Vedaldi 2015, https://doi.org/10.1109/CVPR.2015.7299155

    Example:
        >>> float(anisotropic_variation(jnp.array([0.0, 1.0, 4.0]), 3.0))
        14.0
    """
    return _mean_over_axes([_power(absolute(d), beta) for d in _differences(mask)], mask)


def isotropic_total_variation(mask: jax.Array) -> jax.Array:
    """Mean over voxels of ``||grad M||_2``, with forward differences that are 0 at the far edges.

    Its slope is 0 where the gradient is 0. Unlike :func:`total_variation` it does not favour the axes of the grid.

    Args:
        mask: ``[*t]``.

    Reference:
        Rudin, Osher and Fatemi 1992, https://doi.org/10.1016/0167-2789(92)90242-F

    Example:
        >>> float(isotropic_total_variation(jnp.array([[0.0, 4.0], [3.0, 3.0]])))
        1.5
    """
    return isotropic_variation(mask, 1.0)


def isotropic_variation(mask: jax.Array, beta: jax.Array | float = 2.0) -> jax.Array:
    """Mean over voxels of ``||grad M||_2^beta``, with forward differences that are 0 at the far edges.

    Its slope is 0 where the gradient is 0, for any ``beta > 0``.

    Args:
        mask: ``[*t]``.
        beta: above 0; Fong and Vedaldi take 3.

    Reference:
        Mahendran and Vedaldi 2015, https://doi.org/10.1109/CVPR.2015.7299155; Fong and Vedaldi 2017,
        https://doi.org/10.1109/ICCV.2017.371

    Example:
        >>> float(isotropic_variation(jnp.array([[0.0, 4.0], [3.0, 3.0]]), 2.0))
        6.5
    """
    squares = jnp.zeros_like(mask)
    for axis, difference in enumerate(_differences(mask)):
        far = [(0, int(other == axis)) for other in range(mask.ndim)]
        squares += jnp.pad(difference**2, far)
    return _power(squares, beta / 2).mean()


def variation_norm(mask: jax.Array, beta: jax.Array | float = 1.0) -> jax.Array:
    """``||grad M||_beta = (sum over axes and voxels of |M[i + 1] - M[i]|^beta)^(1 / beta)``, with slope 0 at 0.

    Args:
        mask: ``[*t]``.
        beta: at least 1.

    Example:
        >>> float(variation_norm(jnp.array([0.0, 3.0, 7.0]), 2.0))
        5.0
    """
    powers = [power_sum(d, beta) for d in _differences(mask)]
    return _power(sum(powers, jnp.zeros((), mask.dtype)), 1 / beta)


def l1_sparsity(mask: jax.Array) -> jax.Array:
    """Mean size of the mask, ``mean |M|``, with slope 0 at 0.

    Example:
        >>> float(l1_sparsity(jnp.array([0.0, -1.0, 2.0, 1.0])))
        1.0
    """
    return absolute(mask).mean()


def area(mask: jax.Array) -> jax.Array:
    """Share of the image that a mask between 0 and 1 keeps, ``mean M``.

    Example:
        >>> float(area(jnp.array([0.0, 0.5, 1.0, 0.5])))
        0.5
    """
    return mask.mean()


def area_distance(mask: jax.Array, target: jax.Array | float) -> jax.Array:
    """Departure from a mask that is 1 on a share of the image and 0 elsewhere, wherever that is.

    ``mean (sort(M) - r)^2``, with ``r`` 0 for the smallest values and 1 for the ``target`` share of the largest.

    Args:
        mask: ``[*t]``.
        target: share of the voxels, from 0 to 1; rounded to whole voxels.

    Reference:
        Fong, Patrick and Vedaldi 2019, https://doi.org/10.1109/ICCV.2019.00304

    Example:
        >>> float(area_distance(jnp.array([1.0, 0.0, 0.0, 0.0]), 0.5))
        0.25
    """
    kept = jnp.round(jnp.asarray(target, jnp.float32) * mask.size)
    return step_distance(mask, (mask.size - kept).astype(jnp.int32))


def step_distance(mask: jax.Array, outside: jax.Array | int) -> jax.Array:
    """:func:`area_distance` for a number of voxels that the mask is to leave out, int32.

    Example:
        >>> float(step_distance(jnp.array([1.0, 0.0, 0.0, 0.0]), 3))
        0.0
    """
    ascending = jnp.sort(mask.reshape(-1))
    wanted = jnp.arange(mask.size, dtype=jnp.int32) >= outside
    return ((ascending - wanted.astype(mask.dtype)) ** 2).mean()


def entropy(mask: jax.Array) -> jax.Array:
    """Entropy of the mask as a distribution over voxels, in nats: 0 on one voxel, ``log n`` if uniform.

    ``-sum p log p`` with ``p = |M| / sum |M|``; 0 for an empty mask, and with slope 0 at voxels that are 0.

    Args:
        mask: ``[*t]``.

    Reference:
        Shannon 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x

    Example:
        >>> print(entropy(jnp.array([0.0, 3.0, 3.0, 0.0])).round(4))
        0.6931
    """
    sizes = absolute(mask)
    total = sizes.sum()
    share = sizes / jnp.where(total == 0, 1, total)
    return -_x_log_x(share).sum()


def binary_entropy(mask: jax.Array) -> jax.Array:
    """Mean entropy of each voxel between kept and not, in nats: 0 for a mask of zeros and ones.

    ``mean -(m log m + (1 - m) log(1 - m))``, with ``m`` the mask clipped to 0 and 1, and slope 0 there.

    Args:
        mask: ``[*t]``.

    Reference:
        Shannon 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x

    Example:
        >>> print(binary_entropy(jnp.array([0.0, 0.5, 1.0, 0.5])).round(4))
        0.3466
    """
    inside = (mask > 0) & (mask < 1)
    m = jnp.where(inside, mask, 0)
    return -jnp.where(inside, _x_log_x(m) + _x_log_x(1 - m), 0).mean()


def absolute(x: jax.Array) -> jax.Array:
    """``|x|`` with slope 0 at 0.

    ``jnp.abs`` has slope +1 there; masks start uniform, where every difference is 0, and that slope would
    push them towards one corner.
    """
    return x * jax.lax.stop_gradient(jnp.sign(x))


def l1_norm(x: jax.Array) -> jax.Array:
    """``||x||_1`` with slope 0 at 0."""
    return absolute(x).sum()


def power_sum(x: jax.Array, beta: jax.Array | float) -> jax.Array:
    """``sum |x|^beta``, with slope 0 at 0 for any ``beta > 0``."""
    return _power(absolute(x), beta).sum()


def power_mean(x: jax.Array, beta: jax.Array | float) -> jax.Array:
    """``mean |x|^beta``, with slope 0 at 0 for any ``beta > 0``."""
    return _power(absolute(x), beta).mean()


def lp_norm(x: jax.Array, beta: jax.Array | float) -> jax.Array:
    """``||x||_beta = (sum |x|^beta)^(1 / beta)``, with slope 0 at 0."""
    return _power(power_sum(x, beta), 1 / beta)


def l2_norm(x: jax.Array) -> jax.Array:
    """``||x||_2`` with gradient 0 at 0, where ``jnp.linalg.norm`` has NaN."""
    square = jnp.sum(x * x)
    empty = square == 0
    return jnp.where(empty, 0, jnp.sqrt(jnp.where(empty, 1, square)))


def _standardised(a: jax.Array, b: jax.Array, sigma: jax.Array | float) -> jax.Array:
    return (a - b) / sigma


def _differences(mask: jax.Array) -> list[jax.Array]:
    return [jnp.diff(mask, axis=axis) for axis in range(mask.ndim)]


def _mean_over_axes(parts: list[jax.Array], mask: jax.Array) -> jax.Array:
    return sum((part.sum() / max(part.size, 1) for part in parts), jnp.zeros((), mask.dtype)) / mask.ndim


def _power(x: jax.Array, exponent: jax.Array | float) -> jax.Array:
    """A power of numbers of at least 0 with slope 0 at 0, where the slope of a small power is infinite."""
    empty = x == 0
    return jnp.where(empty, 0, jnp.where(empty, 1, x) ** exponent)


def _x_log_x(x: jax.Array) -> jax.Array:
    empty = x <= 0
    return jnp.where(empty, 0, x * jnp.log(jnp.where(empty, 1, x)))
