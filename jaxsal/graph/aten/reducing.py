"""Sums, means and extremes over axes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal.graph.laid import Laid, without


def over_axes(fn: Callable[..., jax.Array]) -> Callable[..., Laid]:
    """A reduction ``fn(array, axis, keepdims=)`` as a rule; without axes it is over all of them."""

    def rule(x: Laid, axes: Sequence[int] | int | None = None, keepdim: bool = False, **_: Any) -> Laid:
        axes = [axes] if isinstance(axes, int) else list(axes or range(x.ndim))
        out = fn(x.array, tuple(x.position(axis) for axis in axes), keepdims=keepdim)
        return Laid(out, x.order if keepdim else without(x, axes))

    return rule


def extreme_over_axis(fn: Callable[..., jax.Array]) -> Callable[..., Any]:
    """A maximum or minimum over one axis as a rule; the places, PyTorch's second result, are not computed."""
    reduce = over_axes(fn)

    def rule(x: Laid, axis: int, keepdim: bool = False) -> tuple[Laid]:
        return (reduce(x, [axis], keepdim),)

    return rule


def variance(
    x: Laid, axes: Sequence[int] | None = None, *, correction: float | None = 1, keepdim: bool = False, **_: Any
) -> Laid:
    """Mean square distance from the mean, the count less ``correction``."""
    ddof = 1 if correction is None else correction
    return over_axes(lambda a, axis, keepdims: _variance(a, axis, keepdims, ddof))(x, axes, keepdim)


def standard_deviation(
    x: Laid, axes: Sequence[int] | None = None, *, correction: float | None = 1, keepdim: bool = False, **_: Any
) -> Laid:
    """Square root of :func:`variance`."""
    squared = variance(x, axes, correction=correction, keepdim=keepdim)
    return Laid(jnp.sqrt(squared.array), squared.order)


def norm(x: Laid, degree: float = 2, axes: Sequence[int] | None = None, keepdim: bool = False, **_: Any) -> Laid:
    """Vector norm over axes."""
    return over_axes(lambda a, axis, keepdims: _norm(a, axis, keepdims, degree))(x, axes, keepdim)


def softmax(x: Laid, axis: int, *_: Any) -> Laid:
    """Exponentials that sum to 1 along an axis."""
    return Laid(jax.nn.softmax(x.array, x.position(axis)), x.order)


def log_softmax(x: Laid, axis: int, *_: Any) -> Laid:
    """Logarithm of :func:`softmax`."""
    return Laid(jax.nn.log_softmax(x.array, x.position(axis)), x.order)


def _variance(a: jax.Array, axis: tuple[int, ...], keepdims: bool, ddof: float) -> jax.Array:
    return jnp.var(a, axis, ddof=ddof, keepdims=keepdims)  # type: ignore[arg-type]


def _norm(a: jax.Array, axis: tuple[int, ...], keepdims: bool, degree: float) -> jax.Array:
    if degree == 2:
        return jnp.sqrt(jnp.square(a).sum(axis, keepdims=keepdims))
    if degree == 1:
        return jnp.abs(a).sum(axis, keepdims=keepdims)
    if degree == float("inf"):
        return jnp.abs(a).max(axis, keepdims=keepdims)
    return (jnp.abs(a) ** degree).sum(axis, keepdims=keepdims) ** (1 / degree)
