"""Score-CAM: every channel of the features by what the network says of the part of the image that it lights up."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxsal.attribution.cam_prepared import Prepared, located, prepare, units, upsampled
from jaxsal.attribution.pulling import Outputs, Target, check_batch_size, mapped, score
from jaxsal.engine.geometry import Geometry
from jaxsal.engine.lower import lower
from jaxsal.engine.upsampling import upsample
from jaxsal.model import as_pytree
from jaxsal.splitting import Split


def score_cam(
    split: Split,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = 16,
    baseline: Any = 0.0,
    sigma: Any = 1.0,
    weigh: Callable[[jax.Array], jax.Array] | None = None,
    positive: bool = False,
    geometry: Geometry | None = None,
) -> jax.Array:
    r"""Score-CAM: every channel of the features by how much its part of the image raises the score; no gradients.

    A channel's features ``A_c``, brought to the image's grid and scaled to ``H_c`` within [0, 1], show the network
    their part of the image, ``b + H_c (x - b)`` with a baseline ``b``. What this raises the score by above the
    baseline, ``s_c = (S(b + H_c (x - b)) - S(b)) / sigma``, weighs the channel: ``map_v = sum_c A_vc weigh(s)_c``. The
    network runs once for every channel, whatever the number of outputs.

    Args:
        split: head and tail, see :func:`jaxsal.split`.
        x: images ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> [b]``, or None where
            there is only one output.
        outputs: several outputs of every image instead of a target, ``"all"`` or positions.
        batch_size: masked images at once, over channels and images; None takes one on a CPU, elsewhere
            all, of which there may be thousands.
        baseline: the image of nothing, which the score is compared with and which a channel leaves where it is dark: a
            number, or an array that broadcasts to ``x``, such as the mean image of a population. Black is nothing to
            some networks only.
        sigma: the unit of the increases, a number or one per output of the network.
        weigh: ``increases[c] -> weights[c]``; None takes the increases as they are, of both signs. The paper's for
            classes is ``jax.nn.softmax``, which makes positive weights of falling scores too, and of a regression's
            depends on its unit: give ``sigma``.
        positive: set negative values to zero before interpolating, as the paper does for classes. A score with nothing
            but evidence against it then has an empty map.
        geometry: where the features lie in the image; None reads it off the head's operations.

    Returns:
        ``[b, *space]``, or with ``outputs`` ``[o, b, *space]``, signed, interpolated linearly between the centres of
        the features' receptive fields. A channel that is the same everywhere shows nothing and has the increase 0.

    Raises:
        TypeError: if ``x`` or ``target`` is of a wrong kind.
        ValueError: if an argument cannot be used, or the features have no spatial axes.

    Reference:
        Wang et al., Score-CAM: score-weighted visual explanations for convolutional neural networks, CVPR Workshops
        2020, https://doi.org/10.1109/CVPRW50498.2020.00020

    Example:
        >>> split = Split(lambda x: x, lambda f: 10 - f[:, :2].sum((1, 2)))
        >>> score_cam(split, jnp.array([1.0, 2.0, 0.0, 0.0]).reshape(1, 4, 1, 1)).tolist()
        [[[-2.5], [-5.0], [0.0], [0.0]]]
    """
    check_batch_size(batch_size)
    prepared = prepare(split, x, target, outputs, sigma)
    where = located(geometry, prepared.head, x)
    nothing = _baseline(baseline, x)
    weigh = None if weigh is None else as_pytree(weigh)
    maps = _scored(prepared, x, nothing, weigh, where, batch_size)
    return upsampled(jax.nn.relu(maps) if positive else maps, where, x.shape[1:-1])


@functools.partial(jax.jit, static_argnums=(4, 5))
def _scored(
    prepared: Prepared,
    x: jax.Array,
    nothing: jax.Array,
    weigh: Callable[[jax.Array], jax.Array] | None,
    where: Geometry,
    batch_size: int | None,
) -> jax.Array:
    head, tail = lower(prepared.head), lower(prepared.tail)
    features = head(x)
    images, channels, space = len(x), features.shape[-1], x.shape[1:-1]

    def shown(lane: tuple[jax.Array, jax.Array]) -> jax.Array:
        map, image = lane
        # indexed here: no copy of an image for each of its channels
        own, empty = x[image], nothing[jnp.minimum(image, len(nothing) - 1)]
        return tail(head((empty + _unit(map, where, space)[..., None] * (own - empty))[None]))[0]

    maps = jnp.moveaxis(features, -1, 1)
    lanes = maps.reshape(images * channels, *maps.shape[2:]), jnp.repeat(jnp.arange(images), channels)
    y = mapped(shown, lanes, batch_size).reshape(images, channels, -1)
    least = mapped(lambda image: tail(head(image[None]))[0], nothing, batch_size)
    least = jnp.broadcast_to(least, (images, y.shape[-1]))

    target, outputs = prepared.choice
    scores = jax.vmap(lambda y: score(y, target, outputs=outputs), 1, -1)(y)
    increases = (scores - score(least, target, outputs=outputs)[..., None]) / units(prepared, least)[..., None]
    weights = increases if weigh is None else jnp.vectorize(weigh, signature="(c)->(c)")(increases)
    flat = features.reshape(images, -1, channels)
    found = jnp.einsum("...bc,bvc->...bv", weights, flat, precision=jax.lax.Precision.HIGHEST)
    return found.reshape(*weights.shape[:-1], *features.shape[1:-1])


def _unit(map: jax.Array, where: Geometry, space: tuple[int, ...]) -> jax.Array:
    """A channel on the image's grid, between 0 and 1; 0 where it is the same everywhere."""
    large = upsample(map, where, space)
    least, spread = large.min(), jnp.ptp(large)
    # interpolation leaves rounding noise on a constant, which scaled to 1 would be a picture of nothing
    flat = (jnp.ptp(map) == 0) | (spread == 0)
    return jnp.where(flat, 0, (large - least) / jnp.where(flat, 1, spread))


def _baseline(given: Any, x: jax.Array) -> jax.Array:
    """``[b, *space, c]``, or ``[1, *space, c]`` where all images have the same."""
    found = jnp.asarray(given, x.dtype)
    if not isinstance(found, jax.core.Tracer) and not np.isfinite(np.asarray(found, np.float32)).all():
        raise ValueError("baseline holds NaN or infinite values: finite ones are needed.")
    alone = found.ndim < x.ndim or len(found) == 1
    try:
        return jnp.broadcast_to(found, (1 if alone else len(x), *x.shape[1:]))
    except ValueError:
        raise ValueError(
            f"baseline has shape {found.shape}: a number is needed, or an array that broadcasts to the images "
            f"{tuple(x.shape)}."
        ) from None
