"""Return the best parameters that a solver has seen."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.checks import count
from jaxsal.optim.constraint import constrained, split_constraint, update_within
from jaxsal.optim.incumbent import Incumbent, incumbent, no_incumbent
from jaxsal.optim.proximal_update import is_proximal
from jaxsal.optim.status import Status


class BestSoFarState(NamedTuple):
    """State of :func:`best_so_far`.

    Attributes:
        incumbent: the point with the lowest value.
        solver: state of the solver.
        count: evaluations seen, int32.
    """

    incumbent: Incumbent
    solver: Any
    count: jax.Array


def best_so_far(solver: optax.GradientTransformation, after: int = 0) -> optax.GradientTransformationExtraArgs:
    """Return the best parameters seen, and stop by their value.

    The solver itself goes on as it would; for those whose objective rises at times, as Adam's does. A lane that ends
    elsewhere goes back to its best point, which costs one evaluation; one whose values stop being finite ends as
    ``NOT_FINITE`` at the best point before.

    Args:
        solver: any optax transform.
        after: evaluations at the beginning that do not compete, for objectives that change at first; as long as there
            are no others, the last one counts.

    Returns:
        A transform whose ``update`` needs the keyword ``value``, the objective at ``params``.

    Raises:
        TypeError: if ``after`` is not a whole number.
        ValueError: if ``after`` is negative, or the solver takes proximal steps.

    Example:
        >>> from jaxsal import optim
        >>> lane = optim.minimise(
        ...     lambda p: (jnp.sum(p**2), ()),
        ...     jnp.array([1.0]),
        ...     solver=best_so_far(optax.sgd(1.5)),
        ...     stop=optim.max_steps(5),
        ... )
        >>> lane.params.item(), lane.evaluations.item()
        (1.0, 7)
    """
    after = count("best_so_far", "after", after, least=0)
    constraint, within = split_constraint(solver)
    if constraint is not None:  # constraints stay outside, where the loop finds them
        return constrained(best_so_far(within, after), constraint)
    if is_proximal(solver):
        raise ValueError(
            "best_so_far got a proximal solver, whose objective is not all that it minimises: leave it out."
        )
    return optax.GradientTransformationExtraArgs(Applied(_init, (solver,)), Applied(_update, (solver, after)))


def _init(solver: Any, params: Any) -> BestSoFarState:
    return BestSoFarState(no_incumbent(params), solver.init(params), jnp.int32(0))


def _update(
    solver: Any, after: int, updates: Any, state: BestSoFarState, params: Any = None, *, value: jax.Array, **extra: Any
):
    if params is None:
        raise ValueError("best_so_far(...) remembers the parameters: call update(grads, state, params, value=...).")
    best = state.incumbent
    finite = jnp.isfinite(value) & jnp.array([jnp.isfinite(g).all() for g in jax.tree.leaves(updates)]).all()
    here = Incumbent(params, value, updates, best.status)
    better = ((value < best.value) | (state.count <= after)) & finite
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), here, best)
    updates, within = update_within(solver, updates, state.solver, params, value=value, **extra)
    held = incumbent(within)
    ended = jnp.where(finite, jnp.int32(Status.RUNNING), jnp.int32(Status.NOT_FINITE))
    verdict = ended if held is None else held.status
    return updates, BestSoFarState(best._replace(status=verdict), within, state.count + 1)
