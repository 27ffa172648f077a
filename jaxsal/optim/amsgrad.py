"""Adam with a second moment that never falls."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.checks import between, count


class AmsgradState(NamedTuple):
    """State of :func:`amsgrad`.

    Attributes:
        count: updates made, int32.
        mu: running mean of the gradients.
        nu: running mean of their squares.
        nu_max: the largest that it ever was.
    """

    count: jax.Array
    mu: chex.ArrayTree
    nu: chex.ArrayTree
    nu_max: chex.ArrayTree


def amsgrad(
    step_size: float = 1e-2,
    momentum: float = 0.9,
    second_momentum: float = 0.999,
    epsilon: float = 1e-8,
    *,
    fall: float = 1.0,
    every: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""AMSGrad as PyTorch has it, with a step size that falls in stairs.

    ``M <- M - s_t * m / (1 - momentum^t) / (sqrt(v' / (1 - second_momentum^t)) + epsilon)`` at step ``t = 1, 2 ...``,
    where ``s_t = step_size * fall^floor((t - 1) / every)``, ``m`` and ``v`` are running means of ``g`` and ``g^2``, and
    ``v'`` is the largest ``v`` so far. ``optax.amsgrad`` corrects the bias of ``v`` before it takes the largest, and so
    never forgets the first gradients.

    Args:
        step_size: the first; may be traced, as all numbers but ``every``.
        momentum: decay of the mean of the gradient, between 0 and 1.
        second_momentum: decay of the mean of its square, between 0 and 1.
        epsilon: added to the root, above 0.
        fall: factor on the step size after ``every`` steps, above 0 and at most 1.
        every: how many steps a stair has.

    Returns:
        A transform, equal to one built alike.

    Raises:
        TypeError: if ``every`` is not a whole number.
        ValueError: if an argument is out of its range.

    Reference:
        Reddi, Kale and Kumar, On the convergence of Adam and beyond, ICLR 2018, https://arxiv.org/abs/1904.09237

    Example:
        >>> solver = amsgrad(0.1, fall=0.5)
        >>> state, steps = solver.init(jnp.zeros(1)), []
        >>> for _ in range(3):
        ...     updates, state = solver.update(jnp.array([2.0]), state)
        ...     steps.append(round(updates.item(), 4))
        >>> steps
        [-0.1, -0.05, -0.025]
    """
    name = "amsgrad"
    given = (
        between(name, "step_size", step_size, 0),
        between(name, "momentum", momentum, 0, 1),
        between(name, "second_momentum", second_momentum, 0, 1),
        between(name, "epsilon", epsilon, 0),
        between(name, "fall", fall, 0, 1),
        count(name, "every", every),
    )
    return optax.GradientTransformationExtraArgs(_init, Applied(_update, given))


def _init(params: Any) -> AmsgradState:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return AmsgradState(jnp.int32(0), zeros, zeros, zeros)


def _update(
    step_size: Any, momentum: Any, second_momentum: Any, epsilon: Any, fall: Any, every: int,
    updates: Any, state: AmsgradState, params: Any = None, **_: Any,
):  # fmt: skip
    numbers = (step_size, momentum, second_momentum, epsilon, fall)

    def of_leaf(g: jax.Array, m: jax.Array, v: jax.Array, largest: jax.Array):
        size, b1, b2, eps, factor = (jnp.asarray(number, g.dtype) for number in numbers)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        largest = jnp.maximum(largest, v)
        t, stairs = (state.count + 1).astype(g.dtype), (state.count // every).astype(g.dtype)
        step = -size * factor**stairs * (m / (1 - b1**t)) / (jnp.sqrt(largest / (1 - b2**t)) + eps)
        return step, m, v, largest

    moved = jax.tree.map(of_leaf, updates, state.mu, state.nu, state.nu_max)
    steps, mu, nu, nu_max = jax.tree.transpose(jax.tree.structure(updates), jax.tree.structure((0,) * 4), moved)
    return steps, AmsgradState(state.count + 1, mu, nu, nu_max)
