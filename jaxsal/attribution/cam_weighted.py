"""Features weighed by a function of themselves and their gradients: what the gradient-based activation maps share."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal.attribution.cam_prepared import Prepared, located, prepare, units, upsampled
from jaxsal.attribution.pulling import Outputs, Target, check_batch_size, mapped, seeds
from jaxsal.engine.geometry import Geometry
from jaxsal.engine.lower import lower
from jaxsal.model import as_pytree
from jaxsal.splitting import Split

Weigh = Callable[[jax.Array, jax.Array], jax.Array]


def weighted_cam(
    split: Split,
    x: jax.Array,
    target: Target = None,
    *,
    weigh: Weigh,
    outputs: Outputs = None,
    batch_size: int | None = None,
    sigma: Any = 1.0,
    counterfactual: bool = False,
    positive: bool = False,
    geometry: Geometry | None = None,
) -> jax.Array:
    r"""A class activation map by weights of your own, on the image's grid.

    ``map_v = sum_c w_vc A_vc`` with ``w = weigh(A, G)``, where ``A = head(x)`` are an example's features and ``G`` the
    gradient of its score by them. Examples are weighed one by one; all outputs share one forward pass.

    Args:
        split: head and tail, see :func:`jaxsal.split`.
        x: images ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> [b]``, or None where
            there is only one output.
        weigh: ``(features[*t, c], gradient[*t, c]) -> weights``, of one example, of any shape that broadcasts to
            ``[*t, c]``. Give the same function each time and it compiles once; what changes in it may be bound by
            ``jax.tree_util.Partial``.
        outputs: several outputs of every image instead of a target, ``"all"`` or positions.
        batch_size: outputs that are pulled back at once; None takes one on a CPU, elsewhere all.
        sigma: the unit of the score, e.g. the standard deviation of the outputs over a population: a number, or one per
            output of the network. Gradients are those of the score in this unit.
        counterfactual: negate the gradients: what lowers the score takes the place of what raises it.
        positive: set negative values to zero, on the features' grid, as the papers do for classes. A score that has
            nothing but evidence against it then has an empty map, as many a regression does.
        geometry: where the features lie in the image; None reads it off the head's operations.

    Returns:
        ``[b, *space]``, or with ``outputs`` ``[o, b, *space]``, signed, interpolated linearly between the centres of
        the features' receptive fields, in the unit of what is weighed: nothing is scaled.

    Raises:
        TypeError: if ``x`` or ``target`` is of a wrong kind.
        ValueError: if an argument cannot be used, or the features have no spatial axes.

    Example:
        >>> split = Split(jnp.sqrt, lambda f: f.sum((1, 2)))
        >>> x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2].set(9.0)
        >>> float(weighted_cam(split, x, weigh=lambda features, gradient: gradient)[0, 1, 2])
        3.0
    """
    check_batch_size(batch_size)
    prepared = prepare(split, x, target, outputs, sigma)
    where = located(geometry, prepared.head, x)
    maps = _weighted(prepared, x, as_pytree(weigh), batch_size, counterfactual, positive)
    return upsampled(maps, where, x.shape[1:-1])


def weighted_features(
    split: Split,
    x: jax.Array,
    target: Target = None,
    *,
    weigh: Weigh,
    outputs: Outputs = None,
    batch_size: int | None = None,
    sigma: Any = 1.0,
    counterfactual: bool = False,
    positive: bool = False,
) -> jax.Array:
    """:func:`weighted_cam` on the grid of the features, before it is interpolated.

    Args:
        split: this and all that follow as for :func:`weighted_cam`.
        x: images.
        target: output, or outputs by example, or a function of them.
        weigh: weights of one example's features.
        outputs: several outputs instead.
        batch_size: outputs at once.
        sigma: unit of the score.
        counterfactual: negate the gradients.
        positive: set negative values to zero.

    Returns:
        ``[b, *t]``, or with ``outputs`` ``[o, b, *t]``.

    Raises:
        TypeError: if ``x`` or ``target`` is of a wrong kind.
        ValueError: if an argument cannot be used, or the features have no spatial axes.

    Example:
        >>> from jaxsal.attribution.cam_weights import grad_cam_weights
        >>> split = Split(lambda x: x[:, ::2, ::2], lambda f: f.mean((1, 2)))
        >>> weighted_features(split, jnp.ones((1, 4, 4, 1)), weigh=grad_cam_weights).tolist()
        [[[0.25, 0.25], [0.25, 0.25]]]
    """
    check_batch_size(batch_size)
    prepared = prepare(split, x, target, outputs, sigma)
    return _weighted(prepared, x, as_pytree(weigh), batch_size, counterfactual, positive)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _weighted(
    prepared: Prepared, x: jax.Array, weigh: Weigh, batch_size: int | None, counterfactual: bool, positive: bool
) -> jax.Array:
    features = lower(prepared.head)(x)
    y, back = jax.vjp(lower(prepared.tail), features)
    target, outputs = prepared.choice
    starts = seeds(y, target, outputs=outputs) / units(prepared, y)[..., None]
    starts = -starts if counterfactual else starts

    def pulled(start: jax.Array) -> jax.Array:
        # reduced to a map here, so that no more gradients are held than are pulled back at once
        return jax.vmap(functools.partial(_sum, weigh))(features, back(start)[0])

    maps = pulled(starts) if starts.ndim == y.ndim else mapped(pulled, starts, batch_size)
    return jax.nn.relu(maps) if positive else maps


def _sum(weigh: Weigh, features: jax.Array, gradient: jax.Array) -> jax.Array:
    weights = weigh(features, gradient)
    try:
        weights = jnp.broadcast_to(weights, features.shape)
    except ValueError:
        raise ValueError(
            f"weigh returns {jnp.shape(weights)} for features {features.shape} of one example: weights of a shape that "
            "broadcasts to that are needed."
        ) from None
    return (weights * features).sum(-1)
