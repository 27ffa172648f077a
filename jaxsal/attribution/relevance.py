"""Relevance propagation: an output's value, shared back layer by layer to the image."""

import functools
from typing import Any

import jax

from jaxsal.attribution import composites, rules
from jaxsal.attribution.fitting import Bounds, fitted, parted
from jaxsal.attribution.pulling import Choice, Outputs, Start, Target, choose, pull
from jaxsal.attribution.rules import Bound
from jaxsal.engine.rewire import rewire
from jaxsal.engine.sites import Composite
from jaxsal.model import Model, as_pytree


def lrp(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    composite: Composite | None = None,
    start: Start = "value",
) -> jax.Array:
    r"""Layer-wise relevance propagation, by the rules of a composite.

    Relevance starts as the output's value and is shared, at every site, among the inputs of the site; so are those of
    regressions, negative outputs too. Residual sums, re-used activations and BatchNorm need no change of the network.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> s[b]``, or None where
            there is only one output.
        outputs: ``"all"`` or positions, instead of a target: a map for each, in one program.
        batch_size: outputs at once; None takes one on a CPU, elsewhere all.
        composite: ``site -> rule``; None is :func:`jaxsal.composites.epsilon_plus`. :func:`jaxsal.sites` prints what it
            chooses. It is part of the compiled program, but for the bounds of a table's first layers
            (:func:`jaxsal.composites.epsilon_gamma_box`), which are data.
        start: ``"value"``, or ``"one"`` for shares of 1.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``; in units of the score. Rules without bias conserve:
        the map sums to the score, also where that is a weighted sum of outputs; of other functions of the outputs to
        ``sum_k y_k ds/dy_k``.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image or the network cannot be explained, an output does not exist, the composite names a
            layer that does not, or it has bounds for each channel and the network puts these at another axis.
        NotImplementedError: if an operation of the network has no rule; it is named, with its line.

    Reference:
        Bach et al. 2015, On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
        propagation, https://doi.org/10.1371/journal.pone.0130140

    Example:
        >>> import jax.numpy as jnp
        >>> def model(x):
        ...     return jax.nn.relu(x.reshape(len(x), -1) @ jnp.array([[2.0], [1.0]]))
        >>> [f"{r:.1f}" for r in lrp(model, jnp.array([[[3.0], [4.0]]])).ravel()]
        ['6.0', '4.0']
    """
    choice = choose(model, x, target, outputs)
    return propagated(as_pytree(model), x, choice, composite or composites.epsilon_plus(), batch_size, start)


def deep_taylor(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    bounds: tuple[Bound, Bound] | None = None,
    outputs: Outputs = None,
    batch_size: int | None = None,
    start: Start = "value",
) -> jax.Array:
    r"""Deep Taylor decomposition: z+ in all layers behind activations, w^2 or z^B where the image comes in.

    For networks of ReLUs. The published method takes an output above 0; here one below 0 is explained likewise, by what
    makes it so (:func:`jaxsal.attribution.rules.same_sign`), and residual sums share in proportion instead of doubling
    what they get.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: as for :func:`lrp`.
        bounds: least and greatest value of the image, or one each for every channel: rule z^B; None is rule w^2.
        outputs: ``"all"`` or positions, instead of a target.
        batch_size: outputs at once; None takes one on a CPU, elsewhere all.
        start: ``"value"``, or ``"one"``.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``; in units of the score.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image or the network cannot be explained, an output does not exist, the lower bound is
            not below the upper one, or there is one for each channel and the network puts these at another axis.
        NotImplementedError: if an operation of the network has no rule.

    Reference:
        Montavon et al. 2017, Explaining nonlinear classification decisions with deep Taylor decomposition,
        https://doi.org/10.1016/j.patcog.2016.11.008

    Example:
        >>> import jax.numpy as jnp
        >>> def model(x):
        ...     return x.reshape(len(x), -1) @ jnp.array([[2.0], [1.0]])
        >>> [f"{r:.1f}" for r in deep_taylor(model, jnp.array([[[3.0], [4.0]]])).ravel()]
        ['8.0', '2.0']
    """
    first = rules.w_square() if bounds is None else rules.z_box(*bounds)
    hidden = rules.same_sign()
    composite = composites.Rules(hidden, hidden, first=first)
    return propagated(as_pytree(model), x, choose(model, x, target, outputs), composite, batch_size, start)


def excitation_backprop(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    start: Start = "value",
) -> jax.Array:
    r"""Excitation backprop: the probability that a top-down walk of winners ends at a voxel, times the score.

    A walk goes from a value to one of those that excite it, with the probability ``a_i w_ij^+ / sum_i a_i w_ij^+``. It
    ends at a value that nothing excites, and is lost: an output whose weights are all below 0 has a map of zeros.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: as for :func:`lrp`.
        outputs: ``"all"`` or positions, instead of a target.
        batch_size: outputs at once; None takes one on a CPU, elsewhere all.
        start: ``"value"``, or ``"one"`` for the probabilities themselves.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image or the network cannot be explained, or an output does not exist.
        NotImplementedError: if an operation of the network has no rule.

    Reference:
        Zhang et al. 2018, Top-down neural attention by excitation backprop,
        https://doi.org/10.1007/s11263-017-1059-x

    Example:
        >>> import jax.numpy as jnp
        >>> def model(x):
        ...     return x.reshape(len(x), -1) @ jnp.array([[2.0], [-1.0], [2.0]])
        >>> [f"{r:.2f}" for r in excitation_backprop(model, jnp.array([[[1.0], [4.0], [3.0]]]), start="one").ravel()]
        ['0.25', '0.00', '0.75']
    """
    choice = choose(model, x, target, outputs)
    return propagated(as_pytree(model), x, choice, composites.excitation_backprop(), batch_size, start)


def contrastive_excitation_backprop(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    start: Start = "value",
) -> jax.Array:
    r"""Excitation backprop for an output less that for its opposite, the same output with its weights negated.

    What speaks for every output alike cancels. The published map is what is above 0: ``jnp.maximum(map, 0)``.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``, whose last weights are a dense or convolution site.
        x: ``[b, *space, c]``, floating point.
        target: as for :func:`lrp`.
        outputs: ``"all"`` or positions, instead of a target.
        batch_size: outputs at once; None takes one on a CPU, elsewhere all.
        start: ``"value"``, or ``"one"``.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``; it sums to 0 where both walks exist.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image or the network cannot be explained, or an output does not exist.
        NotImplementedError: if an operation of the network has no rule.

    Reference:
        Zhang et al. 2018, https://doi.org/10.1007/s11263-017-1059-x

    Example:
        >>> import jax.numpy as jnp
        >>> def model(x):
        ...     return x.reshape(len(x), -1) @ jnp.array([[2.0], [-1.0], [2.0]])
        >>> x = jnp.array([[[1.0], [4.0], [3.0]]])
        >>> [f"{r:.2f}" for r in contrastive_excitation_backprop(model, x, start="one").ravel()]
        ['0.25', '-1.00', '0.75']
    """
    return _contrasted(as_pytree(model), x, choose(model, x, target, outputs), batch_size, start)


@functools.partial(jax.jit, static_argnames=("batch_size", "start"))
def _contrasted(model: Model, x: jax.Array, choice: Choice, batch_size: int | None, start: Start) -> jax.Array:
    # the network's last weights are looked for when it is compiled, and not again
    return pull(rewire(model, composites.contrastive(model, x)), x, choice, batch_size=batch_size, start=start)


def propagated(
    model: Model, x: jax.Array, choice: Choice, composite: Composite, batch_size: int | None, start: Start
) -> jax.Array:
    """What is pulled back through a rewired network, compiled once for new weights, images, outputs and bounds."""
    return _propagated(model, x, choice, *parted(composite, x.dtype), batch_size, start)


@functools.partial(jax.jit, static_argnames=("composite", "batch_size", "start"))
def _propagated(
    model: Model,
    x: jax.Array,
    choice: Choice,
    composite: Any,
    bounds: Bounds | None,
    batch_size: int | None,
    start: Start,
) -> jax.Array:
    suited = fitted(composite, bounds, model, x)
    return pull(rewire(model, suited), x, choice, batch_size=batch_size, start=start)
