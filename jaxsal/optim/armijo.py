"""SMOCAM's step size: one test of the Armijo kind per step, no search."""

from typing import Any, NamedTuple

import chex
import jax
import jax.core
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied, concrete


class ArmijoOnceState(NamedTuple):
    """State of :func:`armijo_once`.

    Attributes:
        step_size: tau, the current step.
        value: of the objective at the previous step; infinite before the first.
    """

    step_size: chex.Array
    value: chex.Array


def armijo_once(step_size: float = 1e-2, decrease: float = 0.99) -> optax.GradientTransformationExtraArgs:
    """Gradient descent whose step shrinks whenever the last step did not lower the objective.

    ``M <- M - tau grad f(M)``, with ``tau <- decrease * tau`` first if ``f`` did not fall. The condition is
    tested once per step instead of within a line search, so every step costs one evaluation.

    Args:
        step_size: initial tau; may be traced, as ``decrease``, and is then not checked.
        decrease: factor on tau, between 0 and 1.

    Returns:
        A transform whose ``update`` needs the keyword ``value``, the objective at ``params``.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Konate et al., SMOCAM, ISBI 2021, section 3; Armijo 1966, https://doi.org/10.2140/pjm.1966.16.1

    Example:
        >>> solver = armijo_once(0.5)
        >>> params = jnp.array([2.0])
        >>> updates, _ = solver.update(2 * params, solver.init(params), params, value=params[0] ** 2)
        >>> updates.tolist()
        [-2.0]
    """
    step_size, decrease = concrete(step_size), concrete(decrease)
    for name, number, most in (("step_size", step_size, jnp.inf), ("decrease", decrease, 1)):
        if not isinstance(number, jax.core.Tracer) and not 0 < number <= most:
            needed = "a number above 0" if most == jnp.inf else f"a number in (0, {most}]"
            raise ValueError(f"armijo_once got {name}={number}, {needed} is needed.")
    return optax.GradientTransformationExtraArgs(Applied(_init, (step_size,)), Applied(_update, (decrease,)))


def _init(step_size: Any, params: Any) -> ArmijoOnceState:
    dtype = jax.tree.leaves(params)[0].dtype
    return ArmijoOnceState(jnp.asarray(step_size, dtype), jnp.asarray(jnp.inf, dtype))


def _update(decrease: Any, updates: Any, state: Any, params: Any = None, *, value: chex.Array, **_: Any):
    smaller = jnp.asarray(decrease, state.step_size.dtype) * state.step_size
    step = jnp.where(value < state.value, state.step_size, smaller)
    return jax.tree.map(lambda g: -step * g, updates), ArmijoOnceState(step, value)
