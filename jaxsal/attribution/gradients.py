"""The gradient of a score by the image, and the gradient times the image."""

import functools

import jax
import jax.numpy as jnp

from jaxsal.attribution.pulling import Choice, Outputs, Start, Target, choose, pull
from jaxsal.engine.lower import lower
from jaxsal.model import Model, as_pytree


def saliency(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    start: Start = "one",
) -> jax.Array:
    r"""The gradient of a score by the image, ``ds(x)/dx``, with its sign.

    A voxel's value says by how much the score rises per unit of intensity there. The published map is its absolute
    value, and of several channels the largest: ``jnp.abs(map).max(-1)``.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> s[b]`` (pass the same
            object again: a new one is compiled anew), or None where there is only one output.
        outputs: ``"all"`` or positions, instead of a target: a map for each.
        batch_size: outputs at once; None takes one on a CPU, elsewhere all.
        start: ``"one"``, or ``"value"`` for the gradient times the score.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``; in units of the score per unit of intensity.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image or the network cannot be explained, or an output does not exist.

    Reference:
        Simonyan, Vedaldi and Zisserman, ICLR workshop 2014, https://doi.org/10.48550/arXiv.1312.6034

    Example:
        >>> def model(x):
        ...     return jnp.stack([(x**2).sum((1, 2)), x.sum((1, 2))], 1)
        >>> x = jnp.array([[[1.0], [-3.0]]])
        >>> saliency(model, x, 0).ravel().tolist()
        [2.0, -6.0]
        >>> saliency(model, x, outputs="all").shape
        (2, 1, 2, 1)
    """
    choice = choose(model, x, target, outputs)
    return _gradient(as_pytree(model), x, choice, batch_size, start)


def input_x_gradient(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    start: Start = "one",
) -> jax.Array:
    r"""The image times the gradient, ``x ds(x)/dx``: what each voxel gives to a network that is linear around ``x``.

    For networks of ReLUs, max-pools and no biases the sum over the image is the score.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: as for :func:`saliency`.
        outputs: ``"all"`` or positions, instead of a target: a map for each.
        batch_size: outputs at once; None takes one on a CPU, elsewhere all.
        start: ``"one"``, or ``"value"`` for the map times the score.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``; in units of the score.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image or the network cannot be explained, or an output does not exist.

    Reference:
        Shrikumar, Greenside, Shcherbina and Kundaje, 2016, https://doi.org/10.48550/arXiv.1605.01713

    Example:
        >>> def model(x):
        ...     return x.sum(1) @ jnp.array([[2.0]])
        >>> input_x_gradient(model, jnp.array([[[1.0], [-3.0]]])).ravel().tolist()
        [2.0, -6.0]
    """
    choice = choose(model, x, target, outputs)
    return _input_x_gradient(as_pytree(model), x, choice, batch_size, start)


@functools.partial(jax.jit, static_argnames=("batch_size", "start"))
def _gradient(model: Model, x: jax.Array, choice: Choice, batch_size: int | None, start: Start) -> jax.Array:
    return pull(lower(model), x, choice, batch_size=batch_size, start=start)


@functools.partial(jax.jit, static_argnames=("batch_size", "start"))
def _input_x_gradient(model: Model, x: jax.Array, choice: Choice, batch_size: int | None, start: Start) -> jax.Array:
    maps = pull(lower(model), x, choice, batch_size=batch_size, start=start)
    return maps * jnp.broadcast_to(x, maps.shape)
