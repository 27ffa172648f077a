"""Integrated gradients averaged over a background set instead of one baseline."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxsal.attribution.accumulating import shape_of_maps, shares, total, wide
from jaxsal.attribution.drawing import checked_key, checked_samples
from jaxsal.attribution.pulling import Choice, Outputs, Target, check_batch_size, choose, pull
from jaxsal.engine.lower import lower
from jaxsal.model import Model, as_pytree, check_input


def expected_gradients(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    background: Any,
    outputs: Outputs = None,
    samples: int = 100,
    key: jax.Array,
    batch_size: int | None = None,
) -> jax.Array:
    r"""Expected gradients: ``E[(x - x') g(x' + a (x - x'))]``, ``x'`` from a background set and ``a ~ U(0, 1)``.

    It estimates the mean of :func:`jaxsal.attribution.integrated_gradients` over all images of the background as
    baselines; its sum is about ``s(x) - mean s(x')``, with an error that falls with ``1 / sqrt(samples)``. The draws
    are the same for all images and outputs, so that a map does not depend on what lies beside it in a batch.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> s[b]`` (pass the same
            object again: a new one is compiled anew), or None where there is only one output.
        background: images ``[n, *space, c]``, such as controls.
        outputs: ``"all"`` or positions, instead of a target: a map for each, from the same draws.
        samples: draws of an image of the background and a place on the way from it.
        key: random key, such as ``jax.random.key(0)``; the same key gives the same map.
        batch_size: gradients at once, of samples and outputs; None takes one sample at a time. The map is the
            same, up to rounding.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``; in units of the score.

    Raises:
        TypeError: if the model, an image, the target or the key is of a wrong kind.
        ValueError: if an image or the network cannot be explained, an output does not exist, the background is on
            another grid, or there are no samples.

    Reference:
        Erion, Janizek, Sturmfels, Lundberg and Lee, Nature Machine Intelligence 2021,
        https://doi.org/10.1038/s42256-021-00343-w

    Example:
        >>> def model(x):
        ...     return x.sum(1) @ jnp.array([[2.0]])
        >>> background = jnp.array([[[0.0], [1.0]], [[0.0], [3.0]]])
        >>> map = expected_gradients(
        ...     model, jnp.ones((1, 2, 1)), background=background, samples=400, key=jax.random.key(0))
        >>> map.round(0).ravel().tolist()  # 2 (1 - 0) and 2 (1 - 2)
        [2.0, -2.0]
    """
    choice = choose(model, x, target, outputs)
    check_batch_size(batch_size)
    check_input(background, "background")
    if background.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"background has shape {background.shape}, images of shape {x.shape[1:]} are explained: give "
            f"[n, {', '.join(map(str, x.shape[1:]))}]."
        )
    samples = checked_samples(samples)
    x = jnp.asarray(x)
    background = jnp.asarray(background, x.dtype)
    return _expected(samples, batch_size, as_pytree(model), x, choice, background, checked_key(key))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _expected(
    samples: int,
    batch_size: int | None,
    model: Model,
    x: jax.Array,
    choice: Choice,
    background: jax.Array,
    key: jax.Array,
) -> jax.Array:
    points, at_once = shares(batch_size, choice)

    def product(key: jax.Array) -> jax.Array:
        for_image, for_place = jax.random.split(key)
        baseline = background[jax.random.randint(for_image, (), 0, len(background))][None]
        way = x - baseline
        maps = pull(
            lower(model), baseline + jax.random.uniform(for_place, (), x.dtype) * way, choice, batch_size=at_once
        )
        return maps * jnp.broadcast_to(way, maps.shape)

    weights = jnp.full(samples, 1 / samples, wide(x.dtype))
    keys = jax.random.split(key, samples)
    return total(product, keys, weights, shape_of_maps(x, choice), points).astype(x.dtype)
