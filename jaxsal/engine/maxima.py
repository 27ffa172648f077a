"""Maxima over windows and over whole axes, of which the first place takes all."""

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
        axes = tuple(p["axes"])
        window = tuple(n if axis in axes else 1 for axis, n in enumerate(shape))
        forward = functools.partial(_first_extreme, axes, jnp.argmax if step.name == "reduce_max" else jnp.argmin)
        return Pool(forward, window, window, ((0, 0),) * len(shape))
    forward = lower(lambda x: step.call(x)[0])
    return Pool(forward, tuple(p["window_dimensions"]), tuple(p["window_strides"]), tuple(map(tuple, p["padding"])))


def _first_extreme(axes: tuple[int, ...], where: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    """The maximum or minimum over some axes, its gradient to the first one alone."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    flat = x.transpose(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), -1)
    return jnp.take_along_axis(flat, where(flat, axis=-1, keepdims=True), axis=-1)[..., 0]
