"""Integrated gradients along a path that goes first where the network answers least."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsal.attribution.drawing import checked_samples
from jaxsal.attribution.paths import checked_baseline
from jaxsal.attribution.pulling import Choice, Outputs, Target, check_batch_size, choose, mapped, pull
from jaxsal.engine.lower import lower
from jaxsal.model import Model, as_pytree


def guided_integrated_gradients(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    steps: int = 200,
    baseline: Any = 0.0,
    fraction: float = 0.25,
    max_dist: float = 0.02,
    batch_size: int | None = None,
) -> jax.Array:
    r"""Guided integrated gradients: ``\int g(p) dp`` along a path that moves the least sensitive voxels first.

    Every step shortens the L1 distance to the image by one ``steps``-th. It moves the share ``fraction`` of values
    that are not there yet and have the smallest ``|g|``, then the next ones, until the distance is met; each stays
    within ``max_dist`` of where the straight line would have it. Voxels that the network reacts to strongly on the way,
    but not at the image, thus collect less noise. The sum of the map is ``s(x) - s(x')``, up to an error that falls
    with ``1 / steps``.

    Every image and every output has a path of its own, and the gradient must be known before the next point is: steps
    follow one another.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> s[b]`` (pass the same
            object again: a new one is compiled anew), or None where there is only one output.
        outputs: ``"all"`` or positions, instead of a target: a map for each.
        steps: gradients that are taken.
        baseline: ``x'``: a number, one per channel ``[c]``, one image ``[*space, c]`` or one for each
            ``[b, *space, c]``, in the image's units.
        fraction: of the values, in [0, 1], that are moved at a time; 1 is the straight line.
        max_dist: how far a value may be ahead of the straight line or behind it, as a share of its way, in [0, 1]; 0 is
            the straight line, 1 lets every value go on its own.
        batch_size: outputs at once; None takes one.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``; in units of the score.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image or the network cannot be explained, an output does not exist, the baseline does not
            fit, or an option is out of its range.

    Reference:
        Kapishnikov, Venugopalan, Avci, Wedin, Terry and Bolukbasi, CVPR 2021,
        https://doi.org/10.1109/CVPR46437.2021.00501

    Example:
        >>> def model(x):
        ...     return 2 * x[:, 0] + x[:, 1]
        >>> x = jnp.array([[[10.0], [5.0]]])
        >>> guided_integrated_gradients(model, x, steps=10).round(3).ravel().tolist()
        [20.0, 5.0]
    """
    choice = choose(model, x, target, outputs)
    check_batch_size(batch_size)
    steps = checked_samples(steps, "steps")
    for name, share in (("fraction", fraction), ("max_dist", max_dist)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} got {share}, a share from 0 to 1 is needed.")
    x = jnp.asarray(x)
    # the position of the quantile among the values of one image
    last = math.floor(fraction * (x[0].size - 1))
    baseline = checked_baseline(baseline, x)
    return _guided(steps, last, batch_size, as_pytree(model), x, choice, baseline, jnp.asarray(max_dist, x.dtype))


class _Walk(NamedTuple):
    """Where the images are on their way, and what was collected; ``[b, *space, c]`` each."""

    at: jax.Array
    map: jax.Array


class _Step(NamedTuple):
    """One step of one image, its values flat ``[n]``.

    Attributes:
        x: where the way ends.
        at_least: where every value must be by now.
        at_most: where it may be by now.
        slope: gradient.
        goal: L1 distance to the image after the step.
        close: how close to it is close enough.
    """

    x: jax.Array
    at_least: jax.Array
    at_most: jax.Array
    slope: jax.Array
    goal: jax.Array
    close: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _guided(
    steps: int,
    last: int,
    batch_size: int | None,
    model: Model,
    x: jax.Array,
    choice: Choice,
    baseline: jax.Array,
    max_dist: jax.Array,
) -> jax.Array:
    baseline = jnp.broadcast_to(baseline, x.shape)

    def walk(choice: Choice) -> jax.Array:
        def step(walk: _Walk, number: jax.Array) -> tuple[_Walk, None]:
            slope = pull(lower(model), walk.at, choice)
            at = jax.vmap(functools.partial(_moved, last), (0, 0, 0, 0, None, None))(
                walk.at, slope, x, baseline, number.astype(x.dtype) / steps, max_dist
            )
            return _Walk(at, walk.map + (at - walk.at) * slope), None

        start = _Walk(baseline, jnp.zeros_like(x))
        return jax.lax.scan(step, start, jnp.arange(1, steps + 1))[0].map

    if choice.outputs is None:
        return walk(choice)
    each = jnp.broadcast_to(choice.outputs[:, None], (len(choice.outputs), len(x)))
    return mapped(lambda index: walk(Choice(index, None)), each, batch_size or 1)


def _moved(
    last: int,
    at: jax.Array,
    slope: jax.Array,
    x: jax.Array,
    baseline: jax.Array,
    t: jax.Array,
    max_dist: jax.Array,
) -> jax.Array:
    """The next point of one image; ``t`` is where the straight line would be."""
    start, way = baseline.ravel(), (x - baseline).ravel()
    length = jnp.abs(way).sum()
    early, late = jnp.clip(jnp.stack([t - max_dist, t + max_dist]), 0, 1)
    # what there is no way to go for is there from the start
    progress = jnp.where(way == 0, late, (at.ravel() - start) / jnp.where(way == 0, jnp.ones_like(way), way))
    step = _Step(
        x=x.ravel(),
        at_least=start + way * early,
        # to the letter, for what has arrived is found by comparing
        at_most=jnp.where(late == 1, x.ravel(), start + way * late),
        slope=jnp.abs(slope.ravel()),
        goal=length * (1 - t),
        close=8 * jnp.finfo(x.dtype).eps * length,
    )
    at = jnp.where(progress < early, step.at_least, at.ravel())
    _, at = jax.lax.while_loop(lambda state: state[0], functools.partial(_some_moved, last, step), (length > 0, at))
    return at.reshape(x.shape)


def _some_moved(last: int, step: _Step, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The least sensitive values that can still be moved, moved: whether that is not enough, and where they are."""
    _, at = state
    missing = jnp.abs(step.x - at).sum() - step.goal
    far = jnp.full_like(step.slope, jnp.inf)
    slope = jnp.where(at == step.at_most, far, step.slope)
    chosen = (slope <= jnp.sort(slope)[last]) & (slope < far)
    reach = jnp.where(chosen, jnp.abs(step.at_most - at), jnp.zeros_like(at)).sum()
    share = jnp.where(reach > 0, missing / jnp.where(reach > 0, reach, jnp.ones_like(reach)), jnp.zeros_like(reach))
    to = jnp.where(share >= 1, step.at_most, at + jnp.clip(share, 0, 1) * (step.at_most - at))
    needed = missing > step.close
    return needed & (share > 1), jnp.where(chosen & needed, to, at)
