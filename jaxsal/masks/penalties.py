"""How much a mask deletes or keeps, and how rough it is: terms with their exponent, equal by value.

The *share* is what a mask acts on: ``1 - m`` of a mask that deletes, ``m`` of one that preserves. The functions are
those of :mod:`jaxsal.masks.terms`; where programmes take a sum for a mean, so do these.
"""

from collections.abc import Callable

import jax

from jaxsal.masks import terms
from jaxsal.optim.applied import Applied

Penalty = Callable[[jax.Array], jax.Array]


def share_sum(beta: float = 1.0) -> Penalty:
    """``sum_u |v(u)|^beta`` of a share ``v[*t]``.

    Raises:
        ValueError: if ``beta`` is below 1, where the slope at 0 is infinite; so do all that follow.
    """
    return _penalty(terms.power_sum, beta)


def share_mean(beta: float = 1.0) -> Penalty:
    """``mean_u |v(u)|^beta`` of a share ``v[*t]``."""
    return _penalty(terms.power_mean, beta)


def share_norm(beta: float = 1.0) -> Penalty:
    """``||v||_beta = (sum_u |v(u)|^beta)^(1 / beta)`` of a share ``v[*t]``, with slope 0 at 0."""
    return _penalty(terms.lp_norm, beta)


def variation_sum(beta: float = 3.0) -> Penalty:
    """Isotropic total variation, ``sum_u (sum_axis (d_axis m)^2)^(beta / 2)``, differences 0 at the far ends.

    Reference:
        Mahendran and Vedaldi, IJCV 2016, https://doi.org/10.1007/s11263-016-0911-8

    Example:
        >>> import jax.numpy as jnp
        >>> float(variation_sum(2.0)(jnp.array([[0.0, 0.0], [0.0, 2.0]])))
        8.0
    """
    return _penalty(_isotropic_sum, beta)


def variation_mean(beta: float = 3.0) -> Penalty:
    """Anisotropic total variation, ``sum_axis mean_u |d_axis m|^beta``."""
    return _penalty(_sum_of_means, beta)


def variation_norm(beta: float = 1.0) -> Penalty:
    """``||grad m||_beta = (sum_axis sum_u |d_axis m|^beta)^(1 / beta)``, with slope 0 at 0."""
    return _penalty(terms.variation_norm, beta)


def _with_exponent(term: Callable[[jax.Array, float], jax.Array], beta: float, mask: jax.Array) -> jax.Array:
    return term(mask, beta)


def _isotropic_sum(mask: jax.Array, beta: float) -> jax.Array:
    return mask.size * terms.isotropic_variation(mask, beta)


def _sum_of_means(mask: jax.Array, beta: float) -> jax.Array:
    return mask.ndim * terms.anisotropic_variation(mask, beta)


def _penalty(term: Callable[[jax.Array, float], jax.Array], beta: float) -> Penalty:
    if not 1 <= beta < float("inf"):
        raise ValueError(f"A penalty got beta={beta}, a finite exponent of at least 1 is needed.")
    return Applied(_with_exponent, (term, float(beta)))
