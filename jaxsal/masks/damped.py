"""Gradient descent with a damped momentum, the solver of extremal perturbations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied


class DampedState(NamedTuple):
    """State of :func:`damped_momentum`.

    Attributes:
        count: updates made, int32.
        velocity: moving mean of the gradients; the first gradient at first.
    """

    count: jax.Array
    velocity: Any


def damped_momentum(learning_rate: float = 0.01, momentum: float = 0.9) -> Any:
    """``velocity <- momentum * velocity + (1 - momentum) * grad``, which starts at the first gradient.

    Example:
        >>> solver = damped_momentum(1.0, 0.5)
        >>> updates, state = solver.update(jnp.array([4.0]), solver.init(jnp.zeros(1)))
        >>> solver.update(jnp.array([0.0]), state)[0].tolist(), updates.tolist()
        ([-2.0], [-4.0])
    """
    return optax.GradientTransformationExtraArgs(_init, Applied(_update, (learning_rate, momentum)))


def _init(params: Any) -> DampedState:
    return DampedState(jnp.int32(0), jax.tree.map(jnp.zeros_like, params))


def _update(learning_rate: Any, momentum: Any, updates: Any, state: DampedState, params: Any = None, **_: Any):
    def following(v: jax.Array, g: jax.Array) -> jax.Array:
        return jnp.where(state.count == 0, g, momentum * v + (1 - momentum) * g)

    velocity = jax.tree.map(following, state.velocity, updates)
    return jax.tree.map(lambda v: -learning_rate * v, velocity), DampedState(state.count + 1, velocity)
