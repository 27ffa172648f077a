"""Keep a solver within a set: project its gradient before, and its step after."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.proximal_update import ProximalUpdate

# keywords that solvers of this package may be given beside optax's
OWN_ARGUMENTS = ("tangent", "objective")


class Constraint(NamedTuple):
    """A set that parameters are kept in; functions of a module, so that solvers built alike are equal.

    Attributes:
        project: ``params -> params``, the nearest point of the set.
        tangent: ``(params, gradient, vector) -> vector``, the part of a vector that a descent may follow from
            ``params``, where the objective has this gradient; linear in ``vector``.
        transport: ``(params, state) -> state``, carries directions in a solver's state to ``params``.
    """

    project: Callable[[chex.ArrayTree], chex.ArrayTree]
    tangent: Callable[[chex.ArrayTree, chex.ArrayTree, chex.ArrayTree], chex.ArrayTree]
    transport: Callable[[chex.ArrayTree, Any], Any]


def constrained(solver: optax.GradientTransformation, constraint: Constraint) -> optax.GradientTransformationExtraArgs:
    """A solver whose every point lies in a set.

    The solver sees the gradient's free part, ``value_fn`` after projection, and, if it is one of this package, the
    keyword ``tangent``, which takes the free part of any vector at the current point.

    Args:
        solver: any optax transform.
        constraint: the set.

    Returns:
        A transform with the same state and the same extra arguments.
    """
    return optax.GradientTransformationExtraArgs(solver.init, Applied(_update, (constraint, solver)))


def split_constraint(
    solver: optax.GradientTransformation,
) -> tuple[Constraint | None, optax.GradientTransformation]:
    """The outermost constraint of a solver, None if it has none, and the solver within."""
    if isinstance(solver.update, Applied) and solver.update.fn is _update:
        return solver.update.given
    return None, solver


def feasible(params: chex.ArrayTree, solver: optax.GradientTransformation) -> chex.ArrayTree:
    """The parameters brought into the set that the solver keeps to; unchanged if it has none.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxsal import optim
        >>> feasible(jnp.array([3.0, -4.0]), optim.on_sphere(optim.nonnegative(optax.sgd(0.1)))).tolist()
        [1.0, 0.0]
    """
    constraint, within = split_constraint(solver)
    return params if constraint is None else constraint.project(feasible(params, within))


def free_gradient(params: chex.ArrayTree, grad: chex.ArrayTree, solver: optax.GradientTransformation) -> chex.ArrayTree:
    """The part of a gradient that the solver's constraints leave free: zero at a constrained minimum.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxsal import optim
        >>> free_gradient(jnp.array([0.0, 1.0]), jnp.array([2.0, 2.0]), optim.nonnegative(optax.sgd(0.1))).tolist()
        [0.0, 2.0]
    """
    constraint, within = split_constraint(solver)
    return grad if constraint is None else free_gradient(params, constraint.tangent(params, grad, grad), within)


def update_within(solver: optax.GradientTransformation, updates: Any, state: Any, params: Any, **extra: Any):
    """A solver's update; ``tangent`` and ``objective`` reach the solvers of this package alone."""
    if not isinstance(solver.update, Applied | ProximalUpdate):
        for name in OWN_ARGUMENTS:
            extra.pop(name, None)  # optax's line searches refuse arguments that they do not know
    return optax.with_extra_args_support(solver).update(updates, state, params, **extra)


def _update(constraint: Constraint, solver: Any, updates: Any, state: Any, params: Any = None, **extra: Any):
    if params is None:
        raise ValueError("A constrained solver projects the parameters: call update(grads, state, params).")
    tangent = Applied(_free, (extra.pop("tangent", None), constraint.tangent, params, updates))
    free = constraint.tangent(params, updates, updates)
    if "grad" in extra:
        extra["grad"] = free
    if "value_fn" in extra:
        extra["value_fn"] = Applied(_projected, (extra["value_fn"], constraint.project))
    state = constraint.transport(params, state)
    updates, state = update_within(solver, free, state, params, tangent=tangent, **extra)
    moved = constraint.project(jax.tree.map(lambda p, u: p + u, params, updates))
    return jax.tree.map(lambda m, p: m - p, moved, params), state


def _free(outer: Any, tangent: Any, params: Any, grad: Any, vector: Any) -> Any:
    return tangent(params, grad, vector if outer is None else outer(vector))


def _projected(value_fn: Any, project: Any, params: Any) -> Any:
    return value_fn(project(params))
