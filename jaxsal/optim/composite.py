"""Objectives that tell a distance, which costs a network, from what a mask costs by itself."""

from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp

from jaxsal.optim.tv import difference


@dataclass(frozen=True, eq=False)
class MaskPenalty:
    r"""What a mask costs by itself: ``norm * |1 - ||M||_2| + variation * TV(M)``, summed over the leaves of a pytree.

    ``TV`` is the mean over voxels and axes of ``|M[i + 1] - M[i]|``. Slopes are 0 where a term has a kink.

    Attributes:
        norm: weight of the distance from the unit sphere; may be traced.
        variation: weight of the total variation; may be traced.

    Example:
        >>> float(MaskPenalty(2.0, 4.0)(jnp.array([0.0, 3.0])))
        16.0
    """

    norm: Any
    variation: Any

    def __call__(self, mask: chex.ArrayTree) -> jax.Array:
        """The penalty of a mask."""
        return jax.tree.reduce(jnp.add, jax.tree.map(self._of, mask))

    def per_difference(self, mask: jax.Array) -> list[jax.Array]:
        """What a difference along each axis costs."""
        shares = [1 / (mask.ndim * max(mask.size // n * (n - 1), 1)) for n in mask.shape]
        return [jnp.asarray(self.variation * share, mask.dtype) for share in shares]

    def _of(self, mask: jax.Array) -> jax.Array:
        rough = [w * _absolute(difference(mask, axis)).sum() for axis, w in enumerate(self.per_difference(mask))]
        return sum(rough, jnp.asarray(self.norm, mask.dtype) * _absolute(1 - _length(mask)))


@dataclass(frozen=True, eq=False)
class Composite:
    """An objective ``distance(params) + penalty(params)``, called as any other.

    A distance is at least 0, as ``|prediction - wanted|`` is. Solvers that know the penalty
    (:func:`jaxsal.optim.prox_linear`) deal with it exactly; all others see the sum.

    Attributes:
        distance: ``params -> (value, aux)``.
        penalty: ``params -> value``, a :class:`MaskPenalty`.

    Example:
        >>> objective = Composite(lambda m: (jnp.abs(m.sum() - 2.0), {}), MaskPenalty(1.0, 0.0))
        >>> float(objective(jnp.array([1.0, 0.0]))[0])
        1.0
    """

    distance: Any
    penalty: MaskPenalty

    def __call__(self, params: chex.ArrayTree) -> tuple[jax.Array, Any]:
        """Value and what the distance says beside it."""
        value, aux = self.distance(params)
        return value + self.penalty(params), aux


def _absolute(x: jax.Array) -> jax.Array:
    return x * jax.lax.stop_gradient(jnp.sign(x))


def _length(x: jax.Array) -> jax.Array:
    square = jnp.sum(x * x)
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
