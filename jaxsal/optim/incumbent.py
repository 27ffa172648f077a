"""The point that a lane will return, where it differs from the one being tried."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxsal.optim.status import Status


class Incumbent(NamedTuple):
    """The best point that a solver holds, anywhere in its state.

    A solver that tries points and may reject them keeps the accepted one here: stopping rules look at it, and a lane
    that ends returns to it. Solvers without one return the point where they are.

    Attributes:
        params: of the point.
        value: of the objective there; infinite before the first evaluation.
        grad: of the objective there.
        status: ``Status.RUNNING``, or the :class:`Status` with which the solver gives up, int32.
    """

    params: chex.ArrayTree
    value: jax.Array
    grad: chex.ArrayTree
    status: jax.Array


class Anchored(NamedTuple):
    """Part of a solver's state that belongs to a point of its own and stays as it is when the parameters move.

    Attributes:
        held: any pytree.
    """

    held: Any


def incumbent(state: Any) -> Incumbent | None:
    """The outermost incumbent in the state of a solver, None if it holds none.

    Example:
        >>> import optax
        >>> incumbent((optax.EmptyState(), no_incumbent(jnp.zeros(2)))).value.item()
        inf
    """
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Incumbent))
    return next((node for node in nodes if isinstance(node, Incumbent)), None)


def no_incumbent(params: chex.ArrayTree) -> Incumbent:
    """Before the first evaluation: where it starts, with an infinite value."""
    infinite = jnp.asarray(jnp.inf, jax.tree.leaves(params)[0].dtype)
    return Incumbent(params, infinite, jax.tree.map(jnp.zeros_like, params), jnp.int32(Status.RUNNING))
