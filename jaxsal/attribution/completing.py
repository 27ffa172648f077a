"""Whether a map adds up to what it explains."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.attribution.paths import checked_baseline
from jaxsal.attribution.pulling import Choice, Outputs, Target, choose, score
from jaxsal.engine.lower import lower
from jaxsal.model import Model, as_pytree


class Completeness(NamedTuple):
    """What maps add up to; ``[b]``, or ``[o, b]`` for several outputs. Printed, it is a table.

    Attributes:
        total: sum of each map.
        difference: ``s(x) - s(x')``, what it should be.
        error: total less difference.
    """

    total: jax.Array
    difference: jax.Array
    error: jax.Array

    def __repr__(self) -> str:
        lanes = ("output", "image")[-np.ndim(self.total) :]
        lines = ["".join(f"{name:>12}" for name in (*lanes, "sum of map", "difference", "error"))]
        for at, value in np.ndenumerate(np.asarray(self.total)):
            numbers = (float(value), float(self.difference[at]), float(self.error[at]))
            lines.append("".join(f"{cell:>12}" for cell in (*at, *(f"{number:.4g}" for number in numbers))))
        return "\n".join(lines)


def completeness(
    model: Model, x: jax.Array, map: jax.Array, target: Target = None, *, outputs: Outputs = None, baseline: Any = 0.0
) -> Completeness:
    r"""The sum of a map beside the change of the score that it divides among the voxels, ``s(x) - s(x')``.

    For maps of integrated gradients of every kind the error is that of the quadrature: take more steps where it is not
    small beside the difference.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``.
        map: ``[b, *space, c]`` or ``[b, *space]``; with ``outputs`` one for each, ``[o, ...]``.
        target: what was explained.
        outputs: what was explained, instead of a target.
        baseline: where the path started: a number or an array as for
            :func:`jaxsal.attribution.integrated_gradients`; for blur integrated gradients ``blurred(x, sigma)``.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the map does not belong to the images and outputs, or one of them cannot be used.

    Example:
        >>> def model(x):
        ...     return (x**2).sum(1)
        >>> x = jnp.array([[[1.0], [3.0]]])
        >>> print(completeness(model, x, 2 * x * x))
               image  sum of map  difference       error
                   0          20          10          10
    """
    choice = choose(model, x, target, outputs)
    x, map = jnp.asarray(x), jnp.asarray(map)
    lead = (len(x),) if choice.outputs is None else (len(choice.outputs), len(x))
    if map.shape not in ((*lead, *x.shape[1:]), (*lead, *x.shape[1:-1])):
        raise ValueError(
            f"The map has shape {map.shape}, {(*lead, *x.shape[1:])} is needed for these images and outputs."
        )
    difference = _difference(as_pytree(model), x, checked_baseline(baseline, x), choice)
    total = map.sum(tuple(range(len(lead), map.ndim)))
    return Completeness(total, difference, total - difference)


@jax.jit
def _difference(model: Model, x: jax.Array, baseline: jax.Array, choice: Choice) -> jax.Array:
    run = lower(model)
    return score(run(x), choice) - score(run(jnp.broadcast_to(baseline, x.shape)), choice)
