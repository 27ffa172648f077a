"""How much a mask deletes or keeps, and how rough it is: pure functions of one mask, equal by value.

The *share* is what a mask acts on: ``1 - m`` of a mask that deletes, ``m`` of one that preserves.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxsal.masks.terms import absolute
from jaxsal.optim.applied import Applied

Penalty = Callable[[jax.Array], jax.Array]


def share_sum(beta: float = 1.0) -> Penalty:
    """``sum_u |v(u)|^beta`` of a share ``v[*t]``.

    Raises:
        ValueError: if ``beta`` is below 1, where the slope at 0 is infinite; so do all that follow.
    """
    return Applied(_share_sum, (_exponent(beta),))


def share_mean(beta: float = 1.0) -> Penalty:
    """``mean_u |v(u)|^beta`` of a share ``v[*t]``."""
    return Applied(_share_mean, (_exponent(beta),))


def share_norm(beta: float = 1.0) -> Penalty:
    """``||v||_beta = (sum_u |v(u)|^beta)^(1 / beta)`` of a share ``v[*t]``, with slope 0 at 0."""
    return Applied(_share_norm, (_exponent(beta),))


def variation_sum(beta: float = 3.0) -> Penalty:
    """Isotropic total variation, ``sum_u (sum_axis (d_axis m)^2)^(beta / 2)``, differences 0 at the far ends.

    Reference:
        Mahendran and Vedaldi, IJCV 2016, https://doi.org/10.1007/s11263-016-0911-8

    Example:
        >>> float(variation_sum(2.0)(jnp.array([[0.0, 0.0], [0.0, 2.0]])))
        8.0
    """
    return Applied(_variation_sum, (_exponent(beta),))


def variation_mean(beta: float = 3.0) -> Penalty:
    """Anisotropic total variation, ``sum_axis mean_u |d_axis m|^beta``."""
    return Applied(_variation_mean, (_exponent(beta),))


def variation_norm(beta: float = 1.0) -> Penalty:
    """``||grad m||_beta = (sum_axis sum_u |d_axis m|^beta)^(1 / beta)``, with slope 0 at 0."""
    return Applied(_variation_norm, (_exponent(beta),))


def _share_sum(beta: float, share: jax.Array) -> jax.Array:
    return (absolute(share) ** beta).sum()


def _share_mean(beta: float, share: jax.Array) -> jax.Array:
    return (absolute(share) ** beta).mean()


def _share_norm(beta: float, share: jax.Array) -> jax.Array:
    return _root(_share_sum(beta, share), 1 / beta)


def _variation_sum(beta: float, mask: jax.Array) -> jax.Array:
    squares = jnp.zeros_like(mask)
    for axis in range(mask.ndim):
        ends = [(0, int(axis == a)) for a in range(mask.ndim)]
        squares = squares + jnp.pad(jnp.diff(mask, axis=axis), ends) ** 2
    return _root(squares, beta / 2).sum()


def _variation_mean(beta: float, mask: jax.Array) -> jax.Array:
    steps = [absolute(jnp.diff(mask, axis=axis)) ** beta for axis in range(mask.ndim)]
    return sum((s.sum() / max(s.size, 1) for s in steps), jnp.zeros((), mask.dtype))


def _variation_norm(beta: float, mask: jax.Array) -> jax.Array:
    steps = [(absolute(jnp.diff(mask, axis=axis)) ** beta).sum() for axis in range(mask.ndim)]
    return _root(sum(steps, jnp.zeros((), mask.dtype)), 1 / beta)


def _root(x: jax.Array, power: float) -> jax.Array:
    """``x ** power`` of numbers of at least 0, with slope 0 at 0, where a root has an infinite one."""
    empty = x == 0
    return jnp.where(empty, 0, jnp.where(empty, 1, x) ** power)


def _exponent(beta: float) -> float:
    if not 1 <= beta < float("inf"):
        raise ValueError(f"A penalty got beta={beta}, a finite exponent of at least 1 is needed.")
    return float(beta)
