"""SMOCAM's step size, one test of the Armijo kind per step and no search, and two stricter ones."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.checks import between
from jaxsal.optim.incumbent import Anchored, Incumbent, no_incumbent
from jaxsal.optim.trees import dot


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
    step_size = between("armijo_once", "step_size", step_size, 0)
    decrease = between("armijo_once", "decrease", decrease, 0, 1)
    return optax.GradientTransformationExtraArgs(Applied(_init, (step_size,)), Applied(_update, (decrease,)))


def _init(step_size: Any, params: Any) -> ArmijoOnceState:
    dtype = jax.tree.leaves(params)[0].dtype
    return ArmijoOnceState(jnp.asarray(step_size, dtype), jnp.asarray(jnp.inf, dtype))


def _update(decrease: Any, updates: Any, state: Any, params: Any = None, *, value: jax.Array, **_: Any):
    smaller = jnp.asarray(decrease, state.step_size.dtype) * state.step_size
    step = jnp.where(value < state.value, state.step_size, smaller)
    return jax.tree.map(lambda g: -step * g, updates), ArmijoOnceState(step, value)


class ArmijoSufficientState(NamedTuple):
    """State of :func:`armijo_once_sufficient`.

    Attributes:
        step_size: tau, the current step.
        previous: parameters, value and gradient of the previous step.
    """

    step_size: chex.Array
    previous: Anchored


def armijo_once_sufficient(
    step_size: float = 1e-2, decrease: float = 0.99, sufficient: float = 1e-4
) -> optax.GradientTransformationExtraArgs:
    """As :func:`armijo_once`, with Armijo's own condition: the objective has to fall in proportion to the step.

    ``tau <- decrease * tau`` if ``f(M) > f(M') + sufficient * <g', M - M'>``, with ``M'`` and ``g'`` of the previous
    step; ``<g', M - M'> = -tau ||g'||^2`` where nothing projects the step.

    Args:
        step_size: initial tau; may be traced, as the others, and is then not checked.
        decrease: factor on tau, between 0 and 1.
        sufficient: Armijo's constant, between 0 and 1.

    Returns:
        A transform whose ``update`` needs the keyword ``value``, the objective at ``params``.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Armijo 1966, https://doi.org/10.2140/pjm.1966.16.1
    """
    step_size = between("armijo_once_sufficient", "step_size", step_size, 0)
    decrease = between("armijo_once_sufficient", "decrease", decrease, 0, 1)
    sufficient = between("armijo_once_sufficient", "sufficient", sufficient, 0, 1)
    update = Applied(_update_sufficient, (decrease, sufficient))
    return optax.GradientTransformationExtraArgs(Applied(_init_sufficient, (step_size,)), update)


def _init_sufficient(step_size: Any, params: Any) -> ArmijoSufficientState:
    dtype = jax.tree.leaves(params)[0].dtype
    return ArmijoSufficientState(jnp.asarray(step_size, dtype), Anchored(no_incumbent(params)[:3]))


def _update_sufficient(
    decrease: Any, sufficient: Any, updates: Any, state: Any, params: Any = None, *, value: jax.Array, **_: Any
):
    if params is None:
        raise ValueError("armijo_once_sufficient compares parameters: call update(grads, state, params, value=...).")
    earlier, before, slope = state.previous.held
    dtype = state.step_size.dtype
    gain = dot(slope, optax.tree.sub(params, earlier))
    fell = value <= before + jnp.asarray(sufficient, dtype) * gain
    step = jnp.where(fell, state.step_size, jnp.asarray(decrease, dtype) * state.step_size)
    return jax.tree.map(lambda g: -step * g, updates), ArmijoSufficientState(step, Anchored((params, value, updates)))


class ArmijoRejectingState(NamedTuple):
    """State of :func:`armijo_once_rejecting`.

    Attributes:
        incumbent: the last point at which the objective fell.
        step_size: tau, the current step, from there.
    """

    incumbent: Incumbent
    step_size: Anchored


def armijo_once_rejecting(step_size: float = 1e-2, decrease: float = 0.99) -> optax.GradientTransformationExtraArgs:
    """As :func:`armijo_once`, but a step after which the objective did not fall is taken back.

    ``M <- M' - decrease * tau * g'`` from the previous point ``M'`` and its gradient if ``f`` did not fall, else
    ``M <- M - tau g``. The objective never rises.

    Args:
        step_size: initial tau; may be traced, as ``decrease``, and is then not checked.
        decrease: factor on tau, between 0 and 1.

    Returns:
        A transform whose ``update`` needs the keyword ``value``, the objective at ``params``. ``params`` is the point
        being tried; the last that was kept is the state's ``incumbent``.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Armijo 1966, https://doi.org/10.2140/pjm.1966.16.1
    """
    step_size = between("armijo_once_rejecting", "step_size", step_size, 0)
    decrease = between("armijo_once_rejecting", "decrease", decrease, 0, 1)
    return optax.GradientTransformationExtraArgs(
        Applied(_init_rejecting, (step_size,)), Applied(_update_rejecting, (decrease,))
    )


def _init_rejecting(step_size: Any, params: Any) -> ArmijoRejectingState:
    dtype = jax.tree.leaves(params)[0].dtype
    return ArmijoRejectingState(no_incumbent(params), Anchored(jnp.asarray(step_size, dtype)))


def _update_rejecting(decrease: Any, updates: Any, state: Any, params: Any = None, *, value: jax.Array, **_: Any):
    if params is None:
        raise ValueError("armijo_once_rejecting takes steps back: call update(grads, state, params, value=...).")
    best, step = state.incumbent, state.step_size.held
    # the first value is kept whatever it is: the loop ends a lane that is not finite from its start
    fell = (value < best.value) | jnp.isposinf(best.value)
    here = Incumbent(params, value, updates, best.status)
    best = jax.tree.map(lambda new, old: jnp.where(fell, new, old), here, best)
    step = jnp.where(fell, step, jnp.asarray(decrease, step.dtype) * step)
    updates = jax.tree.map(lambda b, g, p: b - step * g - p, best.params, best.grad, params)
    return updates, ArmijoRejectingState(best, Anchored(step))
