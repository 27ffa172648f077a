"""Solvers whose step is a problem of its own, to be solved within a set instead of projected afterwards."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import optax


class ProximalUpdate(NamedTuple):
    """The ``update`` of a solver with proximal steps; equal by value, as :class:`jaxsal.optim.Applied`.

    Attributes:
        fn: a function of a module, ``(*given, project, updates, state, params, **extra)``.
        given: its first arguments.
        project: onto the set that parameters are kept in.
        cone: whether this set has to be a convex cone.
    """

    fn: Callable[..., Any]
    given: tuple[Any, ...]
    project: Callable[[chex.ArrayTree], chex.ArrayTree]
    cone: bool

    def __call__(self, *args: Any, **extra: Any) -> Any:
        """Call it with the remaining arguments."""
        return self.fn(*self.given, self.project, *args, **extra)


def anywhere(params: chex.ArrayTree) -> chex.ArrayTree:
    """No set at all."""
    return params


def is_proximal(solver: optax.GradientTransformation) -> bool:
    """Whether a solver takes proximal steps."""
    return isinstance(solver.update, ProximalUpdate)


def proximal_within(
    solver: optax.GradientTransformation, project: Callable[[chex.ArrayTree], chex.ArrayTree]
) -> optax.GradientTransformationExtraArgs:
    """A proximal solver for the same objective within a convex set, given by its projection."""
    assert isinstance(solver.update, ProximalUpdate)
    return optax.GradientTransformationExtraArgs(solver.init, solver.update._replace(project=project))
