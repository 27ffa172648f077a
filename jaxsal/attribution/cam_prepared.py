"""A split network and images, checked for a class activation map, and its way back to the image's grid."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxsal.attribution.pulling import Choice, Outputs, Target, choose, score
from jaxsal.engine.geometry import Geometry, geometry
from jaxsal.engine.upsampling import one_by_one, upsample
from jaxsal.model import Model, as_pytree, check_input, check_model
from jaxsal.splitting import Split
from jaxsal.target import standard_deviations


class Prepared(NamedTuple):
    """What a compiled map takes; a pytree.

    Attributes:
        head: ``x[b, *space, c] -> features[b, *t, c']``.
        tail: ``features -> y[b, k]``.
        choice: which score is explained.
        sigma: unit of every output, ``[k]``, or of the value of a target that is a function, ``[1]``.
    """

    head: Model
    tail: Model
    choice: Choice
    sigma: jax.Array


def prepare(split: Split, x: jax.Array, target: Target, outputs: Outputs, sigma: Any = 1.0) -> Prepared:
    """Check what a map is asked for; arguments as of :func:`jaxsal.attribution.weighted_cam`."""
    head, tail = as_pytree(split.head), as_pytree(split.tail)
    whole = Partial(_whole, head, tail)
    choice = choose(whole, x, target, outputs)
    features, y = _both.eval_shape(head, tail, x)
    _check_features(features, x)
    if callable(choice.target) and np.size(sigma) != 1:
        raise ValueError(f"sigma has shape {np.shape(sigma)}: the value of a target function has one, give a number.")
    sigmas = standard_deviations(sigma, 1 if callable(choice.target) else y.shape[1])
    return Prepared(head, tail, choice, jnp.asarray(sigmas, y.dtype))


def units(prepared: Prepared, y: jax.Array) -> jax.Array:
    """The unit of every score of ``y[b, k]``: ``[b]``, or with outputs ``[o, b]``."""
    target, outputs = prepared.choice
    if callable(target):
        return jnp.broadcast_to(prepared.sigma, (len(y),))
    return score(jnp.broadcast_to(prepared.sigma, y.shape), target, outputs=outputs)


def prepare_head(split: Split, x: jax.Array) -> Model:
    """Check a head and images, for a map that asks nothing of the tail."""
    check_model(split.head)
    check_input(x)
    head = as_pytree(split.head)
    _check_features(_alone.eval_shape(head, x), x)
    return head


def located(given: Geometry | None, head: Model, x: jax.Array) -> Geometry:
    """Where the features lie in the image.

    Raises:
        ValueError: if that cannot be read off the head's operations, or is given for other axes.
    """
    if given is None:
        return geometry(head, x)
    rank = x.ndim - 2
    if len(given.start) != rank or len(given.step) != rank:
        raise ValueError(f"geometry got {given} for images of {rank} spatial axes: give a start and a step for each.")
    return given


@functools.partial(jax.jit, static_argnums=(1, 2))
def upsampled(maps: jax.Array, where: Geometry, space: tuple[int, ...]) -> jax.Array:
    """Maps ``[..., *t]`` on the grid of the image, interpolated linearly between receptive-field centres."""
    return one_by_one(lambda map: upsample(map, where, space), maps, len(space))


def _check_features(features: Any, x: jax.Array) -> None:
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) != x.ndim or shape[0] != len(x):
        raise ValueError(
            f"The head returns {shape} for images {tuple(x.shape)}, features [batch, *space, channels] are "
            "needed: split at a layer before the flatten; print(layers(model, x)) shows which ones can be split."
        )


@jax.jit
def _both(head: Model, tail: Model, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    features = head(x)
    return features, tail(features)


@jax.jit
def _alone(head: Model, x: jax.Array) -> jax.Array:
    return head(x)


def _whole(head: Model, tail: Model, x: jax.Array) -> jax.Array:
    return tail(head(x))
