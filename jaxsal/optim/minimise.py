"""The loop, written for one lane; lanes are a ``vmap`` axis."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.constraint import feasible, free_gradient, update_within
from jaxsal.optim.incumbent import Incumbent, incumbent
from jaxsal.optim.scheduled import Objective, at_step
from jaxsal.optim.status import Status
from jaxsal.optim.stopping import Progress, StoppingRule


class Lane(NamedTuple):
    """One optimisation, running or ended.

    Attributes:
        params: current parameters.
        solver: state of the solver.
        stop: state of the stopping rule.
        value: of the objective at ``params`` once the lane has ended, else one step behind.
        aux: what the objective returned beside its value.
        steps: updates made, int32.
        evaluations: of the objective, with or without its gradient, those of line searches included, int32.
        status: see :class:`Status`, int32.
        ending: the status that it will have once it is back at its best point, int32.
    """

    params: chex.ArrayTree
    solver: Any
    stop: Any
    value: chex.Array
    aux: Any
    steps: chex.Array
    evaluations: chex.Array
    status: chex.Array
    ending: chex.Array


def start(
    objective: Objective, params: chex.ArrayTree, solver: optax.GradientTransformation, stop: StoppingRule
) -> Lane:
    """A lane before its first step; the objective is not evaluated.

    Args:
        objective: ``params -> (value, aux)``, a scalar and any pytree, or :class:`jaxsal.optim.Scheduled`.
        params: where to start; projected if the solver is constrained.
        solver: an optax transform.
        stop: a stopping rule.
    """
    params = feasible(params, solver)
    zero, running = jnp.int32(0), jnp.int32(Status.RUNNING)
    shapes = jax.eval_shape(at_step(objective, zero), params)
    value, aux = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    return Lane(params, solver.init(params), stop.init(params), value, aux, zero, zero, running, running)


def step(objective: Objective, lane: Lane, solver: optax.GradientTransformation, stop: StoppingRule) -> Lane:
    """Evaluate the objective once, and move unless the lane ends here.

    A solver may hold its best point elsewhere than where it is, see :class:`jaxsal.optim.Incumbent`: the stopping
    rule looks at that point, and a lane that is to end goes there first. A lane whose value or gradient is not finite
    ends with ``Status.NOT_FINITE``, where it is, or at the best point before.
    """
    here = at_step(objective, lane.steps)
    (value, aux), grad = jax.value_and_grad(here, has_aux=True)(lane.params)
    told = {"value": value, "grad": grad, "value_fn": Applied(_value, (here,)), "objective": here}
    updates, solver_state = update_within(solver, grad, lane.solver, lane.params, **told)
    held = incumbent(solver_state)
    best = Incumbent(lane.params, value, grad, jnp.int32(Status.RUNNING)) if held is None else held
    free = free_gradient(best.params, best.grad, solver)
    stop_state, status = stop.update(lane.stop, Progress(lane.steps, best.value, free, best.params))
    status = jnp.where(status == Status.RUNNING, best.status, status)
    finite = jnp.isfinite(best.value) & _all(jax.tree.map(jnp.isfinite, best.grad))
    status = jnp.where(finite, status, jnp.int32(Status.NOT_FINITE))
    status = jnp.where(lane.ending == Status.RUNNING, status, lane.ending)
    go_on = status == Status.RUNNING
    params = jax.tree.map(lambda p, u, b: jnp.where(go_on, p + u, b), lane.params, updates, best.params)
    there = jnp.array(True) if held is None else _all(jax.tree.map(jnp.equal, lane.params, best.params))
    there |= lane.ending != Status.RUNNING
    return Lane(
        params=params,
        solver=solver_state,
        stop=stop_state,
        value=value,
        aux=aux,
        steps=lane.steps + jnp.int32(go_on),
        evaluations=lane.evaluations + 1 + _searched(solver_state),
        status=jnp.where(there, status, jnp.int32(Status.RUNNING)),
        ending=status,
    )


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
        objective: ``params -> (value, aux)``, a scalar and any pytree, or :class:`jaxsal.optim.Scheduled`.
        params: where to start, a pytree of floating-point arrays.
        solver: an optax transform; ``value``, ``grad`` and ``value_fn`` reach it as extra arguments, and a solver of
            this package ``objective`` itself. Calls of
            ``value_fn`` are counted if its state says how many there were in a field ``num_linesearch_steps``, as
            the states of optax's line searches do.
        stop: a stopping rule that ends at some time, e.g. ``any_of(stagnation(), max_steps(2000))``.

    Returns:
        The ended lane: parameters, value and status. ``params`` are the solver's incumbent if it has one.

    Example:
        >>> from jaxsal import optim
        >>> objective = lambda p: (jnp.sum((p - 3.0) ** 2), ())
        >>> lane = minimise(objective, jnp.zeros(2), solver=optim.armijo_once(0.1), stop=optim.max_steps(200))
        >>> [round(p, 3) for p in lane.params.tolist()], Status(int(lane.status)).name
        ([3.0, 3.0], 'MAX_STEPS')
    """
    forever = jnp.int32(jnp.iinfo(jnp.int32).max)
    return advance(objective, start(objective, params, solver, stop), solver, stop, forever)


def _value(objective: Callable[[Any], tuple[Any, Any]], params: chex.ArrayTree) -> chex.Array:
    return objective(params)[0]


def _all(flags: chex.ArrayTree) -> jax.Array:
    return jnp.array([flag.all() for flag in jax.tree.leaves(flags)]).all()


def _searched(state: Any) -> jax.Array:
    """Evaluations by searches within this update, which optax's line searches report in their states."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: hasattr(node, _SEARCHED))
    counts = [jnp.int32(getattr(node, _SEARCHED)) for node in nodes if hasattr(node, _SEARCHED)]
    return functools.reduce(jnp.add, counts, jnp.int32(0))


_SEARCHED = "num_linesearch_steps"
