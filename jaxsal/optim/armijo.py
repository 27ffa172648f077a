"""SMOCAM's step size: one test of the Armijo kind per step, no search."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax


class ArmijoOnceState(NamedTuple):
    """State of :func:`armijo_once`.

    Attributes:
        step_size: tau, the current step.
        value: of the objective at the previous step; infinite before the first.
    """

    step_size: chex.Array
    value: chex.Array


@functools.cache
def armijo_once(step_size: float = 1e-2, decrease: float = 0.99) -> optax.GradientTransformationExtraArgs:
    """Gradient descent whose step shrinks whenever the last step did not lower the objective.

    ``M <- M - tau grad f(M)``, with ``tau <- decrease * tau`` first if ``f`` did not fall. The condition is
    tested once per step instead of within a line search, so every step costs one evaluation.

    Args:
        step_size: initial tau.
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
    if not step_size > 0 or not 0 < decrease <= 1:
        raise ValueError(f"armijo_once got step_size={step_size}, decrease={decrease}; > 0 and in (0, 1] are needed.")

    def init(params: Any) -> ArmijoOnceState:
        dtype = jax.tree.leaves(params)[0].dtype
        return ArmijoOnceState(jnp.asarray(step_size, dtype), jnp.asarray(jnp.inf, dtype))

    def update(updates: Any, state: Any, params: Any = None, *, value: chex.Array, **_: Any):
        step = jnp.where(value < state.value, state.step_size, decrease * state.step_size)
        return jax.tree.map(lambda g: -step * g, updates), ArmijoOnceState(step, value)

    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore[arg-type]
