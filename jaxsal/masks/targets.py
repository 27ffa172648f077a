"""Which value of every image is explained."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.engine.lower import lower
from jaxsal.masks import scores
from jaxsal.masks.scores import Score
from jaxsal.model import Model
from jaxsal.optim.applied import Applied
from jaxsal.target import output_indices

Target = int | Sequence[int] | np.ndarray | jax.Array | Callable[[jax.Array], jax.Array] | None


class Targets(NamedTuple):
    """The values that are explained.

    Attributes:
        measure: ``(y[n, k], index) -> [n]``, equal by value.
        index: int32 ``[b, l]``: outputs of every image, ``l = 1`` unless several were asked for.
        several: whether they were.
    """

    measure: Callable[[jax.Array, jax.Array], jax.Array]
    index: np.ndarray
    several: bool


def find_targets(target: Target, outputs: str | Sequence[int] | None, score: Score, images: int, count: int) -> Targets:
    """What is asked for, checked against what the network has.

    Args:
        target: one output for all images, one for each, a function ``y[n, k] -> [n]``, or None where there is only
            one output.
        outputs: several outputs of every image instead, or None.
        score: ``"probability"``, or another one, which reads the output itself.
        images: how many.
        count: how many outputs the network has.

    Raises:
        TypeError: if the target is none of these.
        ValueError: if an output does not exist, the choice is ambiguous, or the probability of one output is asked for.
    """
    if outputs is not None and target is not None:
        raise ValueError("Both target and outputs were given: give one of them.")
    if callable(target):
        if score == "probability":
            raise ValueError('A target that is a function gives a value of its own: use score="output" or "closeness".')
        return Targets(Applied(scores.of_callable, (target,)), np.zeros((images, 1), np.int32), False)
    if score == "probability" and count == 1:
        raise ValueError(
            "The network has one output, the softmax of which is always 1: "
            'use score="closeness" for a regression, or "output" for the output as it is.'
        )
    measure = scores.probability if score == "probability" else scores.output
    if outputs is not None:
        chosen = output_indices(outputs, count)
        return Targets(measure, np.broadcast_to(np.asarray(chosen, np.int32), (images, len(chosen))), True)
    if target is None:
        if count != 1:
            raise ValueError(f"The network has {count} outputs: give target=, one of 0 to {count - 1}, or outputs=.")
        target = 0
    found = np.asarray(target)
    if not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"target got {target!r}, a whole number, one per image, or a function is needed.")
    if found.shape not in ((), (images,)):
        raise ValueError(f"target has shape {found.shape}: give one number, or one per image ({images}).")
    indices = output_indices(np.broadcast_to(found, (images,)).tolist(), count)
    return Targets(measure, np.asarray(indices, np.int32)[:, None], False)


def per_target(name: str, given: Any, index: np.ndarray, count: int, dtype: Any) -> jax.Array:
    """A number for all outputs, or one per output of the network, as ``[b, l]``.

    Raises:
        ValueError: if the shape does not fit, or a value is not finite.
    """
    values = np.asarray(given, np.float64)
    if values.shape not in ((), (1,), (count,)):
        raise ValueError(f"{name} has shape {values.shape}: give one number, or one per output ({count}).")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite values: finite ones are needed.")
    return jnp.asarray(np.broadcast_to(values, (count,))[index], dtype)


def predictions(model: Model, x: jax.Array, batch_size: int) -> jax.Array:
    """Outputs ``[b, k]`` of a network, so many images at a time.

    Raises:
        ValueError: if the network returns something else.
    """
    y = _forward(model, x, batch_size)
    if y.ndim != 2:
        raise ValueError(f"The network returns {y.shape}, [batch, outputs] is needed: reduce its other axes.")
    return y


@functools.partial(jax.jit, static_argnums=2)
def _forward(model: Model, x: jax.Array, batch_size: int) -> jax.Array:
    if batch_size >= len(x):
        return lower(model)(x)
    return jax.lax.map(lambda image: lower(model)(image[None])[0], x, batch_size=batch_size)


@functools.partial(jax.jit, static_argnums=0)
def values_of(measure: Callable[..., jax.Array], y: jax.Array, index: jax.Array) -> jax.Array:
    """The values ``[b, l]`` at ``index[b, l]`` of outputs ``y[b, k]``."""

    def one(y: jax.Array, index: jax.Array) -> jax.Array:
        return measure(y[None], index)[0]

    return jax.vmap(jax.vmap(one, (None, 0)))(y, index)


def checked_key(key: Any, needed: bool) -> jax.Array:
    """A random key, where one is needed the user's own.

    Raises:
        TypeError: if it is none.
        ValueError: if it is needed and missing.
    """
    if key is None:
        if needed:
            raise ValueError("This draws random numbers (noise, jitter or a random fill): give key=jax.random.key(0).")
        return jax.random.key(0)  # nothing is drawn from it
    is_key = isinstance(key, jax.Array) and (
        (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ())
        or (key.dtype == jnp.uint32 and key.shape == (2,))
    )
    if not is_key:
        raise TypeError(f"key got {key!r}, a random key is needed: jax.random.key(0).")
    return key
