"""Non-linear conjugate gradients."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.checks import between
from jaxsal.optim.linesearch import Descent, Move, line_search
from jaxsal.optim.searches import zoom_search
from jaxsal.optim.steepest import step_of_length
from jaxsal.optim.trees import dot, norm


def conjugate_gradient(first_length: float = 0.1, curvature: float = 0.1) -> optax.GradientTransformationExtraArgs:
    r"""Non-linear conjugate gradients after Polak and Ribiere, restarted where beta is negative.

    ``d <- -g + beta d`` with ``beta = max(0, <g, g - g'> / <g', g'>)``, ``g'`` the previous gradient, and a step that
    satisfies the strong Wolfe conditions. It stores two vectors per lane, whatever the number of steps.

    Args:
        first_length: how far the first step moves, in units of ``||M||_2``; may be traced, as ``curvature``.
        curvature: the constant of Wolfe's second condition, between 0 and 1; below 1/2 for conjugacy.

    Returns:
        A transform with a line search, see :func:`jaxsal.optim.line_search`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Polak and Ribiere 1969, https://doi.org/10.1051/m2an/196903R100351; Gilbert and Nocedal 1992,
        https://doi.org/10.1137/0802003

    Example:
        >>> from jaxsal import optim
        >>> lane = optim.minimise(
        ...     lambda p: (jnp.sum(jnp.array([1.0, 50.0]) * (p - 3.0) ** 2), ()),
        ...     jnp.zeros(2),
        ...     solver=conjugate_gradient(),
        ...     stop=optim.max_steps(60),
        ... )
        >>> [f"{p:.2f}" for p in lane.params]
        ['3.00', '3.00']
    """
    return _conjugate("conjugate_gradient", _polak_ribiere, first_length, curvature)


def hager_zhang(first_length: float = 0.1, curvature: float = 0.1) -> optax.GradientTransformationExtraArgs:
    r"""Non-linear conjugate gradients after Hager and Zhang, which always point downhill.

    ``d <- -g + max(beta, eta) d`` with ``beta = <y - 2 d <y, y> / <d, y>, g> / <d, y>``, ``y = g - g'`` and
    ``eta = -1 / (||d|| min(0.01, ||g'||))``; then ``<g, d> <= -7/8 ||g||^2``, however exact the line search.

    Args:
        first_length: how far the first step moves, in units of ``||M||_2``; may be traced, as ``curvature``.
        curvature: the constant of Wolfe's second condition, between 0 and 1.

    Returns:
        A transform with a line search, see :func:`jaxsal.optim.line_search`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Hager and Zhang 2005, https://doi.org/10.1137/030601880
    """
    return _conjugate("hager_zhang", _hager_zhang, first_length, curvature)


def _conjugate(name: str, beta: Callable[..., Any], length: Any, curvature: Any):
    length = between(name, "first_length", length, 0)
    curvature = between(name, "curvature", curvature, 0, 1)
    descent = Descent(_nothing, Applied(step_of_length, (length,)), Applied(_turn, (beta,)))
    return line_search(descent, zoom_search(curvature))


def _nothing(params: chex.ArrayTree) -> tuple[()]:
    return ()


def _turn(rule: Callable[..., jax.Array], state: tuple[()], move: Move):
    # on a curved set the earlier gradient and direction are carried to where they are compared
    earlier, along = move.tangent(move.previous_grad), move.tangent(move.direction)
    beta = rule(move.grad, earlier, along)
    direction = jax.tree.map(lambda g, d: beta * d - g, move.grad, along)
    slope = dot(move.grad, direction)
    # as long as the objective falls as much as by the last step
    return state, direction, move.step * move.slope / jnp.where(slope == 0, 1, slope)


def _polak_ribiere(grad: chex.ArrayTree, earlier: chex.ArrayTree, direction: chex.ArrayTree) -> jax.Array:
    return jnp.maximum(_ratio(dot(grad, optax.tree.sub(grad, earlier)), dot(earlier, earlier)), 0)


def _hager_zhang(grad: chex.ArrayTree, earlier: chex.ArrayTree, direction: chex.ArrayTree) -> jax.Array:
    change = optax.tree.sub(grad, earlier)
    along = dot(direction, change)
    twice = _ratio(2 * dot(change, change), along)
    beta = _ratio(dot(change, grad) - twice * dot(direction, grad), along)
    least = -_ratio(jnp.ones_like(beta), norm(direction) * jnp.minimum(norm(earlier), 0.01))
    return jnp.maximum(beta, least)


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    return jnp.where(below == 0, 0, above / jnp.where(below == 0, 1, below))
