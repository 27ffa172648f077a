"""Sums, means and extremes over axes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal.graph.laid import Laid, without


def over_axes(fn: Callable[..., jax.Array]) -> Callable[..., Laid]:
    """A reduction ``fn(array, axis, keepdims=)`` as a rule; without axes it is over all of them."""

    def rule(x: Laid, axes: Sequence[int] | int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Laid:
        axes = [axes] if isinstance(axes, int) else list(axes or range(x.ndim))
        array = x.array if dtype is None else x.array.astype(dtype)
        out = fn(array, tuple(x.position(axis) for axis in axes), keepdims=keepdim)
        return Laid(out, x.order if keepdim else without(x, axes))

    return rule


def extreme_over_axis(fn: Callable[..., jax.Array]) -> Callable[..., Any]:
    """A maximum or minimum over one axis as a rule; the places, PyTorch's second result, are not computed."""
    reduce = over_axes(fn)

    def rule(x: Laid, axis: int, keepdim: bool = False) -> tuple[Laid]:
        return (reduce(x, [axis], keepdim),)

    return rule


def variance(
    x: Laid, axes: Sequence[int] | None = None, *, correction: float | None = 1, keepdim: bool = False
) -> Laid:
    """Mean square distance from the mean, the count less ``correction``."""
    ddof = 1 if correction is None else correction
    return over_axes(lambda a, axis, keepdims: _variance(a, axis, keepdims, ddof))(x, axes, keepdim)


def variance_over_axes(
    x: Laid, axes: Sequence[int] | None = None, unbiased: bool = True, keepdim: bool = False
) -> Laid:
    """:func:`variance`, the count less one if ``unbiased``."""
    return variance(x, axes, correction=int(unbiased), keepdim=keepdim)


def variance_of_all(x: Laid, unbiased: bool = True) -> Laid:
    """:func:`variance` of all values, the count less one if ``unbiased``."""
    return variance(x, correction=int(unbiased))


def rooted(rule: Callable[..., Laid]) -> Callable[..., Laid]:
    """The square root of what a rule gives: of variances standard deviations."""

    def root(*args: Any, **kwargs: Any) -> Laid:
        squared = rule(*args, **kwargs)
        return Laid(jnp.sqrt(squared.array), squared.order)

    return root


def norm(
    x: Laid, degree: float = 2, axes: Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Laid:
    """Vector norm over axes."""
    return over_axes(lambda a, axis, keepdims: _norm(a, axis, keepdims, degree))(x, axes, keepdim, dtype=dtype)


def softmax(x: Laid, axis: int, dtype: Any = None) -> Laid:
    """Exponentials that sum to 1 along an axis; ``dtype`` is one, or whether 16 bits become 32."""
    return Laid(jax.nn.softmax(_widened(x.array, dtype), x.position(axis)), x.order)


def log_softmax(x: Laid, axis: int, dtype: Any = None) -> Laid:
    """Logarithm of :func:`softmax`."""
    return Laid(jax.nn.log_softmax(_widened(x.array, dtype), x.position(axis)), x.order)


def _widened(a: jax.Array, dtype: Any) -> jax.Array:
    if dtype is None or dtype is False:
        return a
    return a.astype(jnp.float32 if dtype is True else dtype)


def _variance(a: jax.Array, axis: tuple[int, ...], keepdims: bool, ddof: float) -> jax.Array:
    return jnp.var(a, axis, ddof=ddof, keepdims=keepdims)  # type: ignore[arg-type]


def _norm(a: jax.Array, axis: tuple[int, ...], keepdims: bool, degree: float) -> jax.Array:
    if degree == 2:
        return jnp.sqrt(jnp.square(a).sum(axis, keepdims=keepdims))
    if degree == 1:
        return jnp.abs(a).sum(axis, keepdims=keepdims)
    if degree == 0:
        return (a != 0).astype(a.dtype).sum(axis, keepdims=keepdims)
    if math.isinf(degree):
        extreme = jnp.max if degree > 0 else jnp.min
        return extreme(jnp.abs(a), axis, keepdims=keepdims)
    return (jnp.abs(a) ** degree).sum(axis, keepdims=keepdims) ** (1 / degree)
