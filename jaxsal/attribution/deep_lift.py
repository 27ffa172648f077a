"""DeepLIFT: how much of an output's change from a reference image each voxel makes."""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsal.attribution import composites, revealing, rules
from jaxsal.attribution.paths import checked_baseline
from jaxsal.attribution.pulling import Choice, Outputs, Target, choose, pull
from jaxsal.engine.rewire import rewire
from jaxsal.engine.sites import Composite, constant, hand_over
from jaxsal.model import Model, as_pytree


class Lanes(NamedTuple):
    """How a network runs for an image and its reference beside each other, every operation seeing both.

    Attributes:
        composite: rules, which read the other lanes' values.
        axis: name of the lanes' axis, by which they are found whatever the network does with a batch.
        of: ``x[b, *space, c], reference -> [n, b, *space, c]``; what comes back to ``x`` are contributions, multipliers
            times what they multiply.
        image: ``[n, b, k] -> y[b, k]``, the image's own output.
    """

    composite: Composite
    axis: str
    of: Callable[[jax.Array, jax.Array], jax.Array]
    image: Callable[[jax.Array], jax.Array]


def deep_lift(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    baseline: Any = 0.0,
    batch_size: int | None = None,
) -> jax.Array:
    r"""DeepLIFT by the rescale rule: ``(x - x') m``, with multipliers ``m`` that follow differences, not slopes.

    At an activation ``m = (f(z) - f(z')) / (z - z')``; at a max-pool the change of the maximum goes to the place where
    it is, or, where it fell, to where it was. Elsewhere derivatives are taken: products of two values that depend on
    the image, and statistics that normalise it, are not complete. Images and references pass through the network
    side by side, each as a batch of its own.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> s[b]``, linear in ``y``,
            or None where there is only one output.
        outputs: ``"all"`` or positions, instead of a target: a map for each.
        baseline: the reference ``x'``: a number, or an array that broadcasts to ``x``.
        batch_size: outputs at once; None takes one on a CPU, elsewhere all.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``; in units of the score. It sums to ``s(x) - s(x')``,
        see :func:`jaxsal.attribution.completeness`.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image, the network or the baseline cannot be used, or an output does not exist.
        NotImplementedError: if an operation of the network has no rule.

    Reference:
        Shrikumar, Greenside and Kundaje 2017, Learning important features through propagating activation differences,
        https://doi.org/10.48550/arXiv.1704.02685

    Example:
        >>> def model(x):
        ...     return jax.nn.relu(x.sum((1, 2)) - 4)[:, None]
        >>> deep_lift(model, jnp.array([[[3.0], [5.0]]])).ravel().tolist()
        [1.5, 2.5]
    """
    choice = choose(model, x, target, outputs)
    return _contributions(RESCALE, as_pytree(model), x, choice, checked_baseline(baseline, x), batch_size)


def reveal_cancel(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    baseline: Any = 0.0,
    batch_size: int | None = None,
) -> jax.Array:
    r"""DeepLIFT by the rule reveal-cancel: what raises a value and what lowers it have multipliers of their own.

    In a linear layer the contributions ``w_i (x_i - x'_i)`` above 0 are what raises the output, ``dz^+``, those below 0
    what lowers it, ``dz^-``. An activation changes by each of them before and after the other, the mean of both:
    ``dy^+ = (f(z' + dz^+) - f(z')) / 2 + (f(z) - f(z' + dz^-)) / 2``, and ``m^+ = dy^+ / dz^+``. So two inputs that
    cancel, or of which either alone would do, both count, where the rescale rule gives nothing, or all to one. The
    paper has no rule for max-pools: as in :func:`deep_lift`, one that rises is raised by the place where it is now.

    The network is run for four images: the image, the reference, and two between them. That takes about four times
    the time of :func:`deep_lift`.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: as for :func:`deep_lift`, linear in the network's outputs.
        outputs: ``"all"`` or positions, instead of a target: a map for each.
        baseline: the reference ``x'``: a number, or an array that broadcasts to ``x``.
        batch_size: outputs at once; None takes one on a CPU, elsewhere all.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``; in units of the score. It sums to ``s(x) - s(x')``.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image, the network or the baseline cannot be used, or an output does not exist.
        NotImplementedError: if an operation of the network has no rule; besides those that no method knows these are
            products of two values that both depend on the image, and statistics that normalise it.

    Reference:
        Shrikumar, Greenside and Kundaje 2017, Learning important features through propagating activation differences,
        section 3.5.3, https://doi.org/10.48550/arXiv.1704.02685

    Example:
        >>> def smaller(x):
        ...     a, b = x[:, 0], x[:, 1]
        ...     return a - jax.nn.relu(a - b)
        >>> x = jnp.array([[[5.0], [3.0]]])
        >>> reveal_cancel(smaller, x).ravel().tolist(), deep_lift(smaller, x).ravel().tolist()
        ([1.5, 1.5], [0.0, 3.0])
    """
    choice = choose(model, x, target, outputs)
    return _contributions(REVEAL_CANCEL, as_pytree(model), x, choice, checked_baseline(baseline, x), batch_size)


def _pair(x: jax.Array, reference: jax.Array) -> jax.Array:
    return jnp.stack([hand_over(constant(x - reference) * x, x), reference])


RESCALE = Lanes(composites.deep_lift(), rules.PAIR, _pair, operator.itemgetter(0))
REVEAL_CANCEL = Lanes(revealing.composite, revealing.LANES, revealing.four, revealing.to_both)


@functools.partial(jax.jit, static_argnames=("lanes", "batch_size"))
def _contributions(
    lanes: Lanes, model: Model, x: jax.Array, choice: Choice, baseline: jax.Array, batch_size: int | None
) -> jax.Array:
    reference = jnp.broadcast_to(baseline, x.shape)
    beside = jax.vmap(rewire(model, lanes.composite), axis_name=lanes.axis)
    return pull(lambda x: lanes.image(beside(lanes.of(x, reference))), x, choice, batch_size=batch_size)
