"""Barzilai and Borwein's step sizes, within a non-monotone line search."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.checks import between, count
from jaxsal.optim.linesearch import Descent, Move, line_search
from jaxsal.optim.searches import armijo_search
from jaxsal.optim.steepest import step_of_length
from jaxsal.optim.trees import dot


def barzilai_borwein(
    first_length: float = 0.1, smallest: float = 1e-10, largest: float = 1e10, memory: int = 10
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent with Barzilai and Borwein's first, long step size.

    ``M <- M - alpha g`` with ``alpha = <s, s> / <s, y>``, ``s`` and ``y`` the last changes of ``M`` and of ``g``:
    the step size that fits the curvature along the way best. Safeguarded: ``alpha`` is kept within bounds and stays
    as it was where the curvature is not positive, and a step that exceeds the largest of the last ``memory`` values
    is halved. With :func:`jaxsal.optim.nonnegative` it is the spectral projected gradient method.

    Args:
        first_length: how far the first step moves, in units of ``||M||_2``; may be traced, as the bounds.
        smallest: least alpha.
        largest: most alpha.
        memory: accepted values to compare with; the objective may rise in between, which the method needs.

    Returns:
        A transform with a line search, see :func:`jaxsal.optim.line_search`.

    Raises:
        TypeError: if ``memory`` is not a whole number.
        ValueError: if an argument is out of its range.

    Reference:
        Barzilai and Borwein 1988, https://doi.org/10.1093/imanum/8.1.141; the search: Raydan 1997,
        https://doi.org/10.1137/S1052623494266365; with projections: Birgin, Martinez and Raydan 2000,
        https://doi.org/10.1137/S1052623497330963

    Example:
        >>> from jaxsal import optim
        >>> lane = optim.minimise(
        ...     lambda p: (jnp.sum(jnp.array([1.0, 50.0]) * (p - 3.0) ** 2), ()),
        ...     jnp.zeros(2),
        ...     solver=barzilai_borwein(),
        ...     stop=optim.max_steps(50),
        ... )
        >>> [f"{p:.2f}" for p in lane.params]
        ['3.00', '3.00']
    """
    return _spectral("barzilai_borwein", _long, first_length, smallest, largest, memory)


def barzilai_borwein_short(
    first_length: float = 0.1, smallest: float = 1e-10, largest: float = 1e10, memory: int = 10
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent with Barzilai and Borwein's second, short step size.

    As :func:`barzilai_borwein`, with ``alpha = <s, y> / <y, y>``, which is never above the long one.

    Args:
        first_length: how far the first step moves, in units of ``||M||_2``; may be traced, as the bounds.
        smallest: least alpha.
        largest: most alpha.
        memory: accepted values to compare with.

    Returns:
        A transform with a line search, see :func:`jaxsal.optim.line_search`.

    Raises:
        TypeError: if ``memory`` is not a whole number.
        ValueError: if an argument is out of its range.

    Reference:
        Barzilai and Borwein 1988, https://doi.org/10.1093/imanum/8.1.141
    """
    return _spectral("barzilai_borwein_short", _short, first_length, smallest, largest, memory)


def _spectral(name: str, step: Callable[..., Any], length: Any, smallest: Any, largest: Any, memory: int):
    length = between(name, "first_length", length, 0)
    smallest, largest = between(name, "smallest", smallest, 0), between(name, "largest", largest, 0)
    memory = count(name, "memory", memory)
    descent = Descent(_nothing, Applied(step_of_length, (length,)), Applied(_downhill, (step, smallest, largest)))
    return line_search(descent, armijo_search(0.5), memory=memory)


def _nothing(params: chex.ArrayTree) -> tuple[()]:
    return ()


def _downhill(rule: Callable[..., jax.Array], smallest: Any, largest: Any, state: tuple[()], move: Move):
    change = optax.tree.sub(move.grad, move.previous_grad)
    curvature = dot(move.displacement, change)
    step = rule(move.displacement, change, jnp.where(curvature > 0, curvature, 1))
    step = jnp.clip(step, jnp.asarray(smallest, step.dtype), jnp.asarray(largest, step.dtype))
    return state, jax.tree.map(jnp.negative, move.grad), jnp.where(curvature > 0, step, move.step)


def _long(s: chex.ArrayTree, y: chex.ArrayTree, curvature: jax.Array) -> jax.Array:
    return dot(s, s) / curvature


def _short(s: chex.ArrayTree, y: chex.ArrayTree, curvature: jax.Array) -> jax.Array:
    return curvature / dot(y, y)
