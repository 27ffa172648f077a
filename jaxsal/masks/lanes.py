"""Many masks at once: lanes nested in images, so that what belongs to an image is never copied."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import optim
from jaxsal.masks.stepping import Variables
from jaxsal.optim.applied import Applied
from jaxsal.progress import Meter

# between chunks the host looks at the lanes: often enough for a progress bar, rarely enough to cost nothing
_CHUNK = 50

Objective = Callable[[Any, Any, Any, Variables], tuple[jax.Array, Any]]


def run_lanes(
    objective: Objective, shared: Any, outer: Any, inner: Any, masks: jax.Array, solver: Any, stop: Any, show: Meter
) -> optim.Lane:
    """Minimise one objective for every pair of an outer and an inner problem, all in one compiled program.

    Args:
        objective: ``(shared, outer, inner, variables) -> (value, aux)`` for one lane; hashable, it is compiled.
        shared: what all lanes have in common, e.g. the network.
        outer: a pytree of arrays ``[b, ...]``, e.g. an image.
        inner: a pytree of arrays ``[b, l, ...]``, e.g. an output or a weight.
        masks: where to start, ``[b, l, *t]``.
        solver: for :class:`Variables`, see :func:`jaxsal.masks.stepping.counted`.
        stop: a stopping rule that ends at some time.
        show: a meter: lanes ended, number of lanes, words.

    Returns:
        The ended lanes, arrays ``[b, l, ...]``.
    """
    lanes = _start(objective, solver, stop, shared, outer, inner, masks)
    until = 0
    while (running := int((np.asarray(lanes.status) == optim.Status.RUNNING).sum())) > 0:
        show(lanes.status.size - running, lanes.status.size, f"{running} masks running, step {until}")
        until += _CHUNK
        lanes = _advance(objective, solver, stop, shared, outer, inner, lanes, jnp.int32(until))
    return lanes


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _start(objective: Any, solver: Any, stop: Any, shared: Any, outer: Any, inner: Any, masks: jax.Array) -> optim.Lane:
    def one(outer: Any, inner: Any, mask: jax.Array) -> optim.Lane:
        start = Variables(mask, jnp.zeros((), mask.dtype))
        return optim.start(Applied(objective, (shared, outer, inner)), start, solver, stop)

    return _nested(one)(outer, inner, masks)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=6)
def _advance(
    objective: Any, solver: Any, stop: Any, shared: Any, outer: Any, inner: Any, lanes: optim.Lane, until: jax.Array
) -> optim.Lane:
    def one(outer: Any, inner: Any, lane: optim.Lane) -> optim.Lane:
        return optim.advance(Applied(objective, (shared, outer, inner)), lane, solver, stop, until)

    return _nested(one)(outer, inner, lanes)


def _nested(one: Callable[..., Any]) -> Callable[..., Any]:
    return jax.vmap(jax.vmap(one, (None, 0, 0)), (0, 0, 0))


@functools.partial(jax.jit, static_argnums=0)
def evaluate_lanes(function: Any, shared: Any, outer: Any, inner: Any, masks: jax.Array) -> Any:
    """``function(shared, outer, inner, mask)`` for every lane, see :func:`run_lanes`."""
    return _nested(functools.partial(function, shared))(outer, inner, masks)
