"""Objectives that change from step to step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxsal.optim.applied import Applied


class Scheduled(NamedTuple):
    """An objective that knows the step: noise that is drawn anew, a weight that grows.

    Wherever an objective is taken, one of these is taken as well, except by :func:`jaxsal.optim.prox_linear`. Stopping
    rules and solvers that compare values compare those of different steps.

    Attributes:
        objective: ``(params, step) -> (value, aux)``; ``step`` is the number of updates made so far, int32.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from jaxsal import optim
        >>> growing = Scheduled(lambda p, step: (step.astype(p.dtype) * p.sum(), ()))
        >>> lane = optim.minimise(
        ...     growing, jnp.zeros(1), solver=optim.preset(optax.sgd, 1.0), stop=optim.max_steps(4))
        >>> lane.params.tolist()  # 0 + 1 + 2 + 3
        [-6.0]
    """

    objective: Callable[[Any, jax.Array], tuple[Any, Any]]


Objective = Callable[[Any], tuple[Any, Any]] | Scheduled


def at_step(objective: Objective, step: Any) -> Callable[[Any], tuple[Any, Any]]:
    """The function of the parameters alone that an objective is at a step."""
    return Applied(_called, (objective.objective, step)) if isinstance(objective, Scheduled) else objective


def _called(objective: Callable[[Any, Any], tuple[Any, Any]], step: Any, params: Any) -> tuple[Any, Any]:
    return objective(params, step)
