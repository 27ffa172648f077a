"""Gradient descent with a damped momentum."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.checks import between


class DampedState(NamedTuple):
    """State of :func:`damped_momentum`.

    Attributes:
        count: updates made, int32.
        velocity: running mean of the gradients; the first gradient at first.
    """

    count: jax.Array
    velocity: chex.ArrayTree


def damped_momentum(step_size: float = 0.01, momentum: float = 0.9) -> optax.GradientTransformationExtraArgs:
    """``M <- M - step_size * v`` with ``v <- momentum * v + (1 - momentum) * g``, which starts at the first gradient.

    PyTorch's gradient descent with ``dampening = momentum``; the solver of extremal perturbations.

    Args:
        step_size: how far a constant gradient moves the parameters; may be traced, as ``momentum``.
        momentum: decay of the mean of the gradient, between 0 and 1.

    Returns:
        A transform, equal to one built alike.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Fong, Patrick and Vedaldi, Understanding deep networks via extremal perturbations and smooth masks, ICCV 2019,
        https://doi.org/10.1109/ICCV.2019.00304

    Example:
        >>> solver = damped_momentum(1.0, 0.5)
        >>> updates, state = solver.update(jnp.array([4.0]), solver.init(jnp.zeros(1)))
        >>> solver.update(jnp.array([0.0]), state)[0].tolist(), updates.tolist()
        ([-2.0], [-4.0])
    """
    step_size = between("damped_momentum", "step_size", step_size, 0)
    momentum = between("damped_momentum", "momentum", momentum, 0, 1)
    return optax.GradientTransformationExtraArgs(_init, Applied(_update, (step_size, momentum)))


def _init(params: Any) -> DampedState:
    return DampedState(jnp.int32(0), jax.tree.map(jnp.zeros_like, params))


def _update(
    step_size: Any, momentum: Any, updates: Any, state: DampedState, params: Any = None, **_: Any
) -> tuple[Any, DampedState]:
    def following(v: jax.Array, g: jax.Array) -> jax.Array:
        decay = jnp.asarray(momentum, g.dtype)
        return jnp.where(state.count == 0, g, decay * v + (1 - decay) * g)

    velocity = jax.tree.map(following, state.velocity, updates)
    steps = jax.tree.map(lambda v: -jnp.asarray(step_size, v.dtype) * v, velocity)
    return steps, DampedState(state.count + 1, velocity)
