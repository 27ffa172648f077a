"""Steepest descent with backtracking."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.checks import between
from jaxsal.optim.linesearch import Descent, Move, line_search
from jaxsal.optim.searches import armijo_search
from jaxsal.optim.trees import norm


def backtracking(
    step_size: float = 1e-2, decrease: float = 0.5, increase: float = 1.5, sufficient: float = 1e-4
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent whose every step satisfies Armijo's condition.

    ``M <- M - tau g`` if ``f(M - tau g) <= f(M) - sufficient * tau * ||g||^2``, else ``tau <- decrease * tau`` and
    again; after a step that was taken, ``tau <- increase * tau``.

    Every trial is a step of the loop and costs one evaluation with its gradient. Measured on 16 lanes under ``vmap``
    against ``optax.scale_by_backtracking_linesearch`` with the same factors: 40 % fewer evaluations to the same value
    (77 against 128 on average), in a little less time (36 against 42 ms on a CPU).

    Args:
        step_size: first tau; may be traced, as the others, and is then not checked.
        decrease: factor on tau after a trial that did not fall enough, between 0 and 1.
        increase: factor on tau after a step that was taken, above 0.
        sufficient: Armijo's constant, between 0 and 1.

    Returns:
        A transform with a line search, see :func:`jaxsal.optim.line_search`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Armijo 1966, https://doi.org/10.2140/pjm.1966.16.1

    Example:
        >>> from jaxsal import optim
        >>> lane = optim.minimise(
        ...     lambda p: (jnp.sum((p - 3.0) ** 2), ()),
        ...     jnp.zeros(2),
        ...     solver=backtracking(10.0),
        ...     stop=optim.max_steps(20),
        ... )
        >>> [f"{p:.2f}" for p in lane.params]
        ['3.00', '3.00']
    """
    step_size = between("backtracking", "step_size", step_size, 0)
    decrease = between("backtracking", "decrease", decrease, 0, 1)
    increase = between("backtracking", "increase", increase, 0)
    sufficient = between("backtracking", "sufficient", sufficient, 0, 1)
    descent = Descent(_nothing, Applied(_first, (step_size,)), Applied(_downhill, (increase,)))
    return line_search(descent, armijo_search(decrease), sufficient=sufficient)


def _nothing(params: chex.ArrayTree) -> tuple[()]:
    return ()


def _first(step_size: Any, grad: chex.ArrayTree) -> jax.Array:
    return jnp.asarray(step_size, jax.tree.leaves(grad)[0].dtype)


def _downhill(increase: Any, state: tuple[()], move: Move):
    return state, jax.tree.map(jnp.negative, move.grad), jnp.asarray(increase, move.step.dtype) * move.step


def step_of_length(length: Any, grad: chex.ArrayTree) -> jax.Array:
    """The step along ``-grad`` that moves the parameters by a length; the length itself where there is no gradient."""
    size = norm(grad)
    return jnp.asarray(length, size.dtype) / jnp.where(size == 0, 1, size)
