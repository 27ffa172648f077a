"""Adam with a second moment that never falls, in the form in which the published masks were made."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied


class AmsgradState(NamedTuple):
    """State of :func:`amsgrad`.

    Attributes:
        count: updates made, int32.
        first: moving mean of the gradients.
        second: moving mean of their squares.
        largest: that it ever had.
    """

    count: jax.Array
    first: Any
    second: Any
    largest: Any


def amsgrad(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, *, fall: float = 1.0, every: int = 1
) -> Any:
    """AMSGrad as PyTorch has it, with a rate that falls in stairs.

    ``params -= rate_t * first / (1 - b1^t) / (sqrt(largest / (1 - b2^t)) + eps)``, where
    ``rate_t = learning_rate * fall ** ((t - 1) // every)``. The largest second moment is taken before its bias is
    corrected; ``optax.amsgrad`` corrects first, and then the first gradients are never forgotten.

    Args:
        learning_rate: the first rate.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the denominator.
        fall: factor on the rate after ``every`` steps.
        every: how many steps a stair has.

    Reference:
        Reddi, Kale and Kumar, On the convergence of Adam and beyond, ICLR 2018, https://arxiv.org/abs/1904.09237
    """
    return optax.GradientTransformationExtraArgs(_init, Applied(_update, (learning_rate, b1, b2, eps, fall, every)))


def _init(params: Any) -> AmsgradState:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return AmsgradState(jnp.int32(0), zeros, zeros, zeros)


def _update(
    learning_rate: Any, b1: Any, b2: Any, eps: Any, fall: Any, every: int,
    updates: Any, state: AmsgradState, params: Any = None, **_: Any,
):  # fmt: skip
    count = state.count + 1
    first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.first, updates)
    second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.second, updates)
    largest = jax.tree.map(jnp.maximum, state.largest, second)

    def change(m: jax.Array, v: jax.Array) -> jax.Array:
        t = count.astype(m.dtype)
        rate = learning_rate * fall ** (state.count // every).astype(m.dtype)
        return -rate * (m / (1 - b1**t)) / (jnp.sqrt(v / (1 - b2**t)) + eps)

    return jax.tree.map(change, first, largest), AmsgradState(count, first, second, largest)
