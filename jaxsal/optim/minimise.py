"""The loop, written for one lane; lanes are a ``vmap`` axis."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.status import Status
from jaxsal.optim.stopping import Progress, StoppingRule

Objective = Callable[[Any], tuple[Any, Any]]


class Lane(NamedTuple):
    """One optimisation, running or ended.

    Attributes:
        params: current parameters.
        solver: state of the solver.
        stop: state of the stopping rule.
        value: of the objective at ``params`` once the lane has ended, else one step behind.
        aux: what the objective returned beside its value.
        steps: updates made, int32.
        evaluations: of the objective and its gradient, int32.
        status: see :class:`Status`, int32.
    """

    params: chex.ArrayTree
    solver: Any
    stop: Any
    value: chex.Array
    aux: Any
    steps: chex.Array
    evaluations: chex.Array
    status: chex.Array


def start(
    objective: Objective, params: chex.ArrayTree, solver: optax.GradientTransformation, stop: StoppingRule
) -> Lane:
    """A lane before its first step; the objective is not evaluated.

    Args:
        objective: ``params -> (value, aux)``, a scalar and any pytree.
        params: where to start.
        solver: an optax transform.
        stop: a stopping rule.
    """
    value, aux = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(objective, params))
    zero = jnp.int32(0)
    return Lane(params, solver.init(params), stop.init(params), value, aux, zero, zero, jnp.int32(Status.RUNNING))


def step(objective: Objective, lane: Lane, solver: optax.GradientTransformation, stop: StoppingRule) -> Lane:
    """Evaluate the objective once, and move unless the lane ends here.

    A lane whose value or gradient is not finite ends with ``Status.NOT_FINITE``, where it is.
    """
    (value, aux), grad = jax.value_and_grad(objective, has_aux=True)(lane.params)
    stop_state, status = stop.update(lane.stop, Progress(lane.steps, value, grad, lane.params))
    finite = jnp.isfinite(value) & jnp.array([jnp.isfinite(g).all() for g in jax.tree.leaves(grad)]).all()
    status = jnp.where(finite, status, jnp.int32(Status.NOT_FINITE))
    go_on = status == Status.RUNNING
    updates, solver_state = optax.with_extra_args_support(solver).update(
        grad, lane.solver, lane.params, value=value, grad=grad, value_fn=lambda params: objective(params)[0]
    )
    params = jax.tree.map(lambda p, u: jnp.where(go_on, p + u, p), lane.params, updates)
    steps = lane.steps + jnp.int32(go_on)
    return Lane(params, solver_state, stop_state, value, aux, steps, lane.evaluations + 1, status)


def advance(
    objective: Objective,
    lane: Lane,
    solver: optax.GradientTransformation,
    stop: StoppingRule,
    until: chex.Array,
) -> Lane:
    """Step until the lane ends or has made ``until`` steps; one ``while_loop``."""
    return jax.lax.while_loop(
        lambda lane: (lane.status == Status.RUNNING) & (lane.steps < until),
        lambda lane: step(objective, lane, solver, stop),
        lane,
    )


def minimise(
    objective: Objective, params: chex.ArrayTree, *, solver: optax.GradientTransformation, stop: StoppingRule
) -> Lane:
    """Minimise an objective from a starting point.

    A pure function of its arguments: wrap it in ``jax.jit``, and in ``jax.vmap`` for many lanes.

    Args:
        objective: ``params -> (value, aux)``, a scalar and any pytree.
        params: where to start, a pytree of floating-point arrays.
        solver: an optax transform; ``value``, ``grad`` and ``value_fn`` reach it as extra arguments.
        stop: a stopping rule that ends at some time, e.g. ``any_of(stagnation(), max_steps(2000))``.

    Returns:
        The ended lane: parameters, value and status.

    Example:
        >>> from jaxsal import optim
        >>> objective = lambda p: (jnp.sum((p - 3.0) ** 2), ())
        >>> lane = minimise(objective, jnp.zeros(2), solver=optim.armijo_once(0.1), stop=optim.max_steps(200))
        >>> [round(p, 3) for p in lane.params.tolist()], Status(int(lane.status)).name
        ([3.0, 3.0], 'MAX_STEPS')
    """
    forever = jnp.int32(jnp.iinfo(jnp.int32).max)
    return advance(objective, start(objective, params, solver, stop), solver, stop, forever)
