"""Maxima over windows, over whole axes and of two values, of which the first place takes all."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxsal.engine.lower import lower
from jaxsal.engine.program import Step
from jaxsal.engine.sites import Pool

MAXIMA = frozenset(("reduce_window_max", "reduce_window_min", "reduce_max", "reduce_min"))


def pool_of(step: Step, shape: tuple[int, ...]) -> Pool:
    """An operation of :data:`MAXIMA` as rules see it.

    Args:
        step: the operation.
        shape: of its operand.
    """
    p = step.params
    if step.name in ("reduce_max", "reduce_min"):
        return _over(tuple(p["axes"]), jnp.argmax if step.name == "reduce_max" else jnp.argmin, shape)
    return Pool(
        lower(lambda x: step.call(x)[0]),
        window=tuple(p["window_dimensions"]),
        strides=tuple(p["window_strides"]),
        padding=tuple(map(tuple, p["padding"])),
        dilation=tuple(p["window_dilation"]),
    )


def pool_of_two(step: Step, shape: tuple[int, ...]) -> Pool:
    """A maximum or minimum of two values as rules see it: over the last axis of the two, stacked.

    Args:
        step: the operation.
        shape: of either value.
    """
    return _over((len(shape),), jnp.argmax if step.name == "max" else jnp.argmin, (*shape, 2))


def _over(axes: tuple[int, ...], where: Callable[..., jax.Array], shape: tuple[int, ...]) -> Pool:
    window = tuple(n if axis in axes else 1 for axis, n in enumerate(shape))
    forward = functools.partial(_first_extreme, axes, where)
    return Pool(forward, window, window, ((0, 0),) * len(shape), (1,) * len(shape))


def _first_extreme(axes: tuple[int, ...], where: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    """The maximum or minimum over some axes, its gradient to the first one alone."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    flat = x.transpose(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), -1)
    return jnp.take_along_axis(flat, where(flat, axis=-1, keepdims=True), axis=-1)[..., 0]
